//! What a directory holds.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// One name in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A regular file.
    File {
        /// Size in bytes.
        size_bytes: u64,
        /// Hash of its bytes; not a cryptographic one.
        hash: u64,
        /// Permission bits.
        mode: u32,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink(PathBuf),
    /// A socket, a pipe, a device.
    Other,
}

/// A tree by paths relative to its root.
pub type Tree = BTreeMap<PathBuf, Found>;

/// Reads the whole tree below `root`; symbolic links are not followed.
///
/// # Errors
/// I/O errors of reading.
pub fn read(root: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    read_into(root, Path::new(""), &mut tree)?;
    Ok(tree)
}

fn read_into(root: &Path, relative: &Path, tree: &mut Tree) -> io::Result<()> {
    for entry in fs::read_dir(root.join(relative))? {
        let entry = entry?;
        let path = relative.join(entry.file_name());
        let metadata = entry.metadata()?;
        let found = if metadata.is_dir() {
            read_into(root, &path, tree)?;
            Found::Directory
        } else if metadata.is_symlink() {
            Found::Symlink(fs::read_link(entry.path())?)
        } else if metadata.is_file() {
            let mode = metadata.permissions().mode() & 0o7777;
            Found::File {
                size_bytes: metadata.len(),
                hash: hash(&entry.path())?,
                mode,
            }
        } else {
            Found::Other
        };
        tree.insert(path, found);
    }
    Ok(())
}

fn hash(path: &Path) -> io::Result<u64> {
    let mut file = fs::File::open(path)?;
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            n => hasher.write(&buffer[..n]),
        }
    }
}

/// One line for each path that differs.
pub fn differences(before: &Tree, after: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, was) in before {
        match after.get(path) {
            None => lines.push(format!("gone: {}", path.display())),
            Some(is) if is != was => lines.push(format!("changed: {}: {was:?} became {is:?}", path.display())),
            Some(_) => {}
        }
    }
    lines.extend(
        after
            .keys()
            .filter(|p| !before.contains_key(*p))
            .map(|p| format!("new: {}", p.display())),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn differences_are_named() {
        let scratch = Scratch::new("tree").unwrap();
        crate::disk::write_files(scratch.path(), 1, 100_000).unwrap();
        let before = read(scratch.path()).unwrap();
        assert_eq!(
            differences(&before, &read(scratch.path()).unwrap()),
            Vec::<String>::new()
        );
        fs::write(scratch.join("empty"), b"no longer").unwrap();
        fs::remove_file(scratch.join("symbolic-link")).unwrap();
        fs::create_dir(scratch.join("made")).unwrap();
        let lines = differences(&before, &read(scratch.path()).unwrap());
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("changed: empty") && lines[1] == "gone: symbolic-link" && lines[2] == "new: made");
    }
}
