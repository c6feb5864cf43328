//! What the fuzz target calls: any bytes, by every way that bytes come in from the servers.

use std::sync::Arc;

use wire::{Headers, HostId, Sender, Subject};
use zeroize::Zeroizing;

use crate::core::book::{Book, Entry, Row, Signed};
use crate::core::keys::Identity;
use crate::core::stamp::Stamp;
use crate::core::token::{Grant, Join, Token, granted};
use crate::core::window::Bounds;
use crate::fleet::Fleet;

/// When the one member of the fuzzed fleet lives, in Unix milliseconds.
const NOW_MS: u64 = 1_764_100_000_000;

fn identity() -> Identity {
    Identity::from_seed(&Zeroizing::new([1; 32]))
}

fn member() -> Option<Sender> {
    HostId::new("h1").ok().map(Sender::Host)
}

fn book() -> Option<Book> {
    let row = Row {
        member: member()?,
        epoch: 1,
        key: identity().public(),
        revoked: false,
        may_admit: true,
        role: None,
    };
    let entry = Entry {
        row,
        signed: None,
        confirms: Vec::new(),
    };
    Some(Book::of([entry]))
}

/// Good ones, by name, to begin with.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let Some((member, book)) = member().zip(book()) else {
        return Vec::new();
    };
    let fleet = Fleet::new(
        Some((member.clone(), identity())),
        book,
        Bounds::default(),
        Arc::new(|| NOW_MS),
    );
    let mut headers = Headers::default();
    let subject = Subject::cluster("hosts", "drain");
    let signed = subject.is_ok_and(|subject| fleet.sign_request(&subject, &mut headers, b"{}").is_ok());
    let token = Token {
        member: member.clone(),
        key: identity(),
        issuer: identity().public(),
    };
    let grant = Grant {
        token: identity().public(),
        member: member.clone(),
        epoch: 2,
        may_admit: false,
        role: None,
        expires_ms: NOW_MS,
        fleet: Vec::new(),
    };
    let join = Join::new(&token, &identity());
    let wrapped = |text: String| {
        let stamp = fleet.sign(crate::core::stamp::Domain::Statement, &[text.as_bytes()]);
        let stamp = stamp.map(|stamp| stamp.to_string()).unwrap_or_default();
        serde_json::to_vec(&Signed { text, stamp }).unwrap_or_default()
    };
    let mut seeds = vec![
        ("token", token.text().as_bytes().to_vec()),
        ("join", serde_json::to_vec(&join).unwrap_or_default()),
        ("grant", wrapped(serde_json::to_string(&grant).unwrap_or_default())),
    ];
    if signed {
        seeds.push(("request", headers.authority.unwrap_or_default().into_bytes()));
    }
    let other = Row {
        member: member.clone(),
        epoch: 2,
        key: identity().public(),
        revoked: true,
        may_admit: true,
        role: None,
    };
    let statement = crate::core::book::Statement {
        row: other,
        confirms: Vec::new(),
    };
    seeds.push((
        "statement",
        wrapped(serde_json::to_string(&statement).unwrap_or_default()),
    ));
    seeds
}

/// Hears bytes by every way. What is heard at all has one form, and is the word of the one member.
///
/// # Panics
/// When something is taken that nobody can have signed.
pub fn hear_anything(bytes: &[u8]) {
    let Some((member, mut book)) = member().zip(book()) else {
        return;
    };
    let text = String::from_utf8_lossy(bytes);
    if let Ok(stamp) = text.parse::<Stamp>() {
        assert_eq!(stamp.to_string(), text, "one text for each signature");
        let fleet = Fleet::new(None, book.clone(), Bounds::default(), Arc::new(|| NOW_MS));
        let headers = Headers {
            authority: Some(text.to_string()),
            ..Headers::default()
        };
        if let Ok(subject) = Subject::cluster("hosts", "drain")
            && let Ok(heard) = fleet.hear_request(&subject, &headers, b"{}")
        {
            assert_eq!(heard.sender, member);
            assert!(fleet.hear_request(&subject, &headers, b"{}").is_err(), "heard once");
        }
    }
    if let Ok(signed) = serde_json::from_slice::<Signed>(bytes) {
        let before = book.entries().count();
        if book.hear(&signed).is_ok() {
            assert!(signed.stamp.contains("host:h1") || book.entries().count() == before);
        }
        let _refused_or_granted = granted(&signed, &identity().public());
    }
    if let Ok(join) = serde_json::from_slice::<Join>(bytes) {
        let _refused_or_good = join.check();
    }
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(*token.text(), text.trim(), "one text for each token");
    }
}
