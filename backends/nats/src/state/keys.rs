//! Keys as subjects, and back: `a.b/c` is `$KV.windlass.a=2Eb.c`.
//!
//! A `/` becomes the dot between tokens, so that what lies below a key is a wildcard of NATS. The dot and the `=` of a key are
//! written as `=` and two hexadecimal digits; a subject that begins with another `=` is none of ours.

use state::{Key, Prefix};

/// Where the subjects of keys begin, as those of every NATS key-value bucket.
pub(crate) const ROOT: &str = "$KV.windlass.";

/// The subject of a key.
pub(crate) fn subject(key: &Key) -> String {
    encoded(key.as_str())
}

/// The subjects of everything below.
pub(crate) fn below(prefix: &Prefix) -> String {
    // a prefix ends with the slash that becomes the dot before the wildcard
    format!("{}>", encoded(prefix.as_str()))
}

fn encoded(text: &str) -> String {
    let mut subject = String::with_capacity(ROOT.len() + text.len());
    subject.push_str(ROOT);
    for c in text.chars() {
        match c {
            '/' => subject.push('.'),
            '.' => subject.push_str("=2E"),
            '=' => subject.push_str("=3D"),
            _ => subject.push(c),
        }
    }
    subject
}

/// The key of a subject; `None` for one that isn't ours.
pub(crate) fn key(subject: &str) -> Option<Key> {
    let mut rest = subject.strip_prefix(ROOT)?;
    let mut text = String::with_capacity(rest.len());
    while let Some(c) = rest.chars().next() {
        let (taken, plain) = match c {
            '.' => (1, '/'),
            '=' if rest.starts_with("=2E") => (3, '.'),
            '=' if rest.starts_with("=3D") => (3, '='),
            '=' => return None,
            other => (other.len_utf8(), other),
        };
        text.push(plain);
        rest = rest.get(taken..)?;
    }
    Key::new(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_subjects() {
        for text in ["a", "a/b", "a.b/c", "a=2E/b", "a==/b.c.d", "A-_9/x"] {
            let k = Key::new(text).unwrap();
            assert_eq!(key(&subject(&k)), Some(k));
        }
        assert_eq!(subject(&Key::new("a.b/c").unwrap()), "$KV.windlass.a=2Eb.c");
        assert_eq!(below(&Prefix::below(&Key::new("a/b").unwrap())), "$KV.windlass.a.b.>");
        assert_eq!(below(&Prefix::all()), "$KV.windlass.>");
        for foreign in [
            "$KV.other.a",
            "$KV.windlass.=floor",
            "$KV.windlass.a=41",
            "$KV.windlass.",
        ] {
            assert_eq!(key(foreign), None, "{foreign}");
        }
    }
}
