//! The snapshot concern: disks of a VM go into the chunk repository, and come back by their difference.
//!
//! ```text
//! create:  disk -> extents (holes cost nothing) -> leaves of 4 MiB, in parallel -> chunks -> BLAKE3 -> repo -> snapshot
//! restore: present state -> common snapshot (durable) -> diff -> plan (copy | fetch | punch) -> intent journal -> write
//!          -> fsync -> read back past the page cache -> record
//! ```
//!
//! Rooms: [`core`] decides (what to cut, what to copy, in which order), without I/O; [`port`] is what a disk must be able
//! to do; [`engine`] moves the bytes; [`job`] does what a request asks, step by step; [`actor`] answers messages and runs the jobs.

pub mod actor;
pub mod core;
pub mod engine;
pub mod error;
pub mod job;
pub mod port;

pub use error::{Kind, SnapshotError};

/// Result of this concern's calls.
pub type Result<T> = std::result::Result<T, SnapshotError>;
