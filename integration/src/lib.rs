//! Helpers for tests across crates. A tool for development: nothing of it is in the binary.
//!
//! - [`power`]: what a power loss leaves: a recording file system and the crash states of a recording
//! - [`disk`]: real ext4 disk images without root, sparse files, comparison
//! - [`process`]: runs the `windlass` binary, kills it in the middle, finds free ports
//! - [`fault_proxy`]: a TCP and an HTTP proxy that delay, cut, truncate and lie
//! - [`fleet`]: hosts and persons that become members of one fleet
//! - [`s3_server`]: Garage and `rclone serve s3`
//! - [`bare_metal`]: an emulator of Redfish, and OpenStack Ironic
//! - [`azurite`]: Microsoft's emulator of Azure Blob Storage
//! - [`qemu`]: QEMU's tools, VMs that hold a disk, loop devices
//! - [`secrets`]: secrets that tests plant, and the look for them in what a run wrote
//! - [`scratch`]: directories that go away, also on panic
//! - [`tree`]: what a directory holds, to compare before and after
//! - [`limits`]: places that are full, or may not be written, also for root
//! - [`nats`]: real NATS servers, alone or as a cluster of three, on loopback or in namespaces
//! - [`netns`]: network namespaces with own addresses, whose cables can be pulled
//!
//! A tool that is missing is an error that names its package, never a skipped test. Needed: `/dev/fuse` and root for
//! [`power`] (without root also the package `fuse3`), the package `e2fsprogs` for [`disk`], `qemu-utils` and `qemu-system-x86` for [`qemu`], root for [`limits`] and [`netns`] (which wants `iproute2` too), and what
//! `scripts/deps.sh test` installs for [`nats`].

pub mod azurite;
pub mod bare_metal;
pub mod disk;
pub mod fault_proxy;
pub mod fleet;
pub mod limits;
pub mod nats;
pub mod netns;
pub mod power;
pub mod process;
pub mod qemu;
mod random;
pub mod s3_server;
pub mod scratch;
pub mod secrets;
pub mod tree;

pub use random::Random;
