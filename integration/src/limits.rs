//! Places that are full, or that may not be written, also for root: mounts of the test's own, which need root.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mount that is taken away on drop.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
}

fn mount(arguments: &[&str], path: &Path) -> io::Result<()> {
    let out = Command::new("mount").args(arguments).arg(path).output()?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let why = format!(
        "mount {} {}: {} (tests of full and read-only places need root)",
        arguments.join(" "),
        path.display(),
        said.trim()
    );
    Err(io::Error::other(why))
}

impl Mounted {
    /// A file system of `bytes` on the directory `path`, which is made.
    ///
    /// # Errors
    /// What mount said.
    pub fn small(path: &Path, bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        mount(
            &["-t", "tmpfs", "-o", &format!("size={bytes},mode=0755"), "tmpfs"],
            path,
        )?;
        Ok(Self { path: path.to_owned() })
    }

    /// The file system in the file `image`, on the directory `path`, which is made.
    ///
    /// # Errors
    /// What mount said.
    pub fn image(image: &Path, path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let source = image
            .to_str()
            .ok_or_else(|| io::Error::other("the path is not UTF-8"))?;
        mount(&["-o", "loop", source], path)?;
        Ok(Self { path: path.to_owned() })
    }

    /// The directory `path`, from now on read-only for everybody.
    ///
    /// # Errors
    /// What mount said.
    pub fn read_only(path: &Path) -> io::Result<Self> {
        let source = path.to_str().ok_or_else(|| io::Error::other("the path is not UTF-8"))?;
        mount(&["--bind", source], path)?;
        let mounted = Self { path: path.to_owned() };
        mount(&["-o", "remount,bind,ro"], path)?;
        Ok(mounted)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazy as a last resort: a file that is still open must not keep the mount for ever.
        let done = Command::new("umount")
            .arg(&self.path)
            .output()
            .is_ok_and(|o| o.status.success());
        if !done {
            let _ = Command::new("umount").arg("-l").arg(&self.path).output();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn full_and_read_only_for_root_too() {
        let scratch = Scratch::new("limits").unwrap();
        let small = Mounted::small(&scratch.join("small"), 1 << 20).unwrap();
        let e = std::fs::write(small.path().join("f"), vec![1; 2 << 20]).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::StorageFull);
        let fixed = scratch.dir("fixed").unwrap();
        std::fs::write(fixed.join("f"), b"x").unwrap();
        {
            let _read_only = Mounted::read_only(&fixed).unwrap();
            let e = std::fs::write(fixed.join("g"), b"x").unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::ReadOnlyFilesystem);
            assert_eq!(std::fs::read(fixed.join("f")).unwrap(), b"x");
        }
        std::fs::write(fixed.join("g"), b"x").unwrap();
    }
}
