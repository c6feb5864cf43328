//! A proxy on loopback that does what networks and servers do at their worst.
//!
//! - [`TcpProxy`]: bytes as they come, in both directions: delayed, throttled, swallowed, cut after so many, or all cut off
//! - [`HttpProxy`]: whole requests: each is looked at, counted and met with a [`Fate`] by a rule of the test
//!
//! Both listen on a free port, pass connections on to one server, and end with their handle. Threads and blocking sockets: a test
//! tool has no need of more.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

mod http;
mod message;
mod tcp;

pub use http::{Fate, HttpProxy, Seen};
pub use tcp::{TcpFaults, TcpProxy};

/// How often a thread looks whether it shall end.
const TICK: Duration = Duration::from_millis(20);

#[expect(clippy::disallowed_methods, reason = "a proxy of tests delays in real time")]
fn now() -> Instant {
    Instant::now()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all connections of a proxy share: where they go, whether the line is cut, and how to end them.
#[derive(Debug)]
struct Line {
    address: SocketAddr,
    upstream: SocketAddr,
    ended: AtomicBool,
    cut_until: Mutex<Option<Instant>>,
    open: Mutex<BTreeMap<u64, TcpStream>>,
    next: AtomicU64,
}

impl Line {
    /// Listens, and hands each connection and its way to the server to `each`, in a thread of its own.
    fn open(
        upstream: SocketAddr,
        each: impl Fn(&Arc<Line>, TcpStream) + Send + Sync + 'static,
    ) -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let line = Arc::new(Self {
            address: listener.local_addr()?,
            upstream,
            ended: AtomicBool::new(false),
            cut_until: Mutex::new(None),
            open: Mutex::default(),
            next: AtomicU64::new(0),
        });
        let (accepting, each) = (line.clone(), Arc::new(each));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                if accepting.is_cut() {
                    // closed at once: what a router says that has no way there
                    continue;
                }
                let (line, each) = (accepting.clone(), each.clone());
                std::thread::spawn(move || {
                    let number = line.keep(&stream);
                    each(&line, stream);
                    lock(&line.open).remove(&number);
                });
            }
        });
        Ok(line)
    }

    fn keep(&self, stream: &TcpStream) -> u64 {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        if let Ok(stream) = stream.try_clone() {
            lock(&self.open).insert(number, stream);
        }
        // one that came just before a cut and is kept just after it would pass
        if self.is_cut() {
            self.shut_all();
        }
        number
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.upstream)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn is_cut(&self) -> bool {
        lock(&self.cut_until).is_some_and(|until| until > now())
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Ends every connection, and lets none come about for so long.
    fn cut(&self, for_: Duration) {
        *lock(&self.cut_until) = Some(now() + for_);
        self.shut_all();
    }

    fn shut_all(&self) {
        for stream in std::mem::take(&mut *lock(&self.open)).into_values() {
            // fails when the peer was quicker
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        *lock(&self.cut_until) = None;
    }

    fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.cut(Duration::ZERO);
        // wakes the thread that accepts
        let _ = TcpStream::connect(self.address);
    }

    /// Sleeps, unless the proxy ends or the line is cut meanwhile.
    fn pause(&self, wait: Duration) {
        let until = now() + wait;
        while !self.has_ended() && !self.is_cut() {
            match until.checked_duration_since(now()) {
                Some(left) if !left.is_zero() => std::thread::sleep(left.min(TICK)),
                _ => return,
            }
        }
    }
}
