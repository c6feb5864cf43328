//! Bytes as they come.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Line, lock};

/// What happens to bytes in each direction. The default is nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpFaults {
    /// Each piece waits so long.
    pub delay: Duration,
    /// Bytes a second of each connection and direction; 0: no bound.
    pub bytes_per_s: u64,
    /// Bytes are read and thrown away: the peer hears nothing, and no end.
    pub swallow: bool,
    /// A connection is cut once so many bytes went through it, both directions together; those beyond are lost.
    pub cut_after_bytes: Option<u64>,
}

/// Passes TCP connections on.
#[derive(Debug)]
pub struct TcpProxy {
    line: Arc<Line>,
    faults: Arc<Mutex<TcpFaults>>,
    passed: Arc<AtomicU64>,
}

impl TcpProxy {
    /// A proxy to `upstream` on a free port.
    ///
    /// # Errors
    /// I/O errors of listening.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        let (faults, passed) = (Arc::new(Mutex::new(TcpFaults::default())), Arc::new(AtomicU64::new(0)));
        let (shared, counter) = (faults.clone(), passed.clone());
        let line = Line::open(upstream, move |line, client| {
            // a client whose server isn't there sees its connection closed
            if let Ok(server) = line.connect() {
                both_ways(line, &client, &server, &shared, &counter);
            }
        })?;
        Ok(Self { line, faults, passed })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.line.address
    }

    /// Other faults from now on, for open connections too.
    pub fn set(&self, faults: TcpFaults) {
        *lock(&self.faults) = faults;
    }

    /// Bytes that went through so far, both directions together.
    pub fn passed_bytes(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    /// Ends every connection, and lets none come about for so long.
    pub fn cut(&self, for_: Duration) {
        self.line.cut(for_);
    }

    /// Ends a cut before its time.
    pub fn mend(&self) {
        self.line.mend();
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.line.end();
    }
}

fn both_ways(
    line: &Arc<Line>,
    client: &TcpStream,
    server: &TcpStream,
    faults: &Arc<Mutex<TcpFaults>>,
    passed: &Arc<AtomicU64>,
) {
    let own = Arc::new(AtomicU64::new(0));
    let number = line.keep(server);
    std::thread::scope(|threads| {
        for (from, to) in [(client, server), (server, client)] {
            let (faults, own) = (faults.clone(), own.clone());
            threads.spawn(move || {
                // however it ends, the other side shall hear of it
                let _ = pump(line, from, to, &faults, &own, passed);
                let _ = to.shutdown(Shutdown::Write);
                let _ = from.shutdown(Shutdown::Read);
            });
        }
    });
    lock(&line.open).remove(&number);
}

fn pump(
    line: &Line,
    mut from: &TcpStream,
    mut to: &TcpStream,
    faults: &Mutex<TcpFaults>,
    own: &AtomicU64,
    passed: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 || line.has_ended() {
            return Ok(());
        }
        let now = *lock(faults);
        if now.swallow {
            continue;
        }
        line.pause(now.delay);
        if now.bytes_per_s > 0 {
            line.pause(Duration::from_secs_f64(read as f64 / now.bytes_per_s as f64));
        }
        let before = own.fetch_add(read as u64, Ordering::SeqCst);
        let goes = match now.cut_after_bytes {
            Some(max) => read.min(usize::try_from(max.saturating_sub(before)).unwrap_or(read)),
            None => read,
        };
        to.write_all(&buffer[..goes])?;
        passed.fetch_add(goes as u64, Ordering::SeqCst);
        if goes < read {
            from.shutdown(Shutdown::Both)?;
            return to.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that sends back what it gets.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut reader = stream.try_clone().unwrap();
                    io::copy(&mut reader, &mut stream)
                });
            }
        });
        address
    }

    fn ask(address: SocketAddr, bytes: usize) -> io::Result<usize> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(&vec![7; bytes])?;
        stream.shutdown(Shutdown::Write)?;
        let mut back = Vec::new();
        stream.read_to_end(&mut back)
    }

    #[test]
    fn passes_cuts_swallows_and_mends() {
        let proxy = TcpProxy::start(echo()).unwrap();
        assert_eq!(ask(proxy.address(), 100_000).unwrap(), 100_000);
        assert_eq!(proxy.passed_bytes(), 200_000);

        proxy.set(TcpFaults {
            cut_after_bytes: Some(1000),
            ..TcpFaults::default()
        });
        assert!(ask(proxy.address(), 100_000).unwrap_or(0) < 1000);
        proxy.set(TcpFaults {
            swallow: true,
            ..TcpFaults::default()
        });
        assert!(ask(proxy.address(), 10).unwrap_or(0) == 0);
        proxy.set(TcpFaults::default());
        proxy.cut(Duration::from_secs(60));
        assert!(ask(proxy.address(), 10).unwrap_or(0) == 0);
        proxy.mend();
        assert_eq!(ask(proxy.address(), 10).unwrap(), 10);
    }

    #[test]
    fn delays_and_throttles() {
        let proxy = TcpProxy::start(echo()).unwrap();
        proxy.set(TcpFaults {
            delay: Duration::from_millis(50),
            bytes_per_s: 1 << 20,
            ..TcpFaults::default()
        });
        let began = super::super::now();
        assert_eq!(ask(proxy.address(), 100 << 10).unwrap(), 100 << 10);
        // a lower bound: it can't have gone sooner
        assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    }
}
