//! What goes wrong with the demo's disk: files deleted behind its back, data moved, data overwritten.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{SeekFrom, seek};
use wire::ErrorBody;

use super::disk::tool;
use super::stage::{Stage, internal, say};

const MIB: u64 = 1 << 20;
/// How many files are deleted.
const DELETED_FILES_MAX: usize = 200;

/// A run of MiB on the disk, as `dd bs=1M` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    start_mib: u64,
    length_mib: u64,
}

/// Damages `disk` in three ways. `files` are the names on it.
pub(crate) fn inflict(stage: &Stage, disk: &str, files: &[String]) -> Result<(), ErrorBody> {
    delete_files(stage, disk, files)?;
    let data = data_mib(&stage.path(disk))?;
    let size_mib = fs::metadata(stage.path(disk))
        .map_err(|e| internal("look at the disk", e))?
        .len()
        / MIB;
    let moved = share_of(&data, 20, 15);
    let lost = share_of(&data, 55, 30);
    let free = size_mib - moved.length_mib - 8;
    say(&format!(
        "\n{} MiB of data move to free space near the end and their old place is zeroed; {} MiB are overwritten for good",
        moved.length_mib, lost.length_mib
    ));
    let dd = |from: &str, skip: u64, seek: u64, count: u64| {
        let skip = if skip == 0 {
            String::new()
        } else {
            format!(" skip={skip}")
        };
        stage.show(&format!(
            "dd if={from} of={disk} bs=1M{skip} seek={seek} count={count} conv=notrunc status=none"
        ))
    };
    dd(disk, moved.start_mib, free, moved.length_mib)?;
    dd("/dev/zero", 0, moved.start_mib, moved.length_mib)?;
    dd("/dev/urandom", 0, lost.start_mib, lost.length_mib)?;
    Ok(())
}

fn delete_files(stage: &Stage, disk: &str, files: &[String]) -> Result<(), ErrorBody> {
    let step = (files.len() / DELETED_FILES_MAX).max(1);
    // debugfs reads its own script language, in which a name with a space or a quote would be two
    let plain = |name: &&String| name.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c));
    let deleted: Vec<&String> = files
        .iter()
        .step_by(step)
        .filter(plain)
        .take(DELETED_FILES_MAX)
        .collect();
    let mut script: String = deleted.iter().map(|name| format!("rm {name}\n")).collect();
    script.push_str("write surprise.txt surprise.txt\n");
    let written = fs::write(stage.path("damage.debugfs"), script).and_then(|()| {
        fs::write(
            stage.path("surprise.txt"),
            "this file was not here before\n".repeat(1000),
        )
    });
    written.map_err(|e| internal("write damage.debugfs", e))?;
    say(&format!(
        "\ndamage.debugfs: {} files of the disk are deleted, one is added",
        deleted.len()
    ));
    let debugfs = tool("debugfs")?;
    let line = format!("{} -w -f damage.debugfs {disk}", debugfs.display());
    say(&format!("\n$ {line}"));
    // it repeats every command of the script, which nobody wants to read
    stage.quiet(&line)?;
    Ok(())
}

/// The whole MiB of a file that hold data.
fn data_mib(path: &Path) -> Result<Vec<u64>, ErrorBody> {
    let fail = |e| internal("look for the disk's data", e);
    let file = File::open(path).map_err(|e| internal("open the disk", e))?;
    let mut found: Vec<u64> = Vec::new();
    let mut at = 0;
    loop {
        let start = match seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => return Ok(found),
            Err(error) => return Err(fail(error)),
        };
        let end = seek(&file, SeekFrom::Hole(start)).map_err(fail)?;
        found.extend(start.div_ceil(MIB)..end / MIB);
        at = end;
    }
}

/// `length` hundredths of the data, from `from` hundredths on: as a run of the disk, which may span small holes.
fn share_of(data: &[u64], from: usize, length: usize) -> Run {
    let first = data.len() * from / 100;
    let last = (data.len() * (from + length) / 100).min(data.len().saturating_sub(1));
    let (start, end) = (
        data.get(first).copied().unwrap_or(0),
        data.get(last).copied().unwrap_or(0),
    );
    let count = (data.len() * length / 100) as u64;
    Run {
        start_mib: start,
        length_mib: end.saturating_sub(start).clamp(1, count.max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_data_and_stay_on_it() {
        let data: Vec<u64> = (10..110).chain(500..600).collect();
        assert_eq!(
            share_of(&data, 20, 15),
            Run {
                start_mib: 50,
                length_mib: 30
            }
        );
        assert_eq!(
            share_of(&data, 55, 30),
            Run {
                start_mib: 510,
                length_mib: 60
            }
        );
        assert_eq!(
            share_of(&[], 20, 15),
            Run {
                start_mib: 0,
                length_mib: 1
            }
        );
    }

    #[test]
    fn data_is_found_between_holes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let file = File::create(&path).unwrap();
        file.set_len(64 * MIB).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &vec![7; 3 << 20], 5 * MIB).unwrap();
        assert_eq!(data_mib(&path).unwrap(), vec![5, 6, 7]);
    }
}
