//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>, level 1): which request a message, a job or a log line belongs to.
//!
//! What is absent: `tracestate` (no vendor's data rides along), and any decision by the `sampled` flag: logs are written by
//! their level.

use std::fmt;

/// The value of a `traceparent` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

/// Length of a value of version 00.
const VALUE_CHARS: usize = 55;
/// The flag that is set in traces that begin here.
const SAMPLED: u8 = 1;

impl TraceContext {
    /// A trace that begins here; the bits come from the caller, for wire knows no randomness.
    pub fn begin(trace_bits: u128, span_bits: u128) -> Self {
        Self {
            // all zero means none
            trace_id: trace_bits.max(1),
            span_id: span_of(span_bits),
            flags: SAMPLED,
        }
    }

    /// Reads a header; `None` for what isn't one: a new trace begins then, as the standard wants.
    pub fn parse(text: &str) -> Option<Self> {
        let known = text.get(..VALUE_CHARS)?;
        let mut parts = known.split('-');
        let mut next = |chars: usize| {
            let part = parts.next().filter(|part| part.len() == chars)?;
            let is_hex = part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            is_hex.then_some(part)
        };
        let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        // later versions may add parts behind these four
        let rest = &text[VALUE_CHARS..];
        match version {
            "ff" => return None,
            "00" if !rest.is_empty() => return None,
            _ if !rest.is_empty() && !rest.starts_with('-') => return None,
            _ => {}
        }
        let parsed = Self {
            trace_id: u128::from_str_radix(trace, 16).ok()?,
            span_id: u64::from_str_radix(span, 16).ok()?,
            flags: u8::from_str_radix(flags, 16).ok()? & SAMPLED,
        };
        (parsed.trace_id != 0 && parsed.span_id != 0).then_some(parsed)
    }

    /// The next step of the same trace.
    pub fn child(self, span_bits: u128) -> Self {
        Self {
            span_id: span_of(span_bits),
            ..self
        }
    }

    /// The trace's id: 32 characters of hex, the same at every host.
    pub fn trace_id(&self) -> String {
        text(&hex::<32>(self.trace_id)).to_owned()
    }
}

/// The last digits of a number.
fn hex<const DIGITS: usize>(mut number: u128) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
    digits
}

/// What was made of ASCII alone.
fn text(ascii: &[u8]) -> &str {
    std::str::from_utf8(ascii).unwrap_or_default()
}

fn span_of(bits: u128) -> u64 {
    let folded = (bits >> 64) ^ bits;
    u64::try_from(folded & u128::from(u64::MAX)).unwrap_or(1).max(1)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // every request has one: digits by hand cost a tenth of what formatting costs
        let mut value = *b"00-................................-................-..";
        value[3..35].copy_from_slice(&hex::<32>(self.trace_id));
        value[36..52].copy_from_slice(&hex::<16>(self.span_id.into()));
        value[53..55].copy_from_slice(&hex::<2>(self.flags.into()));
        f.write_str(text(&value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_header_survives_its_text_and_its_children_stay_in_the_trace() {
        let parsed = TraceContext::parse(GOOD).unwrap();
        assert_eq!(parsed.to_string(), GOOD);
        assert_eq!(parsed.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        let child = parsed.child(7 << 64);
        assert_eq!(child.trace_id(), parsed.trace_id());
        assert_ne!(child, parsed);
        assert_eq!(TraceContext::parse(&child.to_string()), Some(child));
        let begun = TraceContext::begin(0, 0);
        assert_eq!(TraceContext::parse(&begun.to_string()), Some(begun));
    }

    #[test]
    fn what_is_no_header_begins_a_new_trace() {
        let later = format!("cc{}-what-comes", &GOOD[2..]);
        assert_eq!(
            TraceContext::parse(&later).map(|t| t.to_string()).as_deref(),
            Some(GOOD)
        );
        for bad in [
            "",
            "t",
            &GOOD[..54],
            &GOOD.to_uppercase(),
            &GOOD.replace('-', "_"),
            &format!("ff{}", &GOOD[2..]),
            &format!("{GOOD}-x"),
            &format!("cc{}x", &GOOD[2..]),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c0-b7ad6b716920333-01",
            "00-é0f7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }
}
