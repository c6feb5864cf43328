//! HTTP/1.1 messages, as far as a proxy has to know them (RFC 9112).

use std::io::{self, BufRead, Read, Write};

/// Longest head that is read.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Longest body that is kept in memory.
const BODY_BYTES_MAX: u64 = 256 << 20;

/// The first line and the headers, as they were.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) first: String,
    pub(super) headers: Vec<(String, String)>,
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl Head {
    /// `None` at the end of the connection.
    pub(super) fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            let read = from.take(HEAD_BYTES_MAX as u64).read_line(&mut line)?;
            bytes += read;
            if read == 0 && lines.is_empty() {
                return Ok(None);
            }
            if read == 0 || bytes > HEAD_BYTES_MAX {
                return Err(broken("a head that doesn't end"));
            }
            let line = line.trim_end_matches(['\r', '\n']).to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let mut lines = lines.into_iter();
        let first = lines.next().ok_or_else(|| broken("an empty head"))?;
        let headers = lines
            .map(|line| match line.split_once(':') {
                Some((name, value)) => Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned())),
                None => Err(broken("a header without a colon")),
            })
            .collect::<io::Result<_>>()?;
        Ok(Some(Self { first, headers }))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(super) fn set(&mut self, name: &str, value: impl ToString) {
        self.headers.retain(|(n, _)| n != name);
        self.headers.push((name.to_owned(), value.to_string()));
    }

    pub(super) fn status(&self) -> u16 {
        let word = self.first.split(' ').nth(1);
        word.and_then(|w| w.parse().ok()).unwrap_or(0)
    }

    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        to.write_all(text.as_bytes())
    }

    /// The body that follows, whole; chunks are put together, and the head says the length then.
    pub(super) fn read_body(&mut self, from: &mut impl BufRead) -> io::Result<Vec<u8>> {
        let chunked = self
            .header("transfer-encoding")
            .is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        let mut body = Vec::new();
        if chunked {
            loop {
                let mut line = String::new();
                from.take(1024).read_line(&mut line)?;
                let size = line.trim().split(';').next().unwrap_or_default();
                let size = u64::from_str_radix(size, 16).map_err(|_| broken("a chunk without its size"))?;
                if size == 0 {
                    // trailers are dropped
                    while Head::skip_line(from)? {}
                    break;
                }
                if body.len() as u64 + size > BODY_BYTES_MAX {
                    return Err(broken("a body over the limit"));
                }
                from.take(size).read_to_end(&mut body)?;
                Head::skip_line(from)?;
            }
            self.headers.retain(|(n, _)| n != "transfer-encoding");
            self.set("content-length", body.len());
            return Ok(body);
        }
        let size: u64 = self.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        if size > BODY_BYTES_MAX {
            return Err(broken("a body over the limit"));
        }
        from.take(size).read_to_end(&mut body)?;
        if body.len() as u64 != size {
            return Err(broken("a body that broke off"));
        }
        Ok(body)
    }

    /// True while there was something on the line.
    fn skip_line(from: &mut impl BufRead) -> io::Result<bool> {
        let mut line = String::new();
        from.take(HEAD_BYTES_MAX as u64).read_line(&mut line)?;
        Ok(!line.trim().is_empty())
    }
}
