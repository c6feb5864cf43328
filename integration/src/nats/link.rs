//! A TCP connection with a gap in it: what goes through it can be held back in silence, as when a cable is pulled.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How often a held connection looks whether it may go on.
const LOOK: Duration = Duration::from_millis(10);
const PIECE_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
struct Switch {
    cut: AtomicBool,
    over: AtomicBool,
}

/// A port of loopback that leads to another one. Its threads end when it is dropped.
#[derive(Debug)]
pub struct Link {
    port: u16,
    switch: Arc<Switch>,
}

impl Link {
    /// Leads to `target` on loopback.
    ///
    /// # Errors
    /// I/O errors of listening.
    pub fn to(target: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let switch = Arc::<Switch>::default();
        let shared = switch.clone();
        thread::spawn(move || {
            while let Ok((from, _)) = listener.accept() {
                if shared.over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                thread::spawn(move || {
                    wait_whole(&shared);
                    // who can't be reached is a closed connection
                    if let Ok(to) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) {
                        join(&from, &to, &shared);
                    }
                });
            }
        });
        Ok(Self { port, switch })
    }

    /// Where it begins.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing passes, and nobody is told.
    pub fn cut(&self) {
        self.switch.cut.store(true, Ordering::SeqCst);
    }

    /// What was held back passes, and what follows.
    pub fn heal(&self) {
        self.switch.cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.switch.over.store(true, Ordering::SeqCst);
        // wakes the listener, which then sees that it is over
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn wait_whole(switch: &Switch) {
    while switch.cut.load(Ordering::SeqCst) && !switch.over.load(Ordering::SeqCst) {
        thread::sleep(LOOK);
    }
}

fn join(a: &TcpStream, b: &TcpStream, switch: &Switch) {
    thread::scope(|scope| {
        scope.spawn(|| carry(a, b, switch));
        carry(b, a, switch);
    });
}

/// Carries one way until an end goes; then the other way ends, too.
fn carry(mut from: &TcpStream, mut to: &TcpStream, switch: &Switch) {
    let mut piece = vec![0; PIECE_BYTES];
    let _ = from.set_read_timeout(Some(Duration::from_millis(200)));
    while !switch.over.load(Ordering::SeqCst) {
        let count = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        wait_whole(switch);
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    wait_whole(switch);
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_while_it_is_cut() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let link = Link::to(listener.local_addr().unwrap().port()).unwrap();
        let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port())).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let mut byte = [0];
        near.write_all(b"1").unwrap();
        far.read_exact(&mut byte).unwrap();
        link.cut();
        near.write_all(b"2").unwrap();
        far.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        far.read_exact(&mut byte).unwrap_err();
        link.heal();
        far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        far.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"2");
    }
}
