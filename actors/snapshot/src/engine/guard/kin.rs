//! A disk and what shares its bytes: of a block device also its partitions, of a partition also the whole device. Who uses
//! one of them uses the disk.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{names, read_line};
use crate::engine::block;

/// A disk, and how others may name it.
#[derive(Debug)]
pub(super) struct Kin {
    /// Device and inode of a regular file.
    file: Option<(u64, u64)>,
    /// The block device itself first.
    pub(super) devices: Vec<Relative>,
}

/// A block device that shares bytes with the disk.
#[derive(Debug)]
pub(super) struct Relative {
    /// What it is to the disk, to begin a sentence with.
    pub(super) is: String,
    /// Its directory below `/sys`.
    pub(super) directory: PathBuf,
    /// `7:0`
    pub(super) numbers: String,
    number: u64,
}

impl Kin {
    pub(super) fn of(sys_root: &Path, meta: &Metadata) -> Self {
        if !meta.file_type().is_block_device() {
            return Self {
                file: Some((meta.dev(), meta.ino())),
                devices: Vec::new(),
            };
        }
        // /sys/dev/block has links; a partition's directory stands in its device's
        let own = block::directory(sys_root, meta);
        let own = own.canonicalize().unwrap_or(own);
        let name = |directory: &Path| directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut devices = vec![Relative {
            is: "it".into(),
            numbers: numbers(meta.rdev()),
            number: meta.rdev(),
            directory: own.clone(),
        }];
        if own.join("partition").exists() {
            let whole = own.parent().map(Path::to_owned);
            devices.extend(whole.and_then(|whole| {
                let is = format!("the device {} that it is a partition of", name(&whole));
                Relative::at(is, whole)
            }));
        } else {
            let partitions = names(&own).into_iter().map(|name| own.join(name));
            devices.extend(
                partitions
                    .filter(|directory| directory.join("partition").exists())
                    .filter_map(|directory| Relative::at(format!("its partition {}", name(&directory)), directory)),
            );
        }
        Self { file: None, devices }
    }

    /// What the file or device at `path` is to the disk; `None` when it is another.
    pub(super) fn named_by(&self, path: &Path) -> Option<&str> {
        let found = std::fs::metadata(path).ok()?;
        if found.file_type().is_block_device() {
            let mut devices = self.devices.iter();
            return devices.find(|d| d.number == found.rdev()).map(|d| d.is.as_str());
        }
        let same = found.is_file() && self.file == Some((found.dev(), found.ino()));
        same.then_some("it")
    }

    /// What the process's descriptor `link` is to the disk. Sockets, pipes and the like have no path, and are not asked; to
    /// ask a file's attributes may wait for a server.
    pub(super) fn opened_by(&self, link: &Path) -> Option<&str> {
        let is_path = std::fs::read_link(link).is_ok_and(|to| to.is_absolute());
        is_path.then(|| self.named_by(link)).flatten()
    }

    /// The device with these numbers.
    pub(super) fn numbered(&self, numbers: &str) -> Option<&Relative> {
        self.devices.iter().find(|d| d.numbers == numbers)
    }
}

impl Relative {
    fn at(is: String, directory: PathBuf) -> Option<Self> {
        let numbers = read_line(&directory.join("dev"))?;
        let (major, minor) = numbers.split_once(':')?;
        let number = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
        Some(Self {
            is,
            directory,
            numbers,
            number,
        })
    }
}

fn numbers(number: u64) -> String {
    format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number))
}
