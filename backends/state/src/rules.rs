//! What every state refuses: the same rules and the same words whatever keeps the values.

use crate::{Entry, KEYS_MAX, Key, Kind, LEASE_TTL_MS_MAX, Result, StateError, VALUE_BYTES_MAX};

/// Refuses a value that no state keeps.
///
/// # Errors
/// `Invalid` over [`VALUE_BYTES_MAX`].
pub fn check_value(key: &Key, value: &[u8]) -> Result<()> {
    if value.len() <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let bytes = value.len();
    let why =
        format!("the value of key {key} has {bytes} bytes; at most {VALUE_BYTES_MAX} are kept; nothing was changed");
    Err(StateError::new(Kind::Invalid, why))
}

/// Refuses a time that no lease has.
///
/// # Errors
/// `Invalid` for 0 and over [`LEASE_TTL_MS_MAX`].
pub fn check_lease(key: &Key, ttl_ms: u64) -> Result<()> {
    if (1..=LEASE_TTL_MS_MAX).contains(&ttl_ms) {
        return Ok(());
    }
    let why = format!("a lease of {ttl_ms} ms on key {key} is not given: use 1 to {LEASE_TTL_MS_MAX}");
    Err(StateError::new(Kind::Invalid, why))
}

/// Refuses to take or give back what is no lease, or somebody else's, as it is at `now_ms`.
///
/// # Errors
/// `Conflict`, with who has it and how long.
pub fn check_holder(found: &Entry, holder: &[u8], now_ms: u64) -> Result<()> {
    let key = &found.key;
    let message = match found.expires_at_ms {
        None => format!("key {key} is no lease; it was left unchanged"),
        Some(_) if found.value == holder => return Ok(()),
        Some(end) => format!(
            "the lease on key {key} is held by '{}' for {} ms more; it was left unchanged",
            String::from_utf8_lossy(&found.value),
            end.saturating_sub(now_ms)
        ),
    };
    Err(StateError::new(Kind::Conflict, message))
}

/// A lease that was to be given back, and is over.
pub fn lease_over(key: &Key) -> StateError {
    let why = format!("the lease on key {key} has ended; nothing was released");
    StateError::new(Kind::Conflict, why)
}

/// A key that was to be made, and is there.
pub fn exists(found: &Entry) -> StateError {
    let why = format!(
        "key {} exists already, at revision {}; nothing was changed",
        found.key, found.revision
    );
    StateError::new(Kind::Conflict, why)
}

/// A key that was to have another revision.
pub fn moved(found: &Entry, wanted: u64) -> StateError {
    let why = format!(
        "key {} is at revision {}, not {wanted}: someone changed it; nothing was changed",
        found.key, found.revision
    );
    StateError::new(Kind::Conflict, why)
}

/// A key that was to be there.
pub fn missing(key: &Key) -> StateError {
    StateError::new(Kind::NotFound, format!("key {key} doesn't exist; nothing was changed"))
}

/// No room for one more key.
pub fn full(key: &Key) -> StateError {
    let why = format!("the state holds {KEYS_MAX} keys, its most; key {key} was not written");
    StateError::new(Kind::Full, why)
}
