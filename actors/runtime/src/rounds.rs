//! Work of a concern that comes round, such as a sweep: never twice at once, gone with the concern, its deaths counted.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::keeper::panic_text;
use crate::ledger::Ledger;

/// Work that a concern has done now and again, on the program's tokio runtime: at once after each build, then after each pause.
#[derive(Clone)]
pub struct Round {
    every: Duration,
    work: Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Round {
    /// `work`, with a pause of `every` between its end and its next begin.
    pub fn every<Fut>(every: Duration, work: impl Fn() -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        let work = Arc::new(move || work().boxed());
        Self { every, work }
    }
}

/// The round of the concern that stands now, and the end of all of them when this is dropped. To be called on a tokio runtime.
pub(crate) fn begin(ledger: Arc<Ledger>) -> watch::Sender<Option<Round>> {
    let (stands, rounds) = watch::channel(None);
    tokio::spawn(go(ledger, rounds));
    stands
}

async fn go(ledger: Arc<Ledger>, mut rounds: watch::Receiver<Option<Round>>) {
    loop {
        let round: Option<Round> = rounds.borrow_and_update().clone();
        if let Some(round) = &round {
            let work = AssertUnwindSafe(async { (round.work)().await });
            if let Err(unwound) = work.catch_unwind().await {
                let why = panic_text(unwound);
                tracing::error!(concern = ledger.concern, why, "a round panicked; it comes again");
                ledger.count_death("round_panic");
            }
        }
        let pause = async {
            match &round {
                Some(round) => tokio::time::sleep(round.every).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = rounds.changed() => if changed.is_err() { return },
            () = pause => {}
        }
    }
}
