//! Events as server-sent events (HTML Living Standard, section 9.2): written by the server, read by the client.
//!
//! `event:` carries the subject, `data:` the CloudEvent. How many were lost travels as an event named `lost`.

use bus::Received;
use bytes::Bytes;
use wire::Subject;

/// Name of the event that tells how many events were lost.
const LOST: &str = "lost";
/// Longest line that the reader takes, in bytes: an event and its field name.
const LINE_BYTES_MAX: usize = bus::PAYLOAD_BYTES_MAX + 64;

/// One event as it is written.
pub(super) fn encode(received: &Received) -> String {
    match received {
        Received::Lost(n) => format!("event: {LOST}\ndata: {n}\n\n"),
        Received::Event { subject, payload } => {
            let mut text = format!("event: {subject}\n");
            // JSON has no raw line ends inside its strings, but may have them between its parts
            for line in String::from_utf8_lossy(payload).lines() {
                text.push_str("data: ");
                text.push_str(line);
                text.push('\n');
            }
            text.push('\n');
            text
        }
    }
}

/// Reads what [`encode`] writes, from pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    line: Vec<u8>,
    name: String,
    data: Vec<u8>,
}

/// The stream is not one of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LineTooLong;

impl Decoder {
    /// Takes a piece; returns the events that it completed.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<Vec<Received>, LineTooLong> {
        let mut found = Vec::new();
        for &byte in piece {
            if byte != b'\n' {
                if self.line.len() >= LINE_BYTES_MAX {
                    return Err(LineTooLong);
                }
                self.line.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            self.take_line(line.trim_end_matches('\r'), &mut found)?;
        }
        Ok(found)
    }

    fn take_line(&mut self, line: &str, found: &mut Vec<Received>) -> Result<(), LineTooLong> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            found.extend(event(&name, data));
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.data.len() + value.len() > LINE_BYTES_MAX {
                    return Err(LineTooLong);
                }
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value.as_bytes());
            }
            // comments and fields that are not ours
            _ => {}
        }
        Ok(())
    }
}

fn event(name: &str, data: Vec<u8>) -> Option<Received> {
    if data.is_empty() {
        return None;
    }
    if name == LOST {
        return String::from_utf8_lossy(&data).parse().ok().map(Received::Lost);
    }
    let subject = Subject::parse(name).ok()?;
    Some(Received::Event {
        subject,
        payload: Bytes::from(data),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_in_pieces_of_any_size() {
        let subject = Subject::event("snapshot", "created").unwrap();
        let sent = [
            Received::Event {
                subject: subject.clone(),
                payload: Bytes::from_static(b"{\"a\":\"\xc3\xa9\"}"),
            },
            Received::Lost(7),
            Received::Event {
                subject,
                payload: Bytes::from_static(b"{\n\"b\": 1}"),
            },
        ];
        let text: String = sent.iter().map(encode).collect::<Vec<_>>().join(": still here\n\n");
        for size in [1, 2, 3, 7, 1000] {
            let mut decoder = Decoder::default();
            let got: Vec<Received> = text
                .as_bytes()
                .chunks(size)
                .flat_map(|piece| decoder.push(piece).unwrap())
                .collect();
            assert_eq!(got, sent, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_not_ours_is_passed_over_and_endless_lines_end() {
        let mut decoder = Decoder::default();
        let noise = b"id: 3\nevent: other\ndata: x\n\nretry: 1\n\n:\n\nevent: lost\ndata: x\n\n";
        assert_eq!(decoder.push(noise), Ok(vec![]));
        let endless = vec![b'x'; LINE_BYTES_MAX + 1];
        assert_eq!(decoder.push(&endless), Err(LineTooLong));
        let mut decoder = Decoder::default();
        let line = [b"data: ".to_vec(), vec![b'x'; LINE_BYTES_MAX / 2], b"\n".to_vec()].concat();
        assert_eq!(decoder.push(&line), Ok(vec![]));
        assert_eq!(decoder.push(&line), Ok(vec![]));
        assert_eq!(decoder.push(&line), Err(LineTooLong));
    }
}
