//! What was refused: by the servers to us, by us to others, and by the servers to anybody as their log tells. Counted, so that a
//! flood costs a number and no memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Different refusals that are told apart between two looks; further ones are counted together.
const KINDS_MAX: usize = 256;
/// Bytes of a subject or a name that are kept.
const TEXT_BYTES_MAX: usize = 256;

/// What somebody was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// To publish: the servers.
    Publish,
    /// To subscribe: the servers.
    Subscribe,
    /// To connect: the servers.
    Connect,
    /// To tell an event in another host's name: this process.
    ForgedEvent,
}

impl Refused {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Connect => "connect",
            Self::ForgedEvent => "forged_event",
        }
    }
}

/// Something that was refused, some number of times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Who was refused, in the servers' words; absent: this process.
    pub who: Option<String>,
    /// What.
    pub what: Refused,
    /// The subject; empty where there is none.
    pub subject: String,
    /// How often since the last look.
    pub times: u64,
}

type Key = (Option<String>, Refused, String);

/// The counts since the last look.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<BTreeMap<Key, u64>>);

impl Refusals {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<Key, u64>> {
        // nothing panics under this lock
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, who: Option<&str>, what: Refused, subject: &str) {
        let mut counts = self.counts();
        let key = (who.map(clipped), what, clipped(subject));
        let key = match counts.len() < KINDS_MAX || counts.contains_key(&key) {
            true => key,
            false => (None, what, "(many others)".to_owned()),
        };
        let times = counts.entry(key).or_default();
        *times = times.saturating_add(1);
    }

    /// What came since the last look.
    pub(crate) fn take(&self) -> Vec<Refusal> {
        let counts = std::mem::take(&mut *self.counts());
        let refusal = |((who, what, subject), times)| Refusal {
            who,
            what,
            subject,
            times,
        };
        counts.into_iter().map(refusal).collect()
    }
}

fn clipped(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut kept = String::new();
    for c in plain {
        if kept.len() + c.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        kept.push(c);
    }
    kept
}

/// What a server says to the one whom it refuses, such as `Permissions Violation for Publish to "a.b"`.
pub(crate) fn of_error(text: &str) -> Option<(Refused, &str)> {
    const WORDS: &str = "permissions violation for ";
    let at = text.to_ascii_lowercase().find(WORDS)?;
    let rest = text.get(at + WORDS.len()..)?;
    let what = match rest.get(..3)?.to_ascii_lowercase().as_str() {
        "pub" => Refused::Publish,
        "sub" => Refused::Subscribe,
        _ => return None,
    };
    let quoted = rest.split('"').nth(1)?;
    Some((what, quoted))
}

/// A line of a server's log that tells of somebody refused: who, what, and the subject.
///
/// A client names itself as it likes, and its name stands in the line, quoted; the last words count, for no subject has a space.
pub(crate) fn of_log(line: &str) -> Option<(String, Refused, &str)> {
    const CONNECT: &str = " - authentication error";
    for (words, what) in [
        (" - Publish Violation - ", Refused::Publish),
        (" - Subscription Violation - ", Refused::Subscribe),
    ] {
        if let Some((before, rest)) = line.rsplit_once(words) {
            let (user, rest) = match rest.strip_prefix("Subject ") {
                // `… - "client" - "ACCOUNT/user:h1" - Publish Violation - Subject "a.b"`
                Some(rest) => (last_quoted(before)?, rest),
                // of servers before 2.12: `… - Publish Violation - User "h1", Subject "a.b"`
                None => rest.split_once(", Subject ")?,
            };
            return Some((user.replace('"', ""), what, rest.split('"').nth(1)?));
        }
    }
    let (_, rest) = line.rsplit_once(CONNECT)?;
    let who = rest.strip_prefix(" - ").unwrap_or("nobody").replace('"', "");
    Some((who, Refused::Connect, ""))
}

/// The last text in quotes, which ends the line.
fn last_quoted(text: &str) -> Option<&str> {
    let text = text.strip_suffix('"')?;
    text.rsplit_once('"').map(|(_, quoted)| quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_number() {
        let refusals = Refusals::default();
        for n in 0..100_000_u64 {
            refusals.count(None, Refused::Publish, &format!("s{}", n % 1_000));
        }
        let told = refusals.take();
        assert_eq!(told.len(), KINDS_MAX + 1);
        assert_eq!(told.iter().map(|r| r.times).sum::<u64>(), 100_000);
        assert_eq!(refusals.take(), vec![]);
        refusals.count(Some(&"x".repeat(10_000)), Refused::Publish, "a\nb");
        let told = refusals.take();
        assert_eq!(
            (told[0].who.as_ref().unwrap().len(), &told[0].subject),
            (TEXT_BYTES_MAX, &"a b".to_owned())
        );
    }

    #[test]
    fn the_servers_words_are_understood() {
        assert_eq!(
            of_error("nats: Permissions Violation for Publish to \"a.B\""),
            Some((Refused::Publish, "a.B"))
        );
        assert_eq!(
            of_error("permissions violation for subscription to \"a.>\" using queue \"q\""),
            Some((Refused::Subscribe, "a.>"))
        );
        assert_eq!(of_error("stale connection"), None);
        let log = |text: &str| {
            of_log(&format!("[7] 2026/11/25 21:49:07.1 [ERR] 127.0.0.1:5 - cid:5{text}"))
                .map(|(who, what, subject)| (who, what, subject.to_owned()))
        };
        let told = |who: &str, what, subject: &str| Some((who.to_owned(), what, subject.to_owned()));
        assert_eq!(
            log(" - \"v1:python\" - \"$G/user:h1\" - Publish Violation - Subject \"a.b\""),
            told("$G/user:h1", Refused::Publish, "a.b")
        );
        assert_eq!(
            log(" - \"v1\" - \"$G/nkey:UABC\" - Subscription Violation - Subject \"_INBOX.h2.>\", SID 3"),
            told("$G/nkey:UABC", Refused::Subscribe, "_INBOX.h2.>")
        );
        assert_eq!(
            log(" - Publish Violation - User \"h1\", Subject \"a.b\""),
            told("User h1", Refused::Publish, "a.b"),
            "of an older server"
        );
        // a client can't name itself so that another seems to be refused
        let name = "\\\"$G/user:h2\\\" - Publish Violation - Subject \\\"x\\\"";
        assert_eq!(
            log(&format!(
                " - \"v1:{name}\" - \"$G/user:h1\" - Publish Violation - Subject \"a.b\""
            )),
            told("$G/user:h1", Refused::Publish, "a.b")
        );
        assert_eq!(
            log(" - authentication error - User \"nobody\""),
            told("User nobody", Refused::Connect, "")
        );
        assert_eq!(log(" - authentication error"), told("nobody", Refused::Connect, ""));
        assert_eq!(of_log("[INF] Server is ready"), None);
    }
}
