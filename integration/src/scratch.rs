//! Directories that go away again, also when the test panics.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A directory of its own, removed on drop. `WINDLASS_TEST_KEEP=1` keeps it and says where it is.
#[derive(Debug)]
pub struct Scratch {
    directory: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// Below `TMPDIR`, with `name` in its name.
    ///
    /// # Errors
    /// I/O errors of making it.
    pub fn new(name: &str) -> io::Result<Self> {
        Self::within(&std::env::temp_dir(), name)
    }

    /// Below `parent`, for tests that need a certain file system.
    ///
    /// # Errors
    /// I/O errors of making it.
    pub fn within(parent: &Path, name: &str) -> io::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix(&format!("windlass-{name}-"))
            .tempdir_in(parent)?;
        let path = directory.path().canonicalize()?;
        Ok(Self {
            directory: Some(directory),
            path,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path below it; nothing is made.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// A directory below it, made if it isn't there.
    ///
    /// # Errors
    /// I/O errors of making it.
    pub fn dir(&self, name: impl AsRef<Path>) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// An empty directory below it: what was there is removed.
    ///
    /// # Errors
    /// I/O errors of removing and making it.
    pub fn fresh(&self, name: impl AsRef<Path>) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => self.dir(path),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        crate::secrets::look_through(&self.path);
        if std::env::var_os("WINDLASS_TEST_KEEP").is_some()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("kept {}", directory.keep().display());
        }
    }
}
