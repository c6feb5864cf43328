//! The server's side of a request: a bounded queue of deliveries, each with a handle that answers once.
//!
//! Who has a queue of its own takes deliveries as they come ([`Incoming::forward`]), on the bus's own thread: a queue less is a
//! task less to be woken.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
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
    /// When it came, by this host's monotonic clock.
    pub arrived: Instant,
    /// When the asker stops waiting, by this host's monotonic clock (arrival plus `Windlass-Timeout-Ms`).
    pub deadline: Option<Instant>,
    /// Answers it.
    pub responder: Responder,
}

/// Answers one request, once. Dropped without an answer, the asker hears `unavailable`.
#[derive(Debug)]
pub struct Responder(Option<Way>);

/// How an answer goes back.
enum Way {
    Channel(oneshot::Sender<Bytes>),
    Through(Box<dyn FnOnce(Option<Bytes>) + Send>),
}

impl Responder {
    /// A responder and the end where its answer comes out.
    pub fn new() -> (Self, oneshot::Receiver<Bytes>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(Way::Channel(sender))), receiver)
    }
    /// A responder whose answer goes through `send`, which must not wait; `None` when it was dropped without an answer.
    pub fn through(send: impl FnOnce(Option<Bytes>) + Send + 'static) -> Self {
        Self(Some(Way::Through(Box::new(send))))
    }
    /// Sends the encoded answer. An asker that has gone away is no error.
    pub fn answer(mut self, answer: Bytes) {
        match self.0.take() {
            Some(Way::Channel(asker)) => {
                let _asker_gone = asker.send(answer);
            }
            Some(Way::Through(send)) => send(Some(answer)),
            None => {}
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        // who waits at a channel hears of its end
        if let Some(Way::Through(send)) = self.0.take() {
            send(None);
        }
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Way")
    }
}

type Sink = Box<dyn Fn(Delivery) + Send + Sync>;

/// The requests of one service, in the order of their arrival.
pub struct Incoming {
    receiver: mpsc::Receiver<Delivery>,
    sink: Arc<OnceLock<Sink>>,
    registration: Registration,
}

/// A service's place in its bus; dropped, it is taken out.
pub struct Registration(Option<Deregister>);

type Deregister = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// The bus's end of an [`Incoming`].
#[derive(Clone)]
pub struct IncomingSender {
    queue: mpsc::Sender<Delivery>,
    sink: Arc<OnceLock<Sink>>,
}

/// A delivery that was not queued, to be answered by whoever offered it.
#[derive(Debug)]
pub enum NotQueued {
    /// As many wait as may.
    Full(Delivery),
    /// The server has left, or takes nothing new.
    Gone(Delivery),
}

/// A queue for `requests_max` requests; `deregister` runs when the [`Incoming`] is closed or dropped, and gives what ends when
/// nothing comes any more, whether somebody waits for that or not.
pub fn incoming_queue(
    requests_max: usize,
    deregister: impl FnOnce() -> BoxFuture<'static, ()> + Send + 'static,
) -> (IncomingSender, Incoming) {
    let (queue, receiver) = mpsc::channel(requests_max.max(1));
    let sink = Arc::<OnceLock<Sink>>::default();
    let sender = IncomingSender {
        queue,
        sink: sink.clone(),
    };
    let registration = Registration(Some(Box::new(deregister)));
    let incoming = Incoming {
        receiver,
        sink,
        registration,
    };
    (sender, incoming)
}

impl IncomingSender {
    /// Queues a delivery, or gives it back; never waits.
    ///
    /// # Errors
    /// The delivery, with why.
    pub fn offer(&self, delivery: Delivery) -> Result<(), NotQueued> {
        let queued = match self.sink.get() {
            None => self.queue.try_send(delivery),
            Some(sink) => {
                sink(delivery);
                return Ok(());
            }
        };
        match (queued, self.sink.get()) {
            (Ok(()), _) => Ok(()),
            (Err(mpsc::error::TrySendError::Full(delivery)), _) => Err(NotQueued::Full(delivery)),
            // the sink came in between
            (Err(mpsc::error::TrySendError::Closed(delivery)), Some(sink)) => {
                sink(delivery);
                Ok(())
            }
            (Err(mpsc::error::TrySendError::Closed(delivery)), None) => Err(NotQueued::Gone(delivery)),
        }
    }
}

impl Incoming {
    /// The next request; `None` after [`Incoming::close`] when the queue is empty.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.receiver.recv().await
    }
    /// From now on every request goes to `sink`, on whatever thread it arrives at; it must not wait. The queue is no more, so
    /// the sink keeps its own bound; it also gets what still comes after the [`Registration`] was closed.
    pub async fn forward(mut self, sink: impl Fn(Delivery) + Send + Sync + 'static) -> Registration {
        let registration = Registration(self.registration.0.take());
        let place = self.sink.clone();
        let sink = place.get_or_init(move || Box::new(sink));
        // who found no sink has put its delivery into the queue, or finds it closed and looks again
        self.receiver.close();
        while let Some(delivery) = self.receiver.recv().await {
            sink(delivery);
        }
        registration
    }
    /// Stops taking requests; those already queued still come out of [`Incoming::next`].
    pub fn close(&mut self) {
        let _nobody_waits = self.registration.close();
        self.receiver.close();
    }
}

impl Registration {
    /// Takes the service out of its bus; what it gives ends when nothing comes any more.
    pub fn close(&mut self) -> BoxFuture<'static, ()> {
        match self.0.take() {
            Some(deregister) => deregister(),
            None => std::future::ready(()).boxed(),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _nobody_waits = self.close();
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("open", &self.0.is_some()).finish()
    }
}

impl fmt::Debug for IncomingSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IncomingSender")
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("queued", &self.receiver.len())
            .finish()
    }
}
