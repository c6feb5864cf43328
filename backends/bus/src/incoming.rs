//! The server's side of a request: a bounded queue of deliveries, each with a handle that answers once.

use std::fmt;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use wire::{Headers, Subject};

/// One request as its server gets it.
#[derive(Debug)]
pub struct Delivery {
    /// What it was sent to.
    pub subject: Subject,
    /// Its headers.
    pub headers: Headers,
    /// The encoded request.
    pub payload: Bytes,
    /// When the asker stops waiting, by this host's monotonic clock (arrival plus `Windlass-Timeout-Ms`).
    pub deadline: Option<Instant>,
    /// Answers it.
    pub responder: Responder,
}

/// Answers one request, once. Dropped without an answer, the asker hears `unavailable`.
pub struct Responder(oneshot::Sender<Bytes>);

impl Responder {
    /// A responder and the end where its answer comes out.
    pub fn new() -> (Self, oneshot::Receiver<Bytes>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }
    /// Sends the encoded answer. An asker that has gone away is no error.
    pub fn answer(self, answer: Bytes) {
        let _asker_gone = self.0.send(answer);
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder")
    }
}

/// The requests of one service, in the order of their arrival.
pub struct Incoming {
    receiver: mpsc::Receiver<Delivery>,
    // taken out of the bus's registry when it goes
    registration: Option<Box<dyn FnOnce() + Send>>,
}

/// The bus's end of an [`Incoming`].
#[derive(Debug, Clone)]
pub struct IncomingSender(mpsc::Sender<Delivery>);

/// Why a delivery was not queued.
#[derive(Debug)]
pub(crate) enum NotQueued {
    Full,
    Gone,
}

/// A queue for `requests_max` requests; `deregister` runs when the [`Incoming`] is closed or dropped.
pub fn incoming_queue(requests_max: usize, deregister: impl FnOnce() + Send + 'static) -> (IncomingSender, Incoming) {
    let (sender, receiver) = mpsc::channel(requests_max.max(1));
    (
        IncomingSender(sender),
        Incoming {
            receiver,
            registration: Some(Box::new(deregister)),
        },
    )
}

impl IncomingSender {
    /// Queues a delivery, or says why not; never waits.
    pub(crate) fn offer(&self, delivery: Delivery) -> Result<(), NotQueued> {
        self.0.try_send(delivery).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => NotQueued::Full,
            mpsc::error::TrySendError::Closed(_) => NotQueued::Gone,
        })
    }
}

impl Incoming {
    /// The next request; `None` after [`Incoming::close`] when the queue is empty.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.receiver.recv().await
    }
    /// Stops taking requests; those already queued still come out of [`Incoming::next`].
    pub fn close(&mut self) {
        if let Some(deregister) = self.registration.take() {
            deregister();
        }
        self.receiver.close();
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("queued", &self.receiver.len())
            .finish()
    }
}
