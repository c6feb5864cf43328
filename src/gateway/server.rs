//! The daemon's side: a thin layer between HTTP and the bus.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bus::{Bus, Events, Received};
use bytes::Bytes;
use futures::stream;
use runtime::{Slot, Slots, Traced, next_step};
use serde::Deserialize;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use wire::audit::AuditAction;
use wire::house::ConcernState;
use wire::subject::EventFilter;
use wire::trace::TraceContext;
use wire::{Answer, Code, ErrorBody, Headers, Role, Subject, Topic};

use super::blob::{self, Blob, BlobName};
use super::connection::{self, Limits};
use super::guard::{self, Guard, Tokens, may};
use super::metrics::{self, Figures};
use super::{BLOB_PATH, EVENTS_PATH, HOST_PATH, HostInfo, REQUEST_PATH, http_status, sse};
use crate::audit::Caller;
use crate::house::House;

/// A comment is sent to quiet followers this often, so that a broken connection shows.
const STILL_HERE_EVERY: Duration = Duration::from_secs(15);
/// What a caller is told to wait when as many requests are under way as may be, in milliseconds.
const RETRY_AFTER_MS: u64 = 100;

/// What the handlers share.
#[derive(Debug)]
struct Gateway {
    house: House,
    bus: Arc<dyn Bus>,
    info: HostInfo,
    body_timeout: Duration,
    requests: Slots,
    followers: Slots,
    blobs: Slots,
    blob_bytes: Arc<AtomicU64>,
    stopping: watch::Receiver<bool>,
}

impl Gateway {
    /// The configuration of the day: a reload changes limits and time-outs.
    fn config(&self) -> Arc<config::Config> {
        self.house.config()
    }
}

fn room(slots: &Slots, max: u64, what: &str) -> Result<Slot, ErrorBody> {
    slots.take(size(max)).ok_or_else(|| busy(what))
}

fn size(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Where callers come in.
#[derive(Debug)]
pub struct Doors {
    socket: UnixListener,
    tcp: Option<(TcpListener, Guard)>,
}

impl From<UnixListener> for Doors {
    fn from(socket: UnixListener) -> Self {
        Self { socket, tcp: None }
    }
}

impl Doors {
    /// The socket, and the address of `gateway.listen` when there is one.
    ///
    /// # Errors
    /// What is wrong with the token file; `conflict` when the address is taken, `denied`, `unavailable`.
    pub async fn open(socket: UnixListener, config: &config::Gateway) -> Result<Self, ErrorBody> {
        if config.listen.is_empty() {
            return Ok(socket.into());
        }
        let tokens = Tokens::open(config)?;
        let failed = |e: std::io::Error| {
            let code = match e.kind() {
                std::io::ErrorKind::AddrInUse => Code::Conflict,
                std::io::ErrorKind::PermissionDenied => Code::Denied,
                _ => Code::Unavailable,
            };
            ErrorBody::new(code, format!("can't listen on {}: {e}", config.listen)).hint("change gateway.listen")
        };
        let listener = TcpListener::bind(&config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "the gateway listens beyond this machine, without TLS: put a proxy that has it in front");
        }
        tracing::info!(%address, "the gateway listens, for callers with a token");
        let guard = Guard::new(tokens, address, &config.public_name);
        Ok(Self {
            socket,
            tcp: Some((listener, guard)),
        })
    }
    /// The address of the TCP door.
    #[cfg(test)]
    pub(super) fn address(&self) -> Option<std::net::SocketAddr> {
        self.tcp.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }
}

/// Serves until `stopping` becomes true; requests under way are answered first.
///
/// # Errors
/// None now; the type leaves room for a socket that fails for good.
pub async fn serve(
    doors: impl Into<Doors>,
    house: House,
    config: &config::Config,
    stopping: watch::Receiver<bool>,
) -> Result<(), ErrorBody> {
    let doors = doors.into();
    let limits = Limits {
        connections_max: size(config.gateway.connections_max),
        idle: Duration::from_secs(config.gateway.idle_timeout_s),
    };
    let audit = house.audit().clone();
    let gateway = Gateway {
        bus: house.bus(),
        info: HostInfo {
            member_key: house.member_key(),
            host: config.host_id.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            wire_version: wire::WIRE_VERSION,
            pid: std::process::id(),
        },
        house,
        body_timeout: limits.idle,
        requests: Slots::default(),
        followers: Slots::default(),
        blobs: Slots::default(),
        blob_bytes: Arc::default(),
        stopping: stopping.clone(),
    };
    let router = router(gateway);
    let tcp = doors.tcp.map(|(listener, guard)| {
        let state = (Arc::new(guard), audit.clone());
        let guarded = router.clone().layer(from_fn_with_state(state, guard::pass));
        connection::serve(listener, guarded, limits, stopping.clone())
    });
    let socket = connection::serve(doors.socket, router, limits, stopping);
    match tcp {
        Some(tcp) => {
            tokio::join!(socket, tcp);
        }
        None => socket.await,
    }
    Ok(())
}

fn router(gateway: Gateway) -> Router {
    Router::new()
        .route(&format!("{REQUEST_PATH}{{subject}}"), post(request))
        .route(EVENTS_PATH, get(events))
        .route(&format!("{BLOB_PATH}{{id}}"), get(blob))
        .route(
            HOST_PATH,
            get(|State(g): State<Arc<Gateway>>| async move { axum::Json(g.info.clone()) }),
        )
        .route("/metrics", get(figures))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(|| async { failure(&ErrorBody::new(Code::NotFound, "no such path").hint(PATHS)) })
        .method_not_allowed_fallback(|| async {
            failure(&ErrorBody::new(Code::Invalid, "this path takes another method").hint(PATHS))
        })
        .with_state(Arc::new(gateway))
}

const PATHS: &str = "POST /v1/request/SUBJECT, GET /v1/events, /v1/blob/ID, /v1/host, /metrics, /healthz or /readyz";

async fn request(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    Path(subject): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    match forward(&gateway, &caller, &subject, &headers, request.into_body()).await {
        Ok(answer) => answered(answer),
        Err(error) => failure(&error),
    }
}

/// What the caller's role lets them do is passed on; both ends are noted.
async fn forward(
    gateway: &Gateway,
    caller: &Caller,
    subject: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Bytes, ErrorBody> {
    let subject = Subject::parse(subject).map_err(|e| ErrorBody::new(Code::Invalid, e.to_string()))?;
    let audit = gateway.house.audit();
    let what = format!("{}.{}", subject.concern(), subject.verb());
    if let Err(error) = may(caller, wire::catalog::role_of(&subject), &what) {
        audit.note_request(caller, &subject, b"", None, Err(&error));
        return Err(error);
    }
    let in_flight_max = gateway.config().gateway.requests_in_flight_max;
    let _slot = room(&gateway.requests, in_flight_max, "requests under way")?;
    let (body, headers) = taken(gateway, headers, body).await?;
    let trace = next_step(headers.traceparent.as_deref(), &*gateway.house.clock());
    let answer = passed_on(gateway, &subject, headers, body.clone(), trace).await;
    let refused = match &answer {
        Ok(answer) => error_in(answer),
        Err(error) => Some(error.clone()),
    };
    audit.note_request(
        caller,
        &subject,
        &body,
        Some(trace),
        refused.as_ref().map_or(Ok(()), Err),
    );
    answer
}

/// The request's headers and body, within their limits.
async fn taken(gateway: &Gateway, headers: &HeaderMap, body: Body) -> Result<(Bytes, Headers), ErrorBody> {
    let config = gateway.config();
    let pairs = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let mut headers = Headers::from_pairs(pairs)?;
    headers.timeout_ms.get_or_insert(config.bus.request_timeout_s * 1000);
    let reading = axum::body::to_bytes(body, bus::PAYLOAD_BYTES_MAX);
    let body = tokio::time::timeout(gateway.body_timeout, reading)
        .await
        .map_err(|_| {
            ErrorBody::new(
                Code::Deadline,
                "the request's body did not arrive in time; nothing was carried out",
            )
        })?
        .map_err(|e| {
            ErrorBody::new(
                Code::Invalid,
                format!(
                    "the request's body can't be taken ({e}); at most {} bytes are; nothing was carried out",
                    bus::PAYLOAD_BYTES_MAX
                ),
            )
        })?;
    // an empty body is an empty request: `curl -X POST` of a verb without arguments
    let body = if body.is_empty() {
        Bytes::from_static(b"{}")
    } else {
        body
    };
    Ok((body, headers))
}

async fn passed_on(
    gateway: &Gateway,
    subject: &Subject,
    mut headers: Headers,
    body: Bytes,
    trace: TraceContext,
) -> Result<Bytes, ErrorBody> {
    headers.traceparent = Some(trace.to_string());
    let asked = async {
        let answer = gateway.bus.request(subject, headers, body).await;
        tracing::debug!(%subject, answered = answer.is_ok(), "passed on");
        answer
    };
    Ok(Traced::request(trace, "gateway", subject.verb()).run(asked).await?)
}

fn busy(what: &str) -> ErrorBody {
    ErrorBody::new(Code::Busy, format!("as many {what} as may be; nothing was carried out"))
        .retry_after_ms(RETRY_AFTER_MS)
}

/// The error in an answer; looks into those alone that begin like one.
fn error_in(answer: &Bytes) -> Option<ErrorBody> {
    if !answer.starts_with(b"{\"error\"") {
        return None;
    }
    match serde_json::from_slice::<Answer<serde::de::IgnoredAny>>(answer) {
        Ok(Answer::Error(error)) => Some(error),
        _ => None,
    }
}

/// The answer's bytes as they are, under the status that follows from its code.
fn answered(answer: Bytes) -> Response {
    let status = match serde_json::from_slice::<Answer<serde::de::IgnoredAny>>(&answer) {
        Ok(Answer::Ok(_)) => StatusCode::OK,
        Ok(Answer::Error(error)) => status_of(error.code),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, [(header::CONTENT_TYPE, "application/json")], answer).into_response()
}

pub(super) fn failure(error: &ErrorBody) -> Response {
    let answer = Answer::<()>::Error(error.clone());
    let body = serde_json::to_vec(&answer).unwrap_or_default();
    (
        status_of(error.code),
        [(header::CONTENT_TYPE, "application/json")],
        body,
    )
        .into_response()
}

fn status_of(code: Code) -> StatusCode {
    StatusCode::from_u16(http_status(code)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[derive(Debug, Deserialize)]
struct BlobQuery {
    repo: Option<String>,
}

async fn blob(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(query): Query<BlobQuery>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    // bytes of disks are for whoever may have them put back
    if let Err(error) = may(&caller, Role::Operator, "reading a blob") {
        gateway
            .house
            .audit()
            .note_denied(&caller.who, &caller.from, "gateway.blob", &error.message, 1);
        return failure(&error);
    }
    match open_blob(&gateway, &id, query.repo.as_deref(), &headers, method == Method::HEAD).await {
        Ok(response) => response,
        Err(error) => failure(&error),
    }
}

async fn open_blob(
    gateway: &Gateway,
    id: &str,
    repo: Option<&str>,
    headers: &HeaderMap,
    head: bool,
) -> Result<Response, ErrorBody> {
    let blobs_max = gateway.config().gateway.blobs_in_flight_max;
    let slot = room(&gateway.blobs, blobs_max, "blobs under way")?;
    let name = BlobName::parse(id)?;
    let found = Blob::find(gateway.house.repo(repo).await?, &name).await?;
    let (size_bytes, tag) = (found.size_bytes, format!("\"{}\"", found.tag));
    let header = |name| headers.get(name).and_then(|v: &header::HeaderValue| v.to_str().ok());
    // a range of another content is of no use to who holds the rest of this one
    let same = header(header::IF_RANGE).is_none_or(|given| given == tag);
    let response = Response::builder()
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, &tag)
        .header(header::CACHE_CONTROL, "private, immutable")
        .header(header::CONTENT_TYPE, "application/octet-stream");
    let not_made = |e: axum::http::Error| ErrorBody::new(Code::Internal, format!("the answer can't be made: {e}"));
    let (response, range) = match blob::wanted(header(header::RANGE).filter(|_| same), size_bytes) {
        Ok(None) => (response.status(StatusCode::OK), 0..size_bytes),
        Ok(Some(range)) => {
            let place = format!("bytes {}-{}/{size_bytes}", range.start, range.end - 1);
            let response = response.status(StatusCode::PARTIAL_CONTENT);
            (response.header(header::CONTENT_RANGE, place), range)
        }
        Err(()) => {
            let response = response.status(StatusCode::RANGE_NOT_SATISFIABLE);
            let response = response.header(header::CONTENT_RANGE, format!("bytes */{size_bytes}"));
            return response.body(Body::empty()).map_err(not_made);
        }
    };
    let response = response.header(header::CONTENT_LENGTH, range.end - range.start);
    let body = match head {
        true => Body::empty(),
        false => found.stream(range, gateway.blob_bytes.clone(), slot).into_body(),
    };
    response.body(body).map_err(not_made)
}

async fn figures(State(gateway): State<Arc<Gateway>>) -> Response {
    let kept = gateway.config().runtime.clone();
    let jobs_listed_max = size(kept.jobs_kept_max.saturating_add(kept.jobs_open_max));
    let gathered = async {
        Ok::<_, ErrorBody>(Figures {
            status: gateway.house.status().await?,
            measures: gateway.house.measures(),
            jobs: gateway.house.jobs(jobs_listed_max).await?,
            store: gateway.house.store_counts(),
            requests_in_flight: gateway.requests.taken() as u64,
            followers: gateway.followers.taken() as u64,
            blob_bytes: gateway.blob_bytes.load(Ordering::Relaxed),
        })
    };
    match gathered.await {
        Ok(figures) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::page(&figures)).into_response(),
        Err(error) => failure(&error),
    }
}

#[derive(Debug, Deserialize)]
struct EventsQuery {
    filter: Option<String>,
}

async fn events(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<EventsQuery>,
) -> Response {
    match subscribe(&gateway, query.filter.as_deref()).await {
        Ok((events, slot)) => stream_of(events, slot, caller.role, gateway.stopping.clone()),
        Err(error) => failure(&error),
    }
}

async fn subscribe(gateway: &Gateway, filter: Option<&str>) -> Result<(Events, Slot), ErrorBody> {
    let config = gateway.config();
    let slot = room(&gateway.followers, config.gateway.followers_max, "followers of events")?;
    let filter = match filter {
        None => EventFilter::All,
        Some(text) => EventFilter::parse(text).map_err(|e| ErrorBody::new(Code::Invalid, e.to_string()))?,
    };
    let queued_max = size(config.bus.events_queued_max);
    Ok((gateway.bus.subscribe(filter, queued_max).await?, slot))
}

fn stream_of(events: Events, slot: Slot, role: Role, stopping: watch::Receiver<bool>) -> Response {
    let pieces = stream::unfold(
        (events, slot, stopping),
        move |(mut events, slot, mut stopping)| async move {
            let text = tokio::select! {
                received = events.next() => match received? {
                    // who did what is for admins, as `audit.ls` is
                    Received::Event { subject, .. } if role < Role::Admin && subject.concern() == AuditAction::CONCERN => {
                        ": for admins\n\n".to_owned()
                    }
                    received => sse::encode(&received),
                },
                () = tokio::time::sleep(STILL_HERE_EVERY) => ": still here\n\n".to_owned(),
                _ = stopping.wait_for(|stop| *stop) => return None,
            };
            Some((Ok::<_, Infallible>(Bytes::from(text)), (events, slot, stopping)))
        },
    );
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

/// Ready when nothing has failed for good and nothing is being drained.
async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    let status = match gateway.house.status().await {
        Ok(status) => status,
        Err(error) => return failure(&error),
    };
    let lame = |state| {
        matches!(
            state,
            ConcernState::Failed | ConcernState::Draining | ConcernState::Stopped
        )
    };
    let names: Vec<String> = status
        .concerns
        .into_iter()
        .filter(|c| lame(c.state))
        .map(|c| c.concern)
        .collect();
    match names.is_empty() {
        true => "ready\n".into_response(),
        false => {
            failure(&ErrorBody::new(Code::Unavailable, format!("not up: {}", names.join(", "))).hint("windlass status"))
        }
    }
}
