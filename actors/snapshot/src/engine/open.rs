//! Opens disks in the format that they have.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Result;
use crate::core::format::{Format, Looks, decide};
use crate::engine::qcow2::{Qcow2Disk, looks};
use crate::engine::raw::{Access, RawDisk};
use crate::port::{DiskRead, DiskWrite};

/// A disk's file or device, open and locked, whose format isn't decided yet.
#[derive(Debug)]
pub struct Opened {
    path: PathBuf,
    /// What is read: the file, or a clone of it.
    file: Arc<RawDisk>,
}

impl Opened {
    /// Opens what is at `path`.
    ///
    /// # Errors
    /// Those of [`RawDisk::open`].
    pub fn new(path: &Path, access: Access) -> Result<Self> {
        let file = Arc::new(RawDisk::open(path, access)?);
        let path = path.into();
        Ok(Self { path, file })
    }

    /// For a disk that may be written meanwhile: a clone of this moment where the filesystem can make one (XFS, btrfs),
    /// else the disk itself, whose changes then show as ever.
    ///
    /// # Errors
    /// Those of [`RawDisk::open`].
    pub fn of_this_moment(path: &Path) -> Result<Self> {
        let mut opened = Self::new(path, Access::Look)?;
        if let Some(clone) = opened.file.clone_of_this_moment()? {
            opened.file = Arc::new(clone);
        }
        Ok(opened)
    }

    /// The file under its locks.
    pub fn file(&self) -> &RawDisk {
        &self.file
    }

    /// What its first bytes look like.
    ///
    /// # Errors
    /// Of reading them.
    pub fn looks(&self) -> Result<Looks> {
        looks(&self.file)
    }

    /// The disk for reading; see [`decide`].
    ///
    /// # Errors
    /// `Invalid` when the format can't be told; those of the format.
    pub fn read(self, asked: Option<Format>, recorded: Option<Format>) -> Result<Arc<dyn DiskRead>> {
        Ok(match self.format(asked, recorded)? {
            Format::Raw => self.file,
            Format::Qcow2 => Arc::new(Qcow2Disk::open(self.file, &self.path)?),
        })
    }

    /// The disk for reading and writing; it was opened with [`Access::Write`].
    ///
    /// # Errors
    /// As [`Opened::read`].
    pub fn write(self, asked: Option<Format>, recorded: Option<Format>) -> Result<Arc<dyn DiskWrite>> {
        Ok(match self.format(asked, recorded)? {
            Format::Raw => self.file,
            Format::Qcow2 => Arc::new(Qcow2Disk::open(self.file, &self.path)?),
        })
    }

    fn format(&self, asked: Option<Format>, recorded: Option<Format>) -> Result<Format> {
        decide(&self.path.display().to_string(), asked, recorded, looks(&self.file)?)
    }
}
