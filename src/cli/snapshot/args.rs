//! `windlass snapshot ...`, `restore` and `repo ...`: verbs, flags and help texts.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Said of both spellings of restore.
pub const RESTORE_LONG: &str = "\
Put a VM's disks back in place.

The VM is off. Its present state becomes a snapshot first (the common snapshot), so that --undo leads back. Only what \
differs is written. Interrupted? The same command goes on.";

/// `windlass snapshot ...`
#[derive(Debug, Subcommand)]
pub enum SnapshotVerb {
    /// Take a snapshot of all disks of a VM and of its definition
    Create {
        /// The VM's name
        #[arg(long)]
        vm: String,
        /// A disk: its file, or NAME=FILE; once for each disk of the VM
        #[arg(long = "disk", value_name = "DISK", required = true)]
        disks: Vec<String>,
        /// A file that defines the VM, kept as it is
        #[arg(long, value_name = "FILE")]
        definition: Option<PathBuf>,
        /// Format of the disks, or NAME=FORMAT of one: raw (also block devices) or qcow2; as recorded, or as it looks, when absent
        #[arg(long = "format", value_name = "FORMAT")]
        formats: Vec<String>,
        /// Read disks that a VM holds: a clone of the moment on XFS and btrfs, elsewhere only while they don't change
        #[arg(long)]
        crash_consistent: bool,
        #[command(flatten)]
        job: JobFlags,
    },
    /// List snapshots, oldest first
    Ls {
        /// Only this VM's
        #[arg(long)]
        vm: Option<String>,
    },
    /// Show one snapshot
    Show {
        /// Its id, a unique beginning of it, or `latest` (with --vm)
        id: String,
        /// Whose latest
        #[arg(long)]
        vm: Option<String>,
    },
    /// Compare two snapshots
    Diff {
        /// The one: its id or a unique beginning
        a: String,
        /// The other
        b: String,
        /// Only this disk
        #[arg(long, value_name = "NAME")]
        disk: Option<String>,
    },
    /// Check that snapshots can be restored
    Verify {
        /// Which; all of them when absent
        id: Option<String>,
        /// Read manifests and sizes only, not every byte
        #[arg(long)]
        quick: bool,
        #[command(flatten)]
        job: JobFlags,
    },
    /// Put a VM's disks back in place
    #[command(long_about = RESTORE_LONG)]
    Restore(RestoreArgs),
    /// Forget a snapshot
    Forget {
        /// Its id or a unique beginning
        id: String,
        /// Also while it is held
        #[arg(long)]
        force: bool,
    },
    /// Write a snapshot's disk as a new sparse file
    Export {
        /// Its id, a unique beginning of it, or `latest` (with --vm)
        id: String,
        /// The file to make
        #[arg(long, short, value_name = "NEW")]
        output: PathBuf,
        /// Whose latest
        #[arg(long)]
        vm: Option<String>,
        /// Which disk, by name; may be absent when there is one
        #[arg(long, value_name = "NAME")]
        disk: Option<String>,
        /// The file's format: raw or qcow2
        #[arg(long, default_value = "raw", value_name = "FORMAT")]
        format: String,
        #[command(flatten)]
        job: JobFlags,
    },
}

/// Flags of verbs that start a job.
#[derive(Debug, Clone, Default, Args)]
pub struct JobFlags {
    /// The same id twice has one effect: the second call follows the first's job
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

/// `windlass restore`
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The VM's name
    #[arg(long)]
    pub vm: String,
    /// A snapshot's id, a unique beginning of it, or `latest`
    #[arg(long, value_name = "ID", required_unless_present = "undo")]
    pub to: Option<String>,
    /// A disk: its file, or NAME=FILE; all of the snapshot's, where they were, when absent
    #[arg(long = "disk", value_name = "DISK")]
    pub disks: Vec<String>,
    /// Format of the disks given, or NAME=FORMAT of one: raw (also block devices) or qcow2; as recorded when absent. With
    /// --output, the new file's
    #[arg(long = "format", value_name = "FORMAT", conflicts_with = "undo")]
    pub formats: Vec<String>,
    /// Say what would be done, change nothing
    #[arg(long, conflicts_with_all = ["undo", "output"])]
    pub plan: bool,
    /// Write a whole new sparse file instead; --disk then names the disk
    #[arg(long, short, value_name = "NEW", conflicts_with = "undo")]
    pub output: Option<PathBuf>,
    /// Return to what was before the last restore
    #[arg(long, conflicts_with = "to")]
    pub undo: bool,
    /// Flags of the job.
    #[command(flatten)]
    pub job: JobFlags,
}

/// `windlass repo ...`
#[derive(Debug, Subcommand)]
pub enum RepoVerb {
    /// Make a repository
    Init,
    /// The repositories that are configured here
    Ls,
    /// What a repository is
    Show,
    /// What a repository holds
    Stats,
    /// Make the index anew from the packs, when an index object is damaged
    RebuildIndex,
}
