//! What a server says of itself on its monitoring port: one HTTP/1.0 GET, one JSON document.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::netns::Namespace;

const PATIENCE: Duration = Duration::from_secs(2);

/// The document at `path`, whatever the status; `None` for one that isn't JSON.
pub(crate) fn get(place: Option<&Namespace>, port: u16, path: &str) -> io::Result<Option<Value>> {
    let answer = match place {
        Some(place) => place.http_get(port, path)?,
        None => on_loopback(port, path)?,
    };
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(serde_json::from_str(body).ok())
}

fn on_loopback(port: u16, path: &str) -> io::Result<String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// True when the server takes clients and its JetStream, if it has one, stands.
pub(crate) fn is_healthy(place: Option<&Namespace>, port: u16) -> bool {
    let healthy = get(place, port, "/healthz?js-server-only=true");
    healthy.ok().flatten().is_some_and(|v| v["status"] == "ok")
}
