//! Keeps a cache within its bytes: the entries that were not used for longest go first.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::{ASIDE, Cache, Kind};

/// The directory is measured again when this part of its limit was written.
const MEASURE_PART: u64 = 16;
/// When it is too large, it is brought down to this many hundredths of its limit.
const DOWN_TO_PERCENT: u64 = 90;

/// An entry as eviction sees it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Aged {
    used_at: SystemTime,
    bytes: u64,
    path: PathBuf,
}

impl Cache {
    /// Counts what was written, and evicts when it is time to look.
    pub(super) fn measure(&self, written_bytes: u64) {
        let since = self
            .unmeasured
            .fetch_add(written_bytes, Ordering::Relaxed)
            .saturating_add(written_bytes);
        if since < self.bytes_max / MEASURE_PART {
            return;
        }
        self.unmeasured.store(0, Ordering::Relaxed);
        sweep_aside(&self.root.join(ASIDE));
        let mut entries = self.entries();
        let mut bytes: u64 = entries.iter().map(|e| e.bytes).sum();
        if bytes <= self.bytes_max {
            return;
        }
        entries.sort_unstable();
        for entry in entries {
            if bytes <= self.bytes_max / 100 * DOWN_TO_PERCENT {
                break;
            }
            // another process may have been faster
            let _gone_already = std::fs::remove_file(&entry.path);
            bytes -= entry.bytes;
        }
    }

    fn entries(&self) -> Vec<Aged> {
        let mut found = Vec::new();
        for repository in children(&self.root) {
            for kind in Kind::ALL {
                for path in children(&repository.join(kind.dir())) {
                    if let Ok(meta) = std::fs::symlink_metadata(&path)
                        && meta.is_file()
                    {
                        found.push(Aged {
                            used_at: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                            bytes: meta.len(),
                            path,
                        });
                    }
                }
            }
        }
        found
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).map_or_else(|_| Vec::new(), |entries| entries.flatten().map(|e| e.path()).collect())
}

/// Removes what killed processes left: nobody holds its lock any more.
fn sweep_aside(dir: &Path) {
    for path in children(dir) {
        if let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
        {
            // a writer between making its file and locking it fails to rename, and writes once more
            let _gone_already = std::fs::remove_file(&path);
        }
    }
}
