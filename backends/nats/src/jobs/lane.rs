//! How messages of a concern's two queues reach whoever takes jobs of it on this host.
//!
//! Each queue has a pump that pulls one message at a time, and only while somebody waits: what a host doesn't work on
//! stays with the servers. A message that comes when nobody waits any more goes back at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use jobs::Queues;
use tokio::sync::{Notify, oneshot};

use super::lock;
use crate::streams::{Ack, Delivered, Pulls};

/// How long one pull waits at the servers.
const PULL: Duration = Duration::from_secs(5);
/// What a server may take to say that a pull's time is up; then the pull counts as lost.
const PULL_SLACK: Duration = Duration::from_secs(2);
/// After a pull that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// What ends a taker's wait. It may be asked again after it came: a future may not.
pub(super) struct Until(Option<BoxFuture<'static, ()>>);

impl Until {
    pub(super) fn of(future: BoxFuture<'static, ()>) -> Self {
        Self(Some(future))
    }
    pub(super) async fn comes(&mut self) {
        if let Some(future) = &mut self.0 {
            future.await;
            self.0 = None;
        }
    }
}

/// A message in somebody's hand.
pub(super) type Message = Box<dyn Delivered>;

#[derive(Debug)]
struct Waiter {
    queues: Queues,
    hand_over: oneshot::Sender<Message>,
}

/// The two queues of one concern on one host.
#[derive(Debug)]
pub(super) struct Lane {
    waiters: Mutex<VecDeque<Waiter>>,
    own_wanted: Arc<Notify>,
    shared_wanted: Arc<Notify>,
}

/// A message that goes back to its queue when it is dropped without having been kept.
pub(super) struct Parcel(Option<Message>);

impl Parcel {
    pub(super) fn message(&self) -> Option<&Message> {
        self.0.as_ref()
    }
    /// From now on its fate is the caller's.
    pub(super) fn keep(mut self) -> Option<Message> {
        self.0.take()
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if let Some(message) = self.0.take() {
            give_back(message);
        }
    }
}

fn give_back(message: Message) {
    // on a runtime that ends it is delivered again when its lease is over
    if let Ok(tokio) = tokio::runtime::Handle::try_current() {
        tokio.spawn(async move {
            if let Err(e) = message.ack(Ack::Back).await {
                tracing::debug!(error = %e, "a message was not given back; its queue delivers it again");
            }
        });
    }
}

impl Lane {
    /// Starts the pumps; they end with the lane.
    pub(super) fn start(own: Arc<dyn Pulls>, shared: Arc<dyn Pulls>) -> Arc<Self> {
        let lane = Arc::new(Self {
            waiters: Mutex::default(),
            own_wanted: Arc::default(),
            shared_wanted: Arc::default(),
        });
        let weak = || Arc::downgrade(&lane);
        tokio::spawn(pump(weak(), lane.own_wanted.clone(), own, Queues::Own));
        tokio::spawn(pump(weak(), lane.shared_wanted.clone(), shared, Queues::OwnAndShared));
        lane
    }

    fn is_wanted(&self, queue: Queues) -> bool {
        let mut waiters = lock(&self.waiters);
        waiters.retain(|w| !w.hand_over.is_closed());
        waiters.iter().any(|w| queue == Queues::Own || w.queues == queue)
    }

    fn deliver(&self, mut message: Message, queue: Queues) {
        let mut waiters = lock(&self.waiters);
        while let Some(n) = waiters.iter().position(|w| queue == Queues::Own || w.queues == queue) {
            let Some(waiter) = waiters.remove(n) else { break };
            match waiter.hand_over.send(message) {
                Ok(()) => return,
                Err(back) => message = back,
            }
        }
        drop(waiters);
        give_back(message);
    }

    /// The next message of these queues, or `None` when `until` ended.
    pub(super) async fn next(&self, queues: Queues, until: &mut Until) -> Option<Parcel> {
        let (hand_over, receiver) = oneshot::channel();
        lock(&self.waiters).push_back(Waiter { queues, hand_over });
        self.own_wanted.notify_one();
        if queues == Queues::OwnAndShared {
            self.shared_wanted.notify_one();
        }
        let mut receiver = Receiving(receiver);
        tokio::select! {
            // in this order, so that what happens follows from when it happens alone
            biased;
            () = until.comes() => None,
            message = &mut receiver.0 => Some(Parcel(message.ok())),
        }
    }
}

/// Where a message comes out; one that came when nobody looks any more goes back.
struct Receiving(oneshot::Receiver<Message>);

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.close();
        if let Ok(message) = self.0.try_recv() {
            give_back(message);
        }
    }
}

/// Never holds the lane while it waits, so that the lane can go.
async fn pump(lane: Weak<Lane>, wanted: Arc<Notify>, consumer: Arc<dyn Pulls>, queue: Queues) {
    loop {
        let Some(is_wanted) = lane.upgrade().map(|lane| lane.is_wanted(queue)) else {
            return;
        };
        if !is_wanted {
            // a waiter that came since left a permit; woken now and then, to see whether the lane has gone
            let _woken = tokio::time::timeout(PULL, wanted.notified()).await;
            continue;
        }
        let pulled = tokio::time::timeout(PULL + PULL_SLACK, consumer.pull(PULL)).await;
        let Some(strong) = lane.upgrade() else {
            if let Ok(Ok(Some(message))) = pulled {
                give_back(message);
            }
            return;
        };
        match pulled {
            Ok(Ok(Some(message))) => strong.deliver(message, queue),
            Ok(Ok(None)) | Err(_) => {}
            Ok(Err(e)) => {
                tracing::debug!(error = %e, "pulling from a queue of jobs failed; trying again");
                drop(strong);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Found by the simulation (its seed 121): a drain that came while a silent host's job was watched ended the taker for good.
    #[test]
    fn what_has_come_may_be_asked_again() {
        let mut until = Until::of(std::future::ready(()).boxed());
        assert!(until.comes().now_or_never().is_some());
        assert!(until.comes().now_or_never().is_some());
        let mut never = Until::of(std::future::pending().boxed());
        assert!(never.comes().now_or_never().is_none());
    }
}
