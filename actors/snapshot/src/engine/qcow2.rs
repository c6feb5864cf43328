//! A qcow2 image as a disk: the image's map over [`RawDisk`]s, which give it files, devices and locks.
//!
//! Reading sees through the backing chain; writing goes to the top image alone. Every image of the chain is under a lock
//! of QEMU's kind, so that nobody writes to it meanwhile.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use qcow2::{Files, Header, Image, Medium};

use crate::core::format::Looks;
use crate::engine::raw::{Access, RawDisk};
use crate::port::{DiskRead, DiskWrite, Fingerprint};
use crate::{Kind, Result, SnapshotError};

/// A qcow2 disk.
#[derive(Debug)]
pub struct Qcow2Disk {
    path: PathBuf,
    image: Image,
    layers: Vec<Arc<RawDisk>>,
}

/// Opens backing images, and keeps what it opened.
struct Below {
    access: Access,
    opened: std::sync::Mutex<Vec<Arc<RawDisk>>>,
}

impl Files for Below {
    fn open(&self, path: &Path) -> std::io::Result<Arc<dyn Medium>> {
        let disk = RawDisk::open(path, self.access).map_err(|e| {
            let kind = match e.kind {
                Kind::NotFound => std::io::ErrorKind::NotFound,
                Kind::Denied => std::io::ErrorKind::PermissionDenied,
                Kind::Conflict => std::io::ErrorKind::ResourceBusy,
                Kind::Invalid => std::io::ErrorKind::InvalidInput,
                _ => std::io::ErrorKind::Other,
            };
            std::io::Error::new(kind, e.message)
        })?;
        let disk = Arc::new(disk);
        self.opened
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(disk.clone());
        Ok(disk)
    }
}

impl Qcow2Disk {
    /// The image in `top`, which is at `path`; its backing images are found from there.
    ///
    /// # Errors
    /// `Corrupt`, `Invalid` for what isn't supported, `Conflict` for a backing image in use, those of opening files.
    pub fn open(top: Arc<RawDisk>, path: &Path) -> Result<Self> {
        let access = match top.access() {
            Access::Look => Access::Look,
            Access::Read | Access::Write => Access::Read,
        };
        let below = Below {
            access,
            opened: std::sync::Mutex::new(vec![top.clone()]),
        };
        let image = qcow2::open(top.clone(), path, &below, top.access() == Access::Write)?;
        Ok(Self {
            path: path.into(),
            image,
            layers: below
                .opened
                .into_inner()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        })
    }
}

/// What a disk's first bytes look like.
///
/// # Errors
/// Of reading it.
pub fn looks(disk: &RawDisk) -> Result<Looks> {
    let mut first = vec![0; disk.size_bytes().min(8) as usize];
    DiskRead::read_at(disk, &mut first, 0)?;
    if !qcow2::is_qcow2(&first) {
        return Ok(Looks::Plain);
    }
    // One that can't be read is named when it is opened; until then it may be anything.
    match Header::read(disk, &disk.path().display().to_string()) {
        Ok(header) if header.backing.is_none() => Ok(Looks::Qcow2Alone),
        Ok(_) => Ok(Looks::Qcow2OnOthers),
        Err(error) if error.kind == qcow2::Kind::Unsupported && error.message.contains("data file") => {
            Ok(Looks::Qcow2OnOthers)
        }
        Err(_) => Ok(Looks::Qcow2Alone),
    }
}

impl From<qcow2::Error> for SnapshotError {
    fn from(error: qcow2::Error) -> Self {
        let kind = match error.kind {
            qcow2::Kind::Corrupt => Kind::Corrupt,
            qcow2::Kind::Unsupported => Kind::Invalid,
            qcow2::Kind::Io(std::io::ErrorKind::ResourceBusy) => Kind::Conflict,
            qcow2::Kind::Io(kind) => SnapshotError::io("", "", &kind.into()).kind,
            qcow2::Kind::Internal => Kind::Internal,
        };
        Self {
            kind,
            message: error.message,
            hint: error.hint,
        }
    }
}

impl Medium for RawDisk {
    fn len_bytes(&self) -> std::io::Result<u64> {
        self.len_now()
    }
    fn identity(&self) -> (u64, u64) {
        self.identity_of_file()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self.file(), buffer, offset)
    }
    fn read_back(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        // past the end: the same error as a read
        if offset.saturating_add(buffer.len() as u64) > self.len_now()? {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        DiskWrite::read_back(self, buffer, offset).map_err(|e| std::io::Error::other(e.message))
    }
    fn write_at(&self, data: &[u8], offset: u64) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self.file(), data, offset)
    }
    fn discard(&self, range: Range<u64>) -> std::io::Result<()> {
        self.give_back_blocks(range)
    }
    fn sync(&self) -> std::io::Result<()> {
        self.file().sync_data()
    }
    fn next_data(&self, offset: u64) -> std::io::Result<Option<Range<u64>>> {
        DiskRead::next_data(self, offset).map_err(|e| std::io::Error::other(e.message))
    }
}

impl DiskRead for Qcow2Disk {
    fn path(&self) -> &Path {
        &self.path
    }
    fn format(&self) -> &'static str {
        "qcow2"
    }
    fn size_bytes(&self) -> u64 {
        self.image.size_bytes()
    }
    fn allocated_bytes(&self) -> Result<u64> {
        self.layers.iter().map(|layer| layer.allocated_bytes()).sum()
    }
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        Ok(self.image.next_data(offset)?)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        Ok(self.image.read_at(buffer, offset)?)
    }
    /// Of the top image, with the times of all layers added up: a change of any of them shows.
    fn fingerprint(&self) -> Result<Fingerprint> {
        let mut all = Fingerprint {
            size_bytes: self.image.size_bytes(),
            modified_ns: 0,
            changed_ns: 0,
            identity: (0, 0),
        };
        for (depth, layer) in self.layers.iter().enumerate() {
            let one = layer.fingerprint()?;
            all.modified_ns = all.modified_ns.wrapping_add(one.modified_ns);
            all.changed_ns = all.changed_ns.wrapping_add(one.changed_ns);
            if depth == 0 {
                all.identity = one.identity;
            }
        }
        Ok(all)
    }
}

impl DiskWrite for Qcow2Disk {
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        Ok(self.image.write_at(data, offset)?)
    }
    fn punch(&self, range: Range<u64>) -> Result<()> {
        Ok(self.image.punch(range)?)
    }
    fn sync(&self) -> Result<()> {
        Ok(self.image.sync()?)
    }
    fn read_back(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        Ok(self.image.read_back(buffer, offset)?)
    }
}
