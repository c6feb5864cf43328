//! Whole requests: looked at, counted, and met with a fate.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::message::Head;
use super::{Line, lock};

/// Bodies of PUTs that are kept for [`Fate::AnotherBody`], in bytes.
const KEPT_BYTES_MAX: usize = 128 << 20;

/// What a request meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The server, and nothing else.
    Pass,
    /// The server, after so long.
    Delay(Duration),
    /// Silence: the request is read, and nothing comes back until the client gives up.
    Stall,
    /// The head of the server's answer and half of its body, then silence.
    StallInBody,
    /// This status with an error of S3's (or no body, where the code is empty), without the server.
    Answer(u16, &'static str),
    /// The server does it, and its answer is thrown away: the client hears this status.
    DoneButAnswer(u16, &'static str),
    /// The server does it, and the connection is closed without an answer.
    DoneButClosed,
    /// Half of the server's body, and the connection is closed.
    CloseInBody,
    /// Half of the server's body with a length that fits: nothing shows but the size.
    Truncate,
    /// One bit of the server's body is turned.
    TurnBit,
    /// The body of another object that was put before, of the length that was asked for.
    AnotherBody,
}

/// A request that came by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `GET`, `PUT`, …
    pub method: String,
    /// Without the query.
    pub path: String,
    /// What stands behind `?`.
    pub query: String,
    /// Its headers, names in small letters.
    pub headers: Vec<(String, String)>,
    /// Bytes of its body.
    pub body_bytes: u64,
    /// How many came before.
    pub number: u64,
    /// The status that the client heard; 0 when it heard none.
    pub status: u16,
}

impl Seen {
    /// True when it names an object whose key has this beginning, in whatever bucket and prefix.
    pub fn is_of(&self, segment: &str) -> bool {
        self.path.contains(&format!("/{segment}"))
    }
}

type Rule = Arc<dyn Fn(&Seen) -> Fate + Send + Sync>;

/// Passes HTTP/1.1 requests on, one after the other on each connection.
pub struct HttpProxy {
    line: Arc<Line>,
    shared: Arc<Shared>,
}

struct Shared {
    rule: Mutex<Rule>,
    seen: Mutex<Vec<Seen>>,
    bodies: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpProxy")
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

impl HttpProxy {
    /// A proxy to `upstream` on a free port, without faults.
    ///
    /// # Errors
    /// I/O errors of listening.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            rule: Mutex::new(Arc::new(|_| Fate::Pass)),
            seen: Mutex::default(),
            bodies: Mutex::default(),
        });
        let own = shared.clone();
        let line = Line::open(upstream, move |line, client| {
            // what ends a connection is what the test did, or the peer
            let _ = serve(line, &client, &own);
            let _ = client.shutdown(Shutdown::Both);
        })?;
        Ok(Self { line, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.line.address
    }

    /// From now on each request meets what `rule` says.
    pub fn rule(&self, rule: impl Fn(&Seen) -> Fate + Send + Sync + 'static) {
        *lock(&self.shared.rule) = Arc::new(rule);
    }

    /// No more faults.
    pub fn behave(&self) {
        self.rule(|_| Fate::Pass);
    }

    /// All requests so far that were answered or given up.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// Forgets what it saw.
    pub fn forget(&self) {
        lock(&self.shared.seen).clear();
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

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.line.end();
    }
}

fn serve(line: &Arc<Line>, client: &TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut from_client = BufReader::new(client);
    let mut server: Option<TcpStream> = None;
    while let Some(mut head) = Head::read(&mut from_client)? {
        let body = head.read_body(&mut from_client)?;
        let number = lock(&shared.seen).len();
        let mut seen = seen(&head, body.len(), number as u64)?;
        let rule = lock(&shared.rule).clone();
        let fate = rule(&seen);
        // its place is taken before the work: the next one counts on
        lock(&shared.seen).push(seen.clone());
        if fate == Fate::Stall {
            wait_for_end(line, client);
            return Ok(());
        }
        let answer = answer(line, shared, &fate, &seen, &head, &body, &mut server);
        let done = answer.and_then(|answer| deliver(line, client, &fate, &seen, answer));
        seen.status = *done.as_ref().unwrap_or(&0);
        if let Some(kept) = lock(&shared.seen).iter_mut().find(|s| s.number == seen.number) {
            *kept = seen;
        }
        done?;
    }
    Ok(())
}

fn seen(head: &Head, body_bytes: usize, number: u64) -> io::Result<Seen> {
    let mut words = head.first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no request line"));
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Seen {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: head.headers.clone(),
        body_bytes: body_bytes as u64,
        number,
        status: 0,
    })
}

/// The answer that the client shall have; `Err` closes the connection.
fn answer(
    line: &Line,
    shared: &Shared,
    fate: &Fate,
    seen: &Seen,
    head: &Head,
    body: &[u8],
    server: &mut Option<TcpStream>,
) -> io::Result<(Head, Vec<u8>)> {
    match fate {
        Fate::Answer(status, code) => return Ok(said(*status, code)),
        Fate::Delay(wait) => line.pause(*wait),
        _ => {}
    }
    let (mut answer, mut answered) = ask(line, seen, head, body, server)?;
    if seen.method == "PUT" && answer.status() == 200 {
        let mut bodies = lock(&shared.bodies);
        if bodies.values().map(Vec::len).sum::<usize>() + body.len() <= KEPT_BYTES_MAX {
            bodies.insert(seen.path.clone(), body.to_vec());
        }
    }
    match fate {
        Fate::DoneButAnswer(status, code) => return Ok(said(*status, code)),
        Fate::DoneButClosed => return Err(io::ErrorKind::ConnectionAborted.into()),
        Fate::Truncate if !answered.is_empty() => {
            answered.truncate(answered.len() / 2);
            answer.set("content-length", answered.len());
        }
        Fate::TurnBit => {
            let middle = answered.len() / 2;
            if let Some(byte) = answered.get_mut(middle) {
                *byte ^= 1;
            }
        }
        Fate::AnotherBody => {
            let bodies = lock(&shared.bodies);
            let other = bodies.iter().find(|(path, b)| **path != seen.path && !b.is_empty());
            if let Some((_, other)) = other {
                answered = other.iter().copied().cycle().take(answered.len()).collect();
            }
        }
        _ => {}
    }
    Ok((answer, answered))
}

/// Asks the server, on a fresh connection when the old one was closed meanwhile.
fn ask(
    line: &Line,
    seen: &Seen,
    head: &Head,
    body: &[u8],
    server: &mut Option<TcpStream>,
) -> io::Result<(Head, Vec<u8>)> {
    loop {
        let fresh = server.is_none();
        let mut stream = match server.take() {
            Some(stream) => stream,
            None => line.connect()?,
        };
        let asked = head
            .write(&mut stream)
            .and_then(|()| stream.write_all(body))
            .and_then(|()| {
                let mut from_server = BufReader::new(&stream);
                let mut answer = Head::read(&mut from_server)?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let bodiless = seen.method == "HEAD" || matches!(answer.status(), 204 | 304);
                let body = if bodiless {
                    Vec::new()
                } else {
                    answer.read_body(&mut from_server)?
                };
                Ok((answer, body))
            });
        match asked {
            Err(_) if !fresh => {}
            Err(e) => return Err(e),
            Ok((answer, body)) => {
                if answer.header("connection") != Some("close") {
                    *server = Some(stream);
                }
                return Ok((answer, body));
            }
        }
    }
}

/// Writes the answer to the client, or the part of it that its fate leaves.
fn deliver(
    line: &Line,
    mut client: &TcpStream,
    fate: &Fate,
    seen: &Seen,
    (head, body): (Head, Vec<u8>),
) -> io::Result<u16> {
    head.write(&mut client)?;
    if seen.method == "HEAD" {
        return Ok(head.status());
    }
    let half = body.len() / 2;
    match fate {
        Fate::CloseInBody if !body.is_empty() => {
            client.write_all(&body[..half])?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        Fate::StallInBody if !body.is_empty() => {
            client.write_all(&body[..half])?;
            wait_for_end(line, client);
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        _ => {
            client.write_all(&body)?;
            Ok(head.status())
        }
    }
}

/// Until the client closes, the line is cut, or the proxy ends.
fn wait_for_end(line: &Line, mut client: &TcpStream) {
    let _ = client.set_read_timeout(Some(super::TICK));
    let mut byte = [0; 1];
    while !line.has_ended() && !line.is_cut() {
        match client.read(&mut byte) {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            _ => return,
        }
    }
}

/// An answer as S3 words its errors; without a code, one without a body.
fn said(status: u16, code: &str) -> (Head, Vec<u8>) {
    if code.is_empty() {
        let mut head = Head {
            first: format!("HTTP/1.1 {status} said"),
            headers: Vec::new(),
        };
        head.set("content-length", 0);
        return (head, Vec::new());
    }
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>a proxy of the tests says so</Message></Error>"
    );
    let mut head = Head {
        first: format!("HTTP/1.1 {status} said"),
        headers: vec![("content-type".into(), "application/xml".into())],
    };
    head.set("content-length", body.len());
    (head, body.into_bytes())
}
