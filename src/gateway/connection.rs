//! Connections of both kinds of socket: at most so many, none of which may wait for ever.
//!
//! The head of a request has [`Limits::idle`] to arrive, from the moment at which the connection is free for it; so have each
//! piece that is written to the caller. A follower of events on whom nothing is to be written may be quiet as long as it likes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use wire::Role;

use crate::audit::Caller;

/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Wait after a connection could not be taken: out of file descriptors, mostly.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) connections_max: usize,
    pub(super) idle: Duration,
}

/// Where a caller is.
#[derive(Debug, Clone)]
pub(super) struct Peer(pub(super) String);

/// Takes connections.
pub(super) trait Listen: Send {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, Arrival)>> + Send;
}

/// What is known of who connected.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    peer: Peer,
    /// On the socket, where the system says who it is and the file's mode that they may.
    caller: Option<Caller>,
}

impl Listen for UnixListener {
    type Stream = tokio::net::UnixStream;
    async fn accept(&mut self) -> io::Result<(Self::Stream, Arrival)> {
        let stream = UnixListener::accept(self).await?.0;
        let who = stream.peer_cred();
        let from = match who.as_ref().ok().and_then(tokio::net::unix::UCred::pid) {
            Some(pid) => format!("socket, pid {pid}"),
            None => "socket".to_owned(),
        };
        let caller = Caller {
            who: who.map_or_else(|_| "unknown".to_owned(), |who| format!("uid {}", who.uid())),
            role: Role::Admin,
            from: from.clone(),
        };
        let peer = Peer(from);
        Ok((
            stream,
            Arrival {
                peer,
                caller: Some(caller),
            },
        ))
    }
}

impl Listen for TcpListener {
    type Stream = tokio::net::TcpStream;
    async fn accept(&mut self) -> io::Result<(Self::Stream, Arrival)> {
        let (stream, address) = TcpListener::accept(self).await?;
        // answers are small, and callers wait for them
        let _slower_without = stream.set_nodelay(true);
        // without the port, which is another one each time
        let peer = Peer(address.ip().to_string());
        Ok((stream, Arrival { peer, caller: None }))
    }
}

/// Serves until `stopping`; then requests under way are answered, and idle connections end.
pub(super) async fn serve(mut listener: impl Listen, router: Router, limits: Limits, stopping: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    let mut stop = stopping.clone();
    loop {
        while connections.try_join_next().is_some() {}
        let taken = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            taken = taken => taken,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, from)) => {
                let mut router = router.clone();
                if let Some(caller) = from.caller {
                    router = router.layer(Extension(caller));
                }
                let router = router.layer(Extension(from.peer));
                let connection = one(stream, router, limits.idle, stopping.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn one<S>(stream: S, router: Router, idle: Duration, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(
            TokioIo::new(Patient::new(stream, idle)),
            TowerToHyperService::new(router),
        );
    tokio::pin!(connection);
    let stopped = async {
        let _sender_gone = stopping.wait_for(|stop| *stop).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stopped => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// A stream whose other side must take what is written within a time.
struct Patient<S> {
    stream: S,
    idle: Duration,
    /// Runs while something waits to be written.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(stream: S, idle: Duration) -> Self {
        Self {
            stream,
            idle,
            waiting: None,
        }
    }
    fn timed<T>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.waiting = None;
            return poll;
        }
        let idle = self.idle;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.timed(context, poll)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.timed(context, poll)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(context);
        self.timed(context, poll)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(context);
        self.timed(context, poll)
    }
}
