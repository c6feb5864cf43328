//! Serving: subscriptions become deliveries, and every delivery is answered.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Subject as NatsSubject, Subscriber};
use bus::rules::{busy, nobody};
use bus::{
    BusError, Delivery, Incoming, IncomingSender, Kind, NotQueued, PAYLOAD_BYTES_MAX, Responder, Service, answer_bytes,
    incoming_queue,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::unconstrained;
use tokio::time::Instant;
use wire::{Answer, Code, ErrorBody, Headers, Subject};

use crate::announce::{Announcer, Card, Tally};
use crate::lattice::Lattice;
use crate::replies::Text;

/// How long the server may take to know of our subscriptions.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon unsubscribing is tried again when the connection's queue is full.
const UNSUBSCRIBE_AGAIN: Duration = Duration::from_millis(10);
/// How long what was on its way may take to come.
const LEFT_TIMEOUT: Duration = Duration::from_secs(5);
/// Unsubscribes at the server and not here. `UNSUB` may name a number of messages after which the server does it; one of more
/// than nine digits is none to it, so it does it at once, while async-nats goes on to deliver. Its own ways to leave
/// (`unsubscribe`, `drain`) forget the subscription before the server does, and what comes in between.
const AT_ONCE: u64 = 1 << 62;

/// A subscription that its reader and whoever closes the service share.
type Shared = Arc<Mutex<Subscriber>>;

/// What every delivery of one endpoint has in common.
struct Door {
    subject: Subject,
    client: Client,
    handle: Handle,
    tally: Arc<Tally>,
}

/// Starts to serve; returns once the server knows of it.
pub(crate) async fn serve(lattice: &Lattice, announcer: &Announcer, service: Service) -> Result<Incoming, BusError> {
    let subjects = service.subjects()?;
    let card = Card::of(&service, &subjects);
    let mut open = Vec::new();
    for subject in &subjects {
        let client = lattice.client();
        let subscribed = match subject.queue_group() {
            Some(group) => client.queue_subscribe(subject.to_string(), group.to_owned()).await,
            None => client.subscribe(subject.to_string()).await,
        };
        let subscriber = subscribed
            .map_err(|e| BusError::new(Kind::Unavailable, format!("{subject} can't be served: {e}")).caused_by(e))?;
        open.push(Arc::new(Mutex::new(subscriber)));
    }
    let registration = announcer.register(card.clone());
    let (nothing_comes, ended) = watch::channel(false);
    let (reads, all_read) = mpsc::channel(1);
    let leaving = Leaving {
        lattice: lattice.clone(),
        subscribers: open.clone(),
        nothing_comes,
        all_read,
        handle: Handle::current(),
    };
    let (sender, incoming) = incoming_queue(service.queue_requests_max, move || {
        drop(registration);
        leaving.begin()
    });
    for ((subject, subscriber), tally) in subjects.into_iter().zip(open).zip(card.tallies()) {
        let door = Door {
            subject,
            client: lattice.client().clone(),
            handle: Handle::current(),
            tally,
        };
        let reading = read(subscriber, Arc::new(door), sender.clone(), ended.clone());
        let reads = reads.clone();
        tokio::spawn(async move {
            reading.await;
            drop(reads);
        });
    }
    let known = lattice.replies().barrier(Instant::now() + KNOWN_TIMEOUT).await;
    known.map_err(|e| {
        BusError::new(Kind::Unavailable, format!("{} can't be served: {e}", service.concern)).caused_by(e)
    })?;
    Ok(incoming)
}

/// What it takes to leave without leaving anybody unanswered.
struct Leaving {
    lattice: Lattice,
    subscribers: Vec<Shared>,
    nothing_comes: watch::Sender<bool>,
    /// Ends with the last reader; nothing is sent.
    all_read: mpsc::Receiver<()>,
    handle: Handle,
}

impl Leaving {
    /// Unsubscribes now, unless the connection's queue is full; ends when what was under way has been read.
    fn begin(mut self) -> BoxFuture<'static, ()> {
        self.subscribers.retain(|subscriber| !try_unsubscribe(subscriber));
        let left = self.handle.clone().spawn(self.end());
        left.map(|_its_runtime_may_be_gone| ()).boxed()
    }

    async fn end(mut self) {
        while !self.subscribers.iter().all(try_unsubscribe) {
            tokio::time::sleep(UNSUBSCRIBE_AGAIN).await;
        }
        // the server sends nothing behind what comes back to us now; without a connection nothing is under way
        let _passed_or_late = self.lattice.replies().barrier(Instant::now() + LEFT_TIMEOUT).await;
        self.nothing_comes.send_replace(true);
        self.all_read.recv().await;
    }
}

fn try_unsubscribe(subscriber: &Shared) -> bool {
    // nothing panics under this lock
    let mut subscriber = subscriber.lock().unwrap_or_else(PoisonError::into_inner);
    subscriber.unsubscribe_after(AT_ONCE).now_or_never().is_some()
}

/// Reads until nothing comes any more. The subscription goes with it.
async fn read(subscriber: Shared, door: Arc<Door>, queue: IncomingSender, mut ended: watch::Receiver<bool>) {
    let next = || {
        futures::future::poll_fn(|cx| -> Poll<Option<Message>> {
            subscriber
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .poll_next_unpin(cx)
        })
    };
    loop {
        tokio::select! {
            biased;
            message = next() => match message {
                Some(message) => take(message, &door, &queue),
                None => return,
            },
            _told_or_gone = ended.changed() => break,
        }
    }
    while let Some(Some(message)) = unconstrained(next()).now_or_never() {
        take(message, &door, &queue);
    }
}

/// Every message is answered, whatever it holds; one without a reply subject has nobody to be answered, and nothing is done.
fn take(message: Message, door: &Arc<Door>, queue: &IncomingSender) {
    let Some(reply) = message.reply else {
        door.tally.refused("a message without a reply subject");
        tracing::debug!(subject = %door.subject, "a message without a reply subject was not carried out");
        return;
    };
    let arrived = Instant::now();
    let responder = responder(door.clone(), reply, arrived);
    let refuse = |responder: Responder, error: ErrorBody| responder.answer(answer_bytes(Err(error)));
    let headers = match headers(message.headers.as_ref()) {
        Ok(headers) => headers,
        Err(mut error) => {
            error.message = format!("{}: {}; nothing was carried out", door.subject, error.message);
            return refuse(responder, error);
        }
    };
    if message.payload.len() > PAYLOAD_BYTES_MAX {
        let why = format!(
            "{}: {} bytes; at most {PAYLOAD_BYTES_MAX} are taken; nothing was carried out",
            door.subject,
            message.payload.len()
        );
        return refuse(responder, ErrorBody::new(Code::Invalid, why));
    }
    let delivery = Delivery {
        subject: door.subject.clone(),
        arrived,
        deadline: Some(arrived + Duration::from_millis(bus::rules::patience_ms(&headers))),
        headers,
        payload: message.payload,
        responder,
    };
    match queue.offer(delivery) {
        Ok(()) => {}
        Err(NotQueued::Full(delivery)) => refuse(delivery.responder, busy(&door.subject).into()),
        Err(NotQueued::Gone(delivery)) => refuse(delivery.responder, nobody(&door.subject).into()),
    }
}

fn headers(map: Option<&HeaderMap>) -> Result<Headers, ErrorBody> {
    let pairs = map.into_iter().flat_map(HeaderMap::iter);
    Headers::from_pairs(pairs.filter_map(|(name, values)| Some((name.as_ref(), values.first()?.as_str()))))
}

/// Sends the answer from whatever thread it is given on. It goes into the connection's queue at once, or is put there by a task
/// when the queue is full.
fn responder(door: Arc<Door>, reply: NatsSubject, arrived: Instant) -> Responder {
    Responder::through(move |answer| {
        let answer = answer.unwrap_or_else(|| {
            let left = bus::rules::left(&door.subject);
            answer_bytes(Err(left.into()))
        });
        let error = error_of(&answer);
        door.tally.answered(arrived.elapsed(), error.as_ref());
        // not for the budget of the task that answers: what is refused here would be a task of its own
        let at_once = unconstrained(send(&door, &reply, answer.clone(), error.as_ref()));
        if at_once.now_or_never().is_none() {
            let handle = door.handle.clone();
            handle.spawn(async move { send(&door, &reply, answer, error.as_ref()).await });
        }
    })
}

async fn send(door: &Door, reply: &NatsSubject, answer: Bytes, error: Option<&ErrorBody>) {
    let bytes = answer.len();
    let sent = match error {
        None => door.client.publish(Text(reply), answer).await,
        Some(error) => {
            door.client
                .publish_with_headers(Text(reply), error_headers(error), answer)
                .await
        }
    };
    let Err(error) = sent else { return };
    tracing::warn!(subject = %door.subject, %error, bytes, "an answer can't be sent");
    if error.kind() == async_nats::PublishErrorKind::MaxPayloadExceeded {
        let why = format!(
            "{}: the answer has {bytes} bytes; the NATS server carries {}; the request was carried out",
            door.subject,
            door.client.max_payload()
        );
        let body = ErrorBody::new(Code::Internal, why).hint("max_payload of the server; docs/lattice.md");
        let headers = error_headers(&body);
        // a connection that has ended has nobody to tell
        let _ended = door
            .client
            .publish_with_headers(Text(reply), headers, answer_bytes(Err(body)))
            .await;
    }
}

/// The error in an answer; looks into those alone that begin like one.
fn error_of(answer: &Bytes) -> Option<ErrorBody> {
    if !answer.starts_with(b"{\"error\"") {
        return None;
    }
    match serde_json::from_slice::<Answer<serde::de::IgnoredAny>>(answer) {
        Ok(Answer::Error(error)) => Some(error),
        _ => None,
    }
}

/// What clients of the NATS services protocol look at.
fn error_headers(error: &ErrorBody) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let line: String = error
        .message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    headers.insert("Nats-Service-Error", format!("{}: {line}", error.code));
    headers.insert("Nats-Service-Error-Code", error.code.http_status().to_string());
    headers
}
