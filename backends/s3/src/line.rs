//! What stands between the SDK and hyper: paces bodies in both directions, and gives up those that stall.
//!
//! A time-out for a whole request can't tell a slow line from a dead one; here a request lives while its bytes move, and
//! dies when none has moved for a while. It sits below signing and checksums, so it sees the bytes that really go.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::pace::Pace;

/// Bodies are handed on in pieces of at most so many bytes, so that progress shows and pacing is even.
const PIECE_BYTES: usize = 64 << 10;

/// The last bytes of a body that we handed over may stand in the system's buffer for a while yet: so many at most (the
/// usual bound of `tcp_wmem`) ...
const BUFFERED_BYTES_MAX: u64 = 4 << 20;
/// ... on a line that is no slower than this.
const SLOWEST_BYTES_PER_S: u64 = 256 << 10;

/// No byte moved for so long.
#[derive(Debug, thiserror::Error)]
#[error("no byte {what} for {} s", .after.as_secs_f32())]
pub(crate) struct Stalled {
    /// `came` or `went`.
    what: &'static str,
    after: Duration,
}

/// An HTTP client around another.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    inner: SharedHttpClient,
    up: Arc<Pace>,
    down: Arc<Pace>,
    stall: Duration,
}

impl Line {
    pub(crate) fn new(inner: SharedHttpClient, up: Pace, down: Pace, stall: Duration) -> Self {
        Self {
            inner,
            up: Arc::new(up),
            down: Arc::new(down),
            stall,
        }
    }
}

impl HttpClient for Line {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector {
            inner: self.inner.http_connector(settings, components),
            line: self.clone(),
        })
    }
    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        HttpClient::validate_base_client_config(&self.inner, components, config)
    }
    fn validate_final_config(&self, components: &RuntimeComponents, config: &ConfigBag) -> Result<(), BoxError> {
        HttpClient::validate_final_config(&self.inner, components, config)
    }
    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.inner.connector_metadata()
    }
}

#[derive(Debug)]
struct Connector {
    inner: SharedHttpConnector,
    line: Line,
}

impl HttpConnector for Connector {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let moved = Arc::new(Moved::now());
        let body = request.take_body();
        let empty = body.content_length() == Some(0);
        *request.body_mut() = if empty {
            body
        } else {
            SdkBody::from_body_1_x(Outgoing {
                inner: body,
                rest: Bytes::new(),
                pace: self.line.up.clone(),
                wait: None,
                moved: moved.clone(),
                handed_bytes: 0,
            })
        };
        let answer = self.inner.call(request);
        let (down, stall) = (self.line.down.clone(), self.line.stall);
        HttpConnectorFuture::new(async move {
            let stalled = Stalled {
                what: "went, and no answer came",
                after: stall,
            };
            let mut answer = tokio::select! {
                answer = answer => answer?,
                () = moved.stalled(stall) => return Err(ConnectorError::timeout(stalled.into())),
            };
            let body = answer.take_body();
            *answer.body_mut() = SdkBody::from_body_1_x(Incoming {
                inner: body,
                pace: down,
                wait: None,
                stall,
                silence: Box::pin(sleep_until(Instant::now() + stall)),
            });
            Ok(answer)
        })
    }
}

/// When a byte of a request moved last; in the future while we hold it back ourselves.
struct Moved(Mutex<Instant>);

impl Moved {
    fn now() -> Self {
        Self(Mutex::new(Instant::now()))
    }
    fn at(&self, at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
    /// Ends when nothing has moved for `stall`.
    async fn stalled(&self, stall: Duration) {
        loop {
            let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + stall;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// The body of a request.
struct Outgoing {
    inner: SdkBody,
    rest: Bytes,
    pace: Arc<Pace>,
    wait: Option<Pin<Box<Sleep>>>,
    moved: Arc<Moved>,
    handed_bytes: u64,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(context));
            self.wait = None;
        }
        let now = Instant::now();
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return Poll::Ready(other),
            }
        }
        let length = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(length);
        let until = self.pace.pass(length, now);
        self.handed_bytes += length as u64;
        let mut moves_until = until.unwrap_or(now);
        if self.is_end_stream() {
            let buffered = self.handed_bytes.min(BUFFERED_BYTES_MAX);
            moves_until += Duration::from_secs_f64(buffered as f64 / SLOWEST_BYTES_PER_S as f64);
        }
        self.moved.at(moves_until);
        self.wait = until.map(|until| Box::pin(sleep_until(until)));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let inner = Body::size_hint(&self.inner);
        let rest = self.rest.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// The body of an answer.
struct Incoming {
    inner: SdkBody,
    pace: Arc<Pace>,
    wait: Option<Pin<Box<Sleep>>>,
    stall: Duration,
    silence: Pin<Box<Sleep>>,
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(context));
            self.wait = None;
            let until = Instant::now() + self.stall;
            self.silence.as_mut().reset(until);
        }
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Pending => {
                ready!(self.silence.as_mut().poll(context));
                let stalled = Stalled {
                    what: "came",
                    after: self.stall,
                };
                Poll::Ready(Some(Err(stalled.into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                let now = Instant::now();
                let until = now + self.stall;
                self.silence.as_mut().reset(until);
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.wait = self.pace.pass(length, now).map(|until| Box::pin(sleep_until(until)));
                Poll::Ready(Some(Ok(frame)))
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.inner)
    }
}
