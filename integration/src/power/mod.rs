//! Power-loss tests: record what a program does to a directory, then build every tree that a power loss may leave.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! use windlass_integration::power::{CrashStates, Policy, Recording};
//! use windlass_integration::scratch::Scratch;
//! let scratch = Scratch::new("power")?;
//! let (initial, mount, bytes) = (scratch.dir("initial")?, scratch.dir("mount")?, scratch.dir("bytes")?);
//! // … put the disk and the repository into `initial` …
//! let recording = Recording::mount(&initial, &mount, &bytes)?;
//! // … run windlass on files below `mount` …
//! let log = recording.finish()?;
//! let states = CrashStates::new(&initial, &log);
//! for at in log.crash_points(500) {
//!     for policy in [Policy::Nothing, Policy::Everything, Policy::ReorderedLast, Policy::Random(at as u64)] {
//!         let after = scratch.fresh("after")?;
//!         states.materialise(at, policy, &after)?;
//!         // … run the same command on `after`, and check …
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! FUSE passes on: all changes of names and data, allocation and holes, fsync and fdatasync of files and directories,
//! `O_SYNC`, `O_DSYNC`, `O_DIRECT`, `SEEK_DATA`, mapped reads. Locks are the kernel's. A shared writable mapping is recorded
//! when the kernel writes its pages back. There are no extended attributes, no `O_TMPFILE`, no `RENAME_EXCHANGE`, no reflinks
//! (all answer that they aren't supported), and permissions are not enforced. `sync(2)` and `syncfs(2)` don't reach FUSE.

mod crash;
mod log;
mod mount;
#[cfg(test)]
mod tests;

pub use crash::{CrashStates, PAGE_BYTES, Policy, Rules};
pub use log::{Ino, Log, Node, Op, ROOT};
pub use mount::{RECORDED_BYTES_MAX, Recording};
