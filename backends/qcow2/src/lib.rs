//! qcow2, the disk format of QEMU: a disk's bytes behind a map of clusters, over a chain of backing images.
//!
//! Source: `docs/interop/qcow2.rst` of QEMU, versions 2 and 3. Pure format: bytes come and go through a [`Medium`]; who
//! opens files, takes locks and looks for users of a disk is the caller.
//!
//! ```text
//! guest offset -> L1 (whole in memory) -> L2 (cached) -> host cluster | compressed | zeros | backing image -> ...
//! ```
//!
//! Writing keeps one order, so that `kill -9` and power loss leave at most leaked clusters, which QEMU accepts and
//! `qemu-img check -r leaks` takes back:
//!
//! 1. data, refcounts and new L2 tables; sync
//! 2. places of new refcount blocks; sync
//! 3. entries of L2 and L1; sync
//! 4. only then are clusters that nothing refers to any more given back, and may be used again
//!
//! What is absent, and refused by name: internal snapshots, encryption, external data files, extended L2 entries, features
//! that we don't know; for writing also images that were not closed cleanly or are marked corrupt. Nothing here resizes a
//! disk or writes to a backing image.

mod bitmaps;
mod chain;
mod compressed;
mod create;
mod entry;
mod error;
mod header;
mod image;
mod medium;
mod read;
mod refcounts;
mod tables;
#[cfg(any(test, feature = "testing"))]
mod testing;
mod write;

pub use chain::{CHAIN_LAYERS_MAX, Files, open};
pub use create::create;
pub use error::{Error, Kind};
pub use header::{Backing, Header, is_qcow2};
pub use image::Image;
pub use medium::Medium;
#[cfg(any(test, feature = "testing"))]
pub use testing::{Memory, NoFiles, use_as_image};

/// Result of this crate's calls.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests;
