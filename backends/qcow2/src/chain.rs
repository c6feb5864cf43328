//! Opens an image with all that it stands on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::header::{Backing, Header, is_qcow2};
use crate::image::{Image, Layer, Raw};
use crate::medium::Medium;
use crate::{Error, Kind, Result};

/// Longest chain, the top image included.
pub const CHAIN_LAYERS_MAX: usize = 64;

/// Opens backing images for reading.
pub trait Files {
    /// What is at `path`.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn Medium>>;
}

/// Opens the image on `medium`, which is at `path`, and its backing images. Those are never written.
///
/// A backing image whose format nobody wrote down is looked at; if it turns out to be qcow2, it may not have a backing
/// image itself: a guest that was given it as a raw disk could have written that header, and have us read any file.
///
/// # Errors
/// `Corrupt` for a damaged image or a chain that is a loop or too long; `Unsupported`; `Io`.
pub fn open(medium: Arc<dyn Medium>, path: &Path, files: &dyn Files, writable: bool) -> Result<Image> {
    let mut seen = vec![medium.identity()];
    open_at(medium, path, files, writable, &mut seen)
}

fn open_at(
    medium: Arc<dyn Medium>,
    path: &Path,
    files: &dyn Files,
    writable: bool,
    seen: &mut Vec<(u64, u64)>,
) -> Result<Image> {
    let name = path.display().to_string();
    let header = Header::read(&*medium, &name)?;
    let below = match &header.backing {
        None => None,
        Some(backing) => Some(open_below(backing, path, files, seen)?),
    };
    Image::new(name, medium, header, below, writable)
}

fn open_below(backing: &Backing, above: &Path, files: &dyn Files, seen: &mut Vec<(u64, u64)>) -> Result<Layer> {
    let shown = above.display();
    let path = resolve(&backing.name, above)?;
    let medium = files.open(&path).map_err(|e| {
        Error::new(
            Kind::Io(e.kind()),
            format!("can't open {}, the backing image of {shown}: {e}", path.display()),
        )
        .hint(format!("qemu-img info --backing-chain {shown}"))
    })?;
    let identity = medium.identity();
    if seen.contains(&identity) {
        let why = format!("its backing chain is a loop: {} comes twice", path.display());
        return Err(Error::corrupt(&shown.to_string(), why));
    }
    if seen.len() >= CHAIN_LAYERS_MAX {
        let why = format!("its backing chain has more than {CHAIN_LAYERS_MAX} images");
        return Err(Error::corrupt(&shown.to_string(), why));
    }
    seen.push(identity);
    if is_raw(backing, &path, &*medium, above)? {
        let size_bytes = medium
            .len_bytes()
            .map_err(|e| Error::io("read the size of", &path.display().to_string(), &e))?;
        return Ok(Layer::Raw(Raw {
            name: path.display().to_string(),
            medium,
            size_bytes,
        }));
    }
    open_at(medium, &path, files, false, seen).map(|image| Layer::Qcow2(Box::new(image)))
}

/// Whether the backing image is raw; else it is qcow2.
fn is_raw(backing: &Backing, path: &Path, medium: &dyn Medium, above: &Path) -> Result<bool> {
    let (path, above) = (path.display(), above.display());
    match backing.format.as_deref() {
        Some("raw" | "file" | "host_device") => return Ok(true),
        Some("qcow2") => return Ok(false),
        Some(other) => {
            return Err(Error::new(
                Kind::Unsupported,
                format!("{path}, the backing image of {above}, has the format {other}: raw and qcow2 can be read"),
            )
            .hint(format!("qemu-img convert -O qcow2 {above} NEW")));
        }
        None => {}
    }
    let fail = |e: io::Error| Error::io("read", &path.to_string(), &e);
    let mut first = vec![0; medium.len_bytes().map_err(fail)?.min(8) as usize];
    medium.read_at(&mut first, 0).map_err(fail)?;
    if !is_qcow2(&first) {
        return Ok(true);
    }
    if Header::read(medium, &path.to_string())?.backing.is_some() {
        return Err(Error::new(
            Kind::Unsupported,
            format!(
                "{above} doesn't say which format its backing image {path} has; it looks like qcow2 with a backing image of its own, which a guest can write into a raw disk"
            ),
        )
        .hint(format!("write down what it is: qemu-img rebase -u -F qcow2 -b {path} {above}")));
    }
    Ok(false)
}

/// The file that a backing image's name means: relative to the image above.
fn resolve(name: &str, above: &Path) -> Result<PathBuf> {
    let plain = name.strip_prefix("file:").unwrap_or(name);
    let protocol = plain.split_once(':').map(|(before, _)| before);
    if protocol.is_some_and(|p| !p.contains('/')) {
        return Err(Error::new(
            Kind::Unsupported,
            format!(
                "the backing image of {}, {name}, is no file of this host",
                above.display()
            ),
        )
        .hint("give it as a file: qemu-img rebase -u -F FORMAT -b FILE IMAGE"));
    }
    Ok(above.parent().unwrap_or_else(|| Path::new("")).join(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_relative_to_the_image_above() {
        let at = |name: &str| resolve(name, Path::new("/srv/vm/top.qcow2")).map(|p| p.display().to_string());
        assert_eq!(at("base.raw").unwrap(), "/srv/vm/base.raw");
        assert_eq!(at("../base.raw").unwrap(), "/srv/vm/../base.raw");
        assert_eq!(at("/images/base").unwrap(), "/images/base");
        assert_eq!(at("file:base.raw").unwrap(), "/srv/vm/base.raw");
        assert_eq!(at("/images/a:b").unwrap(), "/images/a:b");
        for foreign in ["nbd://host/x", "json:{\"driver\":\"nbd\"}", "http://x/y"] {
            assert_eq!(at(foreign).unwrap_err().kind, Kind::Unsupported, "{foreign}");
        }
    }
}
