//! Names: what may be part of a key in the state, and of a message for people.

use wire::metal_broker::NAME_BYTES_MAX;

use crate::{Kind, MetalError, Result};

/// True for 1 to [`NAME_BYTES_MAX`] of a-z, A-Z, 0-9, `_`, `-` and inner `.`.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && !text.starts_with('.')
        && !text.ends_with('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// Checks a name.
///
/// # Errors
/// `Invalid`.
pub fn check_name(what: &str, text: &str) -> Result<()> {
    if is_name(text) {
        return Ok(());
    }
    let shown: String = text.chars().take(80).collect();
    Err(MetalError::new(
        Kind::Invalid,
        format!(
            "{what} '{}' is not a name: use 1 to {NAME_BYTES_MAX} of a-z, A-Z, 0-9, '_', '-' and inner '.'; nothing was changed",
            shown.escape_debug()
        ),
    ))
}
