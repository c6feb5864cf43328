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
pub struct Responder(Option<Box<dyn FnOnce(Option<Bytes>) + Send>>);

impl Responder {
    /// A responder and the end where its answer comes out.
    pub fn new() -> (Self, oneshot::Receiver<Bytes>) {
        let (sender, receiver) = oneshot::channel();
        let send = move |answer| {
            if let Some(answer) = answer {
                let _asker_gone = sender.send(answer);
            }
        };
        (Self::through(send), receiver)
    }
    /// A responder whose answer goes through `send`, which must not wait; `None` when it was dropped without an answer.
    pub fn through(send: impl FnOnce(Option<Bytes>) + Send + 'static) -> Self {
        Self(Some(Box::new(send)))
    }
    /// Sends the encoded answer. An asker that has gone away is no error.
    pub fn answer(mut self, answer: Bytes) {
        if let Some(send) = self.0.take() {
            send(Some(answer));
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(send) = self.0.take() {
            send(None);
        }
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

/// A delivery that was not queued, to be answered by whoever offered it.
#[derive(Debug)]
pub enum NotQueued {
    /// As many wait as may.
    Full(Delivery),
    /// The server has left, or takes nothing new.
    Gone(Delivery),
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
    /// Queues a delivery, or gives it back; never waits.
    ///
    /// # Errors
    /// The delivery, with why.
    pub fn offer(&self, delivery: Delivery) -> Result<(), NotQueued> {
        self.0.try_send(delivery).map_err(|e| match e {
            mpsc::error::TrySendError::Full(delivery) => NotQueued::Full(delivery),
            mpsc::error::TrySendError::Closed(delivery) => NotQueued::Gone(delivery),
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
