//! The command line's side: a [`Bus`] whose other end is a daemon, on this machine's socket or at an address.

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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use wire::subject::EventFilter;
use wire::{Code, ErrorBody, Headers, Subject};

use super::{EVENTS_PATH, HOST_PATH, HostInfo, REQUEST_PATH, socket, sse};

/// How long a daemon may take to say who it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// What the transport may take on top of a request's own time.
const TRANSPORT_GRACE: Duration = Duration::from_secs(2);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = bus::PAYLOAD_BYTES_MAX + (64 << 10);

/// How a daemon is reached.
#[derive(Debug, Clone)]
pub enum Way {
    /// Over its socket on this machine.
    Socket(PathBuf),
    /// At an address, with its token.
    Address(Remote),
}

/// A gateway at an address.
#[derive(Clone)]
pub struct Remote {
    authority: String,
    token: String,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl Remote {
    /// The gateway at `http://HOST:PORT`, for whom the file holds the token.
    ///
    /// # Errors
    /// `invalid` for another URL; what is wrong with the file.
    pub fn new(url: &str, token_file: Option<&Path>) -> Result<Self, ErrorBody> {
        let invalid = |why: &str| {
            let shown: String = url.chars().take(120).collect();
            ErrorBody::new(Code::Invalid, format!("--gateway {shown}: {why}")).hint("--gateway http://127.0.0.1:7070")
        };
        let parsed = url::Url::parse(url).map_err(|e| invalid(&e.to_string()))?;
        if parsed.scheme() != "http" {
            return Err(invalid("only http:// is spoken; TLS is a proxy's, on either side"));
        }
        let bare = parsed.path() == "/" && parsed.query().is_none() && parsed.fragment().is_none();
        let host = parsed
            .host_str()
            .filter(|_| bare && parsed.username().is_empty() && parsed.password().is_none());
        let Some(host) = host else {
            return Err(invalid("wanted is a host and a port, and nothing else"));
        };
        let Some(file) = token_file else {
            return Err(ErrorBody::new(Code::Denied, "a gateway at an address needs its token")
                .hint("--gateway-token-file FILE, or WINDLASS_GATEWAY_TOKEN_FILE"));
        };
        Ok(Self {
            authority: format!("{host}:{}", parsed.port_or_known_default().unwrap_or(80)),
            token: super::guard::read_token(file)?,
        })
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Address(remote) => f.write_str(&remote.authority),
        }
    }
}

impl Way {
    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, std::io::Error> {
        match self {
            Self::Socket(path) => open(UnixStream::connect(path).await?).await,
            Self::Address(remote) => {
                let connected = tokio::time::timeout(PROBE_TIMEOUT, TcpStream::connect(&remote.authority));
                let stream = connected
                    .await
                    .map_err(|_| std::io::Error::from(ErrorKind::TimedOut))??;
                stream.set_nodelay(true)?;
                open(stream).await
            }
        }
    }
    fn build(
        &self,
        method: Method,
        path: &str,
        headers: &Headers,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder().method(method).uri(path);
        request = match self {
            Self::Socket(_) => request.header("host", "windlass"),
            Self::Address(remote) => request
                .header("host", &remote.authority)
                .header("authorization", format!("Bearer {}", remote.token)),
        };
        for (name, value) in headers.pairs() {
            request = request.header(name, value);
        }
        request
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|e| e.to_string())
    }
    fn get(&self, path: &str) -> Result<Request<Full<Bytes>>, String> {
        self.build(Method::GET, path, &Headers::default(), Bytes::new())
    }
}

/// Whose daemon answers at an address.
///
/// # Errors
/// `denied` when it doesn't take the token, `unavailable` when none answers.
pub async fn probe_address(remote: &Remote) -> Result<HostInfo, ErrorBody> {
    let way = Way::Address(remote.clone());
    let unavailable = |why: String| {
        ErrorBody::new(
            Code::Unavailable,
            format!("no gateway answers at {way}: {why}; nothing was sent"),
        )
        .hint("is gateway.listen set there? windlass status, on that host")
    };
    let asked = async {
        let mut sender = way.connect().await.map_err(|e| unavailable(e.to_string()))?;
        let request = way.get(HOST_PATH).map_err(&unavailable)?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| unavailable(e.to_string()))?;
        let body = read_all(response).await.map_err(&unavailable)?;
        if let Ok(wire::Answer::Error(refused)) = serde_json::from_slice::<wire::Answer<serde::de::IgnoredAny>>(&body) {
            return Err(refused);
        }
        serde_json::from_slice(&body).map_err(|e| unavailable(e.to_string()))
    };
    match tokio::time::timeout(PROBE_TIMEOUT * 2, asked).await {
        Ok(result) => result,
        Err(_) => Err(unavailable("no answer in time".into())),
    }
}

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
        let mut sender = open(stream).await.map_err(|e| e.to_string())?;
        let request = Way::Socket(path.to_owned()).get(HOST_PATH)?;
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
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

async fn open<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, std::io::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    // ends with the sender, or with the stream that a response still reads
    tokio::spawn(async move {
        if let Err(e) = connection.await {
            tracing::debug!(error = %e, "connection to the daemon ended");
        }
    });
    Ok(sender)
}

async fn read_all(response: Response<Body>) -> Result<Bytes, String> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    body.collect().await.map(|b| b.to_bytes()).map_err(|e| e.to_string())
}

/// A daemon's bus; one connection a request.
#[derive(Debug, Clone)]
pub struct GatewayBus {
    way: Way,
}

impl GatewayBus {
    /// The bus behind that socket.
    pub fn new(socket: PathBuf) -> Self {
        Self::over(Way::Socket(socket))
    }
    /// The bus there.
    pub fn over(way: Way) -> Self {
        Self { way }
    }
    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>, BusError> {
        self.way.connect().await.map_err(|e| {
            BusError::new(
                Kind::Unavailable,
                format!("the daemon at {} can't be reached: {e}; nothing was sent", self.way),
            )
            .hint("windlass serve")
            .caused_by(e)
        })
    }
    fn broken(&self, why: &str) -> BusError {
        BusError::new(
            Kind::Unavailable,
            format!(
                "the connection to the daemon at {} broke: {why}; the work may have been done",
                self.way
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
            let request = self
                .way
                .build(Method::POST, &format!("{REQUEST_PATH}{subject}"), &headers, payload)
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
        let request = self
            .way
            .get(&format!("{EVENTS_PATH}?filter={pattern}"))
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
