//! The daemon's side: a thin layer between HTTP and the bus.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bus::{Bus, Events};
use bytes::Bytes;
use futures::stream;
use serde::Deserialize;
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use wire::house::ConcernState;
use wire::subject::EventFilter;
use wire::{Answer, Code, ErrorBody, Headers, Subject};

use super::{EVENTS_PATH, HOST_PATH, HostInfo, REQUEST_PATH, http_status, sse};
use crate::house::House;

/// How long a request's body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
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
    request_timeout_ms: u64,
    events_queued_max: usize,
    requests: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

/// Serves until `stopping` becomes true; requests under way are answered first.
///
/// # Errors
/// `unavailable` when the socket fails.
pub async fn serve(
    listener: UnixListener,
    house: House,
    config: &config::Config,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), ErrorBody> {
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    let gateway = Gateway {
        bus: house.bus(),
        house,
        info: HostInfo {
            host: config.host_id.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            wire_version: wire::WIRE_VERSION,
            pid: std::process::id(),
        },
        request_timeout_ms: config.bus.request_timeout_s * 1000,
        events_queued_max: size(config.bus.events_queued_max),
        requests: Arc::new(Semaphore::new(size(config.gateway.requests_in_flight_max))),
        followers: Arc::new(Semaphore::new(size(config.gateway.followers_max))),
        stopping: stopping.clone(),
    };
    let router = Router::new()
        .route(&format!("{REQUEST_PATH}{{subject}}"), post(request))
        .route(EVENTS_PATH, get(events))
        .route(
            HOST_PATH,
            get(|State(g): State<Arc<Gateway>>| async move { axum::Json(g.info.clone()) }),
        )
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(|| async { failure(&ErrorBody::new(Code::NotFound, "no such path").hint(PATHS)) })
        .method_not_allowed_fallback(|| async {
            failure(&ErrorBody::new(Code::Invalid, "this path takes another method").hint(PATHS))
        })
        .with_state(Arc::new(gateway));
    let stopped = async move {
        let _sender_gone = stopping.wait_for(|stop| *stop).await;
    };
    axum::serve(listener, router)
        .with_graceful_shutdown(stopped)
        .await
        .map_err(|e| ErrorBody::new(Code::Unavailable, format!("the gateway's socket failed: {e}")))
}

const PATHS: &str = "POST /v1/request/SUBJECT, GET /v1/events, /v1/host, /healthz or /readyz";

async fn request(
    State(gateway): State<Arc<Gateway>>,
    Path(subject): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    match forward(&gateway, &subject, &headers, request.into_body()).await {
        Ok(answer) => answered(answer),
        Err(error) => failure(&error),
    }
}

async fn forward(gateway: &Gateway, subject: &str, headers: &HeaderMap, body: Body) -> Result<Bytes, ErrorBody> {
    let _slot = gateway.requests.try_acquire().map_err(|_| busy("requests under way"))?;
    let subject = Subject::parse(subject).map_err(|e| ErrorBody::new(Code::Invalid, e.to_string()))?;
    let pairs = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let mut headers = Headers::from_pairs(pairs)?;
    headers.timeout_ms.get_or_insert(gateway.request_timeout_ms);
    let reading = axum::body::to_bytes(body, bus::PAYLOAD_BYTES_MAX);
    let body = tokio::time::timeout(BODY_TIMEOUT, reading)
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
    Ok(gateway.bus.request(&subject, headers, body).await?)
}

fn busy(what: &str) -> ErrorBody {
    ErrorBody::new(Code::Busy, format!("as many {what} as may be; nothing was carried out"))
        .retry_after_ms(RETRY_AFTER_MS)
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

fn failure(error: &ErrorBody) -> Response {
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
struct EventsQuery {
    filter: Option<String>,
}

async fn events(State(gateway): State<Arc<Gateway>>, Query(query): Query<EventsQuery>) -> Response {
    match subscribe(&gateway, query.filter.as_deref()).await {
        Ok((events, permit)) => stream_of(events, permit, gateway.stopping.clone()),
        Err(error) => failure(&error),
    }
}

async fn subscribe(gateway: &Gateway, filter: Option<&str>) -> Result<(Events, OwnedSemaphorePermit), ErrorBody> {
    let permit = gateway
        .followers
        .clone()
        .try_acquire_owned()
        .map_err(|_| busy("followers of events"))?;
    let filter = match filter {
        None => EventFilter::All,
        Some(text) => EventFilter::parse(text).map_err(|e| ErrorBody::new(Code::Invalid, e.to_string()))?,
    };
    Ok((gateway.bus.subscribe(filter, gateway.events_queued_max).await?, permit))
}

fn stream_of(events: Events, permit: OwnedSemaphorePermit, stopping: watch::Receiver<bool>) -> Response {
    let pieces = stream::unfold(
        (events, permit, stopping),
        |(mut events, permit, mut stopping)| async move {
            let text = tokio::select! {
                received = events.next() => sse::encode(&received?),
                () = tokio::time::sleep(STILL_HERE_EVERY) => ": still here\n\n".to_owned(),
                _ = stopping.wait_for(|stop| *stop) => return None,
            };
            Some((Ok::<_, Infallible>(Bytes::from(text)), (events, permit, stopping)))
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
