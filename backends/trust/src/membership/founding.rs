//! How a fleet begins, and what a host finds of it in its own place.

use bytes::Bytes;
use state::{Key, LIST_ENTRIES_MAX, Prefix, State};
use wire::HostId;

use super::{OWN, own_key};
use crate::core::book::{Book, Entry, Row, Signed, Statement};
use crate::core::keys::Identity;
use crate::core::stamp::{Domain, Stamp};
use crate::error::{Kind, TrustError};
use crate::grants::{encoded, host as host_member};
use crate::place::{Belonging, Place};

/// Says that there is a fleet: the word of its first member.
pub(super) fn first_key() -> state::Result<Key> {
    Key::new("trust/fleet")
}

/// Every entry below a key.
pub(crate) async fn below(state: &dyn State, root: &str) -> Result<Vec<state::Entry>, TrustError> {
    let prefix = Prefix::below(&Key::new(root)?);
    let mut all: Vec<state::Entry> = Vec::new();
    loop {
        let after = all.last().map(|entry| entry.key.clone());
        let page = state.list(&prefix, after.as_ref(), LIST_ENTRIES_MAX).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// The entries that this host keeps.
pub(super) async fn kept(own: &dyn State) -> Result<Vec<Entry>, TrustError> {
    let found = below(own, OWN).await?;
    let read = |entry: state::Entry| {
        serde_json::from_slice(&entry.value).map_err(|e| {
            let message = format!("what this host knows of its fleet ({}) can't be read: {e}", entry.key);
            TrustError::new(Kind::Invalid, message)
        })
    };
    found.into_iter().map(read).collect()
}

/// The first host of all vouches for itself. Whoever writes the key is it; one that was killed behind that finds its own word there.
pub(super) async fn found(
    place: &Place,
    host: &HostId,
    (shared, own): (&dyn State, &dyn State),
    book: &mut Book,
) -> Result<Identity, TrustError> {
    let identity = blocking(place, |place| place.identity_of(1)).await?;
    let me = host_member(host);
    let row = Row {
        member: me.clone(),
        epoch: 1,
        key: identity.public(),
        revoked: false,
        may_admit: true,
        role: None,
    };
    let statement = Statement {
        row: row.clone(),
        confirms: Vec::new(),
    };
    let text = encoded(&statement)?;
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|e| TrustError::new(Kind::Unavailable, format!("no random bytes: {e}")))?;
    let stamp = Stamp::new(&identity, Domain::Statement, &me, 0, nonce, &[text.as_bytes()]);
    let mut signed = Signed {
        text,
        stamp: stamp.to_string(),
    };
    match shared.create(&first_key()?, Bytes::from(encoded(&signed)?)).await {
        Ok(_) => tracing::info!(%me, "founded the fleet: it may let others in"),
        Err(e) if e.kind == state::Kind::Conflict => {
            let standing = shared.get(&first_key()?).await?;
            let theirs: Option<Signed> = standing.and_then(|entry| serde_json::from_slice(&entry.value).ok());
            match theirs.as_ref().and_then(|theirs| theirs.read().ok()) {
                Some((statement, _)) if statement.row == row => signed = theirs.unwrap_or(signed),
                _ => return Err(not_a_member(host, "the fleet was founded by another")),
            }
        }
        Err(e) => return Err(e.into()),
    }
    let entry = Entry {
        row,
        signed: Some(signed),
        confirms: Vec::new(),
    };
    // remembered before this place says that it belongs: killed in between, it comes by here again
    own.put(&own_key(&me)?, Bytes::from(encoded(&entry)?)).await?;
    let belonging = Belonging {
        me,
        epoch: 1,
        fleet: Vec::new(),
    };
    blocking(place, move |place| place.belong(&belonging)).await?;
    book.pin(entry);
    Ok(identity)
}

pub(super) fn not_a_member(host: &HostId, why: &str) -> TrustError {
    let message = format!("host '{host}' is no member of this fleet: {why}; it was not started");
    TrustError::new(Kind::Denied, message).hint(format!(
        "on a host that may admit: windlass hosts token {host}; then here: windlass hosts join TOKEN"
    ))
}

/// Files are written where that may take its time.
pub(crate) async fn blocking<T: Send + 'static>(
    place: &Place,
    work: impl FnOnce(&Place) -> Result<T, TrustError> + Send + 'static,
) -> Result<T, TrustError> {
    let place = place.clone();
    let done = tokio::task::spawn_blocking(move || work(&place)).await;
    done.unwrap_or_else(|e| {
        Err(TrustError::new(
            Kind::Unavailable,
            format!("a file was not written: {e}"),
        ))
    })
}
