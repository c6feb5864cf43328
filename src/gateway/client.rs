//! The command line's side: a [`Bus`] whose other end is a daemon.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bus::{Bus, BusError, EventSender, Events, Incoming, Kind, REQUEST_TIMEOUT_MS_DEFAULT, Service, event_ring};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming as Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use wire::subject::EventFilter;
use wire::{Code, ErrorBody, Headers, Subject};

use super::{EVENTS_PATH, HOST_PATH, HostInfo, REQUEST_PATH, socket, sse};

/// How long a daemon may take to say who it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// What the transport may take on top of a request's own time.
const TRANSPORT_GRACE: Duration = Duration::from_secs(2);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = bus::PAYLOAD_BYTES_MAX + (64 << 10);

/// Whose daemon answers at the socket; `None` when none does.
///
/// # Errors
/// `denied` when the socket may not be used, `unavailable` when what answers isn't a windlass daemon.
pub async fn probe(path: &Path) -> Result<Option<HostInfo>, ErrorBody> {
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        // InvalidInput: a path too long for a socket, so no daemon can be there
        Err(e)
            if matches!(
                e.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::InvalidInput
            ) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(socket::fault("connect to", path, &e)),
    };
    let asked = async {
        let mut sender = open(stream).await?;
        let response = sender.send_request(get(HOST_PATH)?).await.map_err(|e| e.to_string())?;
        let body = read_all(response).await?;
        serde_json::from_slice(&body).map_err(|e| e.to_string())
    };
    match tokio::time::timeout(PROBE_TIMEOUT, asked).await {
        Ok(Ok(info)) => Ok(Some(info)),
        Ok(Err(why)) => Err(stranger(path, &why)),
        Err(_) => Err(stranger(path, "no answer in time")),
    }
}

fn stranger(path: &Path, why: &str) -> ErrorBody {
    ErrorBody::new(
        Code::Unavailable,
        format!(
            "what listens at {} doesn't answer like a windlass daemon: {why}",
            path.display()
        ),
    )
    .hint("look at the daemon's log, or end that process")
}

async fn open(stream: UnixStream) -> Result<SendRequest<Full<Bytes>>, String> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // ends with the sender, or with the stream that a response still reads
    tokio::spawn(async move {
        if let Err(e) = connection.await {
            tracing::debug!(error = %e, "connection to the daemon ended");
        }
    });
    Ok(sender)
}

fn get(path: &str) -> Result<Request<Full<Bytes>>, String> {
    build(Method::GET, path, &Headers::default(), Bytes::new())
}

fn build(method: Method, path: &str, headers: &Headers, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::builder().method(method).uri(path).header("host", "windlass");
    for (name, value) in headers.pairs() {
        request = request.header(name, value);
    }
    request
        .header("content-type", "application/json")
        .body(Full::new(body))
        .map_err(|e| e.to_string())
}

async fn read_all(response: Response<Body>) -> Result<Bytes, String> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    body.collect().await.map(|b| b.to_bytes()).map_err(|e| e.to_string())
}

/// A daemon's bus, over its socket; one connection a request.
#[derive(Debug, Clone)]
pub struct GatewayBus {
    socket: PathBuf,
}

impl GatewayBus {
    /// The bus behind that socket.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }
    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>, BusError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| {
            BusError::new(
                Kind::Unavailable,
                format!(
                    "the daemon at {} can't be reached: {e}; nothing was sent",
                    self.socket.display()
                ),
            )
            .hint("windlass serve")
            .caused_by(e)
        })?;
        open(stream).await.map_err(|e| self.broken(&e))
    }
    fn broken(&self, why: &str) -> BusError {
        BusError::new(
            Kind::Unavailable,
            format!(
                "the connection to the daemon at {} broke: {why}; the work may have been done",
                self.socket.display()
            ),
        )
    }
}

#[async_trait]
impl Bus for GatewayBus {
    async fn request(&self, subject: &Subject, headers: Headers, payload: Bytes) -> Result<Bytes, BusError> {
        let timeout_ms = headers.timeout_ms.unwrap_or(REQUEST_TIMEOUT_MS_DEFAULT);
        let asked = async {
            let mut sender = self.sender().await?;
            let request = build(Method::POST, &format!("{REQUEST_PATH}{subject}"), &headers, payload)
                .map_err(|e| BusError::new(Kind::Invalid, format!("{subject}: {e}; nothing was sent")))?;
            let response = sender
                .send_request(request)
                .await
                .map_err(|e| self.broken(&e.to_string()))?;
            read_all(response).await.map_err(|e| self.broken(&e))
        };
        let patience = Duration::from_millis(timeout_ms).saturating_add(TRANSPORT_GRACE);
        tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| {
            Err(BusError::new(
                Kind::Deadline,
                format!("no answer from {subject} within {timeout_ms} ms; the work may still be done"),
            ))
        })
    }

    async fn publish(&self, subject: &Subject, _payload: Bytes) -> Result<(), BusError> {
        Err(BusError::new(
            Kind::Invalid,
            format!("{subject}: the gateway takes no events; nothing was published"),
        ))
    }

    async fn serve(&self, service: Service) -> Result<Incoming, BusError> {
        Err(BusError::new(
            Kind::Invalid,
            format!("{} can't be served through the gateway", service.concern),
        ))
    }

    async fn subscribe(&self, filter: EventFilter, events_queued_max: usize) -> Result<Events, BusError> {
        let mut sender = self.sender().await?;
        // `>` may not stand in a URL; the other characters of a pattern may
        let pattern = filter.pattern().replace('>', "%3E");
        let request = get(&format!("{EVENTS_PATH}?filter={pattern}"))
            .map_err(|e| BusError::new(Kind::Invalid, format!("{pattern}: {e}")))?;
        let asked = tokio::time::timeout(PROBE_TIMEOUT, sender.send_request(request));
        let response = asked
            .await
            .map_err(|_| BusError::new(Kind::Deadline, "the daemon did not begin to send events in time"))?
            .map_err(|e| self.broken(&e.to_string()))?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let (ring, events) = event_ring(events_queued_max);
        tokio::spawn(pump(response.into_body(), ring, sender));
        Ok(events)
    }
}

/// A refusal as the gateway words it.
async fn refusal(response: Response<Body>) -> BusError {
    let status = response.status();
    let body = read_all(response).await.unwrap_or_default();
    match serde_json::from_slice::<wire::Answer<serde::de::IgnoredAny>>(&body) {
        Ok(wire::Answer::Error(e)) => {
            let kind = match e.code {
                Code::Busy => Kind::Busy,
                Code::Invalid => Kind::Invalid,
                Code::Deadline => Kind::Deadline,
                _ => Kind::Unavailable,
            };
            let error = BusError::new(kind, e.message);
            let error = e.hint.map_or_else(
                || BusError::new(kind, error.to_string()),
                |hint| BusError::new(kind, error.to_string()).hint(hint),
            );
            match e.retry_after_ms {
                Some(ms) => error.retry_after_ms(ms),
                None => error,
            }
        }
        _ => BusError::new(
            Kind::Unavailable,
            format!("the daemon answered {status} to a request for events"),
        ),
    }
}

/// Carries events from the response to the subscriber's ring, until either side ends.
async fn pump(mut body: Body, ring: EventSender, _keeps_the_connection: SendRequest<Full<Bytes>>) {
    let mut decoder = sse::Decoder::default();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(piece) = frame.into_data() else { continue };
        let Ok(found) = decoder.push(&piece) else {
            tracing::warn!("the daemon's events can't be read: a line is too long");
            return;
        };
        for received in found {
            match received {
                bus::Received::Event { subject, payload } => {
                    if !ring.push(subject, payload) {
                        return;
                    }
                }
                bus::Received::Lost(n) => tracing::warn!(lost = n, "events were lost on the way"),
            }
        }
        if !ring.is_wanted() {
            return;
        }
    }
}
