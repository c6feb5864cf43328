//! Follows a NATS server's log for those whom it refused: the servers tell nobody else but the one that they refuse.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lattice::Lattice;
use crate::refusals::of_log;

/// How often it is looked whether the log grew.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What is read of it at once; what comes faster is read at the next look, or skipped when it is more than this.
const READ_BYTES_MAX: u64 = 4 << 20;
/// A longer line is no line of a server's.
const LINE_BYTES_MAX: usize = 8 << 10;

/// Where a reader is in a log that may be rotated.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    inode: u64,
    read: u64,
    // the beginning of a line whose end isn't there yet
    rest: Vec<u8>,
}

impl Place {
    /// Behind what is there now.
    fn end_of(path: &Path) -> Self {
        let (inode, read) = std::fs::metadata(path).map_or((0, 0), |meta| (meta.ino(), meta.len()));
        Self {
            path: path.to_owned(),
            inode,
            read,
            rest: Vec::new(),
        }
    }

    /// The whole lines that came since.
    fn next(&mut self) -> io::Result<Vec<String>> {
        let mut file = File::open(&self.path)?;
        let meta = file.metadata()?;
        if meta.ino() != self.inode || meta.len() < self.read {
            (self.inode, self.read) = (meta.ino(), 0);
            self.rest.clear();
        }
        if meta.len() - self.read > READ_BYTES_MAX {
            tracing::warn!(log = %self.path.display(), "the log of the NATS server grows faster than it is read; some of it is skipped");
            self.read = meta.len() - READ_BYTES_MAX;
            self.rest.clear();
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = std::mem::take(&mut self.rest);
        let read = file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
        self.read += read as u64;
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        self.rest = bytes.split_off(whole);
        if self.rest.len() > LINE_BYTES_MAX {
            self.rest.clear();
        }
        let lines = bytes.split(|b| *b == b'\n').filter(|line| line.len() <= LINE_BYTES_MAX);
        Ok(lines.map(|line| String::from_utf8_lossy(line).into_owned()).collect())
    }
}

impl Lattice {
    /// Counts from now on whom the server with this log refuses; a log that can't be read is looked for again.
    pub fn follow_server_log(&self, path: &Path) {
        let lattice = self.clone();
        let mut place = Place::end_of(path);
        tokio::spawn(async move {
            let mut failed = false;
            loop {
                let looked = tokio::task::spawn_blocking(move || {
                    let lines = place.next();
                    (place, lines)
                });
                // only a runtime that ends drops it
                let Ok((back, lines)) = looked.await else { return };
                place = back;
                match lines {
                    Ok(lines) => {
                        failed = false;
                        for line in &lines {
                            if let Some((who, what, subject)) = of_log(line) {
                                lattice.refused(Some(&who), what, subject);
                            }
                        }
                    }
                    Err(error) if !std::mem::replace(&mut failed, true) => {
                        tracing::warn!(log = %place.path.display(), %error, "the log of the NATS server can't be read; trying again");
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use integration::scratch::Scratch;

    use super::*;

    #[test]
    fn a_log_is_followed_over_torn_lines_and_rotation() {
        let scratch = Scratch::new("server-log").unwrap();
        let path = scratch.join("nats.log");
        std::fs::write(&path, "old\n").unwrap();
        let mut place = Place::end_of(&path);
        let say = |text: &str| {
            let mut file = File::options().create(true).append(true).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        let mut heard = move || {
            let lines = place.next().unwrap().into_iter().filter(|line| !line.is_empty());
            lines.collect::<Vec<_>>()
        };
        say("a\nb");
        assert_eq!(heard(), ["a"]);
        say("c\n");
        assert_eq!(heard(), ["bc"]);
        std::fs::rename(&path, scratch.join("nats.log.1")).unwrap();
        say("after\n");
        assert_eq!(heard(), ["after"]);
        say(&"x".repeat(LINE_BYTES_MAX + 1));
        assert_eq!(heard(), Vec::<String>::new());
        say("\nnext\n");
        assert_eq!(heard(), ["next"]);
    }
}
