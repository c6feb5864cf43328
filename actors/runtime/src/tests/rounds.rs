//! Work that comes round.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::{Address, Headers, Request};

use super::{Site, eventually, host, limits};
use crate::{Call, Concern, Effect, Round, Routes};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Break {}

impl Request for Break {
    type Reply = ();
    const CONCERN: &'static str = "sweeper";
    const VERB: &'static str = "break";
    const ADDRESS: Address = Address::Host;
    const ABOUT: &'static str = "Breaks";
    fn sample() -> Self {
        Self {}
    }
    fn sample_reply() {}
}

/// Counts its rounds; the second one panics.
struct Sweeper {
    built: u64,
    swept: Arc<AtomicU64>,
    at_once: Arc<AtomicU64>,
}

impl Concern for Sweeper {
    const NAME: &'static str = "sweeper";
    fn routes() -> Routes<Self> {
        Routes::new().on(Self::break_down)
    }
    fn observed(&self) -> Value {
        self.built.into()
    }
    fn round(&self) -> Option<Round> {
        let (swept, at_once) = (self.swept.clone(), self.at_once.clone());
        Some(Round::every(Duration::from_millis(10), move || {
            let (swept, at_once) = (swept.clone(), at_once.clone());
            async move {
                assert_eq!(at_once.fetch_add(1, Ordering::SeqCst), 0, "one round at a time");
                tokio::time::sleep(Duration::from_millis(5)).await;
                at_once.fetch_sub(1, Ordering::SeqCst);
                assert_ne!(swept.fetch_add(1, Ordering::SeqCst), 1, "the broom breaks");
            }
        }))
    }
}

impl Sweeper {
    fn break_down(&mut self, _: Break, _: &Call) -> Effect<Self, ()> {
        panic!("the sweeper falls")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_comes_again_after_its_own_panic_and_its_concern_s_death_and_ends_with_it() {
    let site = Site::new().await;
    let (swept, at_once, built) = (Arc::<AtomicU64>::default(), Arc::default(), AtomicU64::new(0));
    let counted = swept.clone();
    let factory = move || Sweeper {
        built: built.fetch_add(1, Ordering::SeqCst) + 1,
        swept: counted.clone(),
        at_once: Arc::clone(&at_once),
    };
    site.house.start(limits(), factory).await.unwrap();
    eventually(|| async { swept.load(Ordering::SeqCst) > 4 }).await;
    let deaths = |cause: &'static str| {
        let site = &site;
        async move {
            let status = site.house.status().await.unwrap();
            let sweeper = status.concerns.into_iter().find(|c| c.concern == "sweeper").unwrap();
            sweeper.deaths.get(cause).copied().unwrap_or(0)
        }
    };
    assert_eq!((deaths("round_panic").await, deaths("panic").await), (1, 0));
    let broken = bus::call(&*site.bus, &host(), &Break {}, Headers::default()).await;
    assert!(broken.is_err());
    let before = swept.load(Ordering::SeqCst);
    eventually(|| async { swept.load(Ordering::SeqCst) > before + 2 }).await;
    assert_eq!((deaths("round_panic").await, deaths("panic").await), (1, 1));
    site.house.drain(Duration::from_secs(5)).await;
    // the one under way may end
    tokio::time::sleep(Duration::from_millis(50)).await;
    let after = swept.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(swept.load(Ordering::SeqCst), after);
}
