//! What may be said.

use wire::echo::EchoSaid;
use wire::{Code, ErrorBody};

/// Longest text, in bytes.
pub const TEXT_BYTES_MAX: usize = 1 << 10;

/// The text, `times` times.
///
/// # Errors
/// `invalid` for a text over [`TEXT_BYTES_MAX`].
pub fn said(text: &str, times: usize) -> Result<EchoSaid, ErrorBody> {
    if text.len() > TEXT_BYTES_MAX {
        let why = format!("at most {TEXT_BYTES_MAX} bytes are said; nothing was said");
        return Err(ErrorBody::new(Code::Invalid, why));
    }
    let text = vec![text; times].join(" ");
    Ok(EchoSaid { text })
}
