//! Names of hosts, racks, groups and tenants: they become parts of keys and of VMs' names.

use wire::rack_scheduler::NAME_BYTES_MAX;

use crate::{Kind, RackError, Result};

/// Checks a name: 1 to 64 of letters, digits, `.`, `_` and `-`, beginning and ending with a letter, digit or `_`.
///
/// # Errors
/// `Invalid`.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with(['.', '-'])
        && !name.ends_with(['.', '-'])
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if fine {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
    Err(RackError::new(
        Kind::Invalid,
        format!(
            "'{shown}' can't be the name of a {what}: use 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' and '-', beginning and ending with a letter, digit or '_'; nothing was changed"
        ),
    ))
}
