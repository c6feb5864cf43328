//! S3, and what speaks like it, as a [`Store`]. The only user of the AWS SDK.
//!
//! [`open`] takes `s3://bucket/prefix?endpoint=…&region=…` and [`Settings`]; keys of the URL win over the settings.
//!
//! How data flows:
//!
//! ```text
//! Bucket (what a call of the port is, as requests)      bucket.rs, list.rs, multipart.rs
//!   -> Patience (tries again: full jitter, a budget)    patience.rs
//!     -> the SDK's client (signs, checks, parses)       client.rs; its own retries are off
//!       -> Line (paces bodies, notices those that stall) line.rs
//!         -> hyper
//! errors: fault.rs turns the SDK's into `store::StoreError`: object, server, what it answered, the next step
//! ```
//!
//! What holds:
//! - nothing rests on conditional writes, nor on checksums that a server may not know: they are a second net;
//! - a body from which no byte came, or into which none went, for `stall_timeout_s` is given up and asked for anew;
//! - a call is tried again while trying helps and `retry_for_s` lasts, but never more often than the budget admits; a server
//!   that has not answered once since this store was opened is given up sooner, for then it's probably the address;
//! - `SlowDown` quiets every request of the store, not only the one that heard it;
//! - no key, token or signature is in a URL, an error, a log line or `Debug` that comes out of here: none is ever in our
//!   hands, the SDK fetches and keeps them.
//!
//! Limits: objects of 5 GiB as one PUT or 10,000 parts; 1,000 keys in one DELETE; a page of a listing has at most 1,000.

use std::sync::Arc;

use store::{Result, Store};

mod address;
mod bucket;
mod client;
mod fault;
mod line;
mod list;
mod multipart;
mod pace;
mod patience;
mod settings;
mod tried;

#[cfg(test)]
mod tests;

pub use settings::{Checksums, KEYS, Settings, Style, TimeShift};

/// True for URLs that [`open`] takes.
pub fn is_s3(url: &str) -> bool {
    url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("s3://"))
}

/// Opens the store at `url`, with `settings` where the URL says nothing. Nothing is written and the server isn't asked yet;
/// files that are named are read.
///
/// # Errors
/// `Kind::Invalid` when the URL or a setting has a wrong form, `Kind::Denied` when a file that is named can't be read.
pub async fn open(url: &str, settings: &Settings) -> Result<Arc<dyn Store>> {
    let address = address::parse(url, settings)?;
    Ok(Arc::new(bucket::Bucket::open(address).await?))
}
