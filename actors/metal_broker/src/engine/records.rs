//! Keys and records.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use state::{Entry, Key};

use crate::core::ledger::VERSION;
use crate::{Kind, MetalError, Result};

/// What all keys of this concern stand below.
pub(super) const ROOT: &str = "metal_broker";

/// Below [`ROOT`]: what a record is, whose, and of what.
pub(super) fn key(kind: &str, tenant: &str, name: &str) -> Result<Key> {
    Ok(Key::new(format!("{ROOT}/{kind}/{tenant}/{name}"))?)
}

/// A key taken apart: kind, tenant, name.
pub(super) fn parts(key: &Key) -> Option<(&str, &str, &str)> {
    let rest = key.as_str().strip_prefix(ROOT)?.strip_prefix('/')?;
    let (kind, rest) = rest.split_once('/')?;
    let (tenant, name) = rest.split_once('/')?;
    Some((kind, tenant, name))
}

pub(super) fn encoded(value: &impl Serialize) -> Result<Bytes> {
    let json = serde_json::to_vec(value);
    json.map(Bytes::from).map_err(|e| {
        MetalError::new(
            Kind::Internal,
            format!("a record can't be written: {e}; nothing was changed"),
        )
    })
}

/// Reads a record of a version that this windlass knows.
pub(super) fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    let wrong = |e: serde_json::Error| {
        MetalError::new(
            Kind::Corrupt,
            format!("record {} can't be read: {e}; nothing was changed", entry.key),
        )
    };
    let Versioned { version } = serde_json::from_slice(&entry.value).map_err(wrong)?;
    if version > VERSION {
        return Err(MetalError::new(
            Kind::Corrupt,
            format!(
                "record {} has version {version}; this windlass knows {VERSION}; nothing was changed",
                entry.key
            ),
        )
        .hint("use the newer windlass"));
    }
    serde_json::from_slice(&entry.value).map_err(wrong)
}

/// A compare-and-set lost: the key is there already, is another by now, or has gone.
pub(super) fn lost(error: &state::StateError) -> bool {
    matches!(error.kind, state::Kind::Conflict | state::Kind::NotFound)
}
