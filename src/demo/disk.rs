//! A real ext4 disk, built from this machine's files without root.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use wire::{Code, ErrorBody};

use super::stage::{Stage, internal, say};
use super::table::bytes;

/// Where the files come from, and how many hundredths of the wanted bytes each place gives.
const SOURCES: [(&str, u64); 3] = [("/usr/bin", 30), ("/usr/lib", 50), ("/usr/share", 20)];
/// Bytes of files for each GiB of disk.
const FILES_BYTES_PER_GIB: u64 = 170 << 20;
/// Files above this are passed over, so that the disk holds many kinds.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// With less than this there is nothing to show.
const FILES_BYTES_MIN: u64 = 32 << 20;
/// At most so many files: an ext4 of 1 GiB has 65,536 inodes.
const FILES_MAX: usize = 40_000;

/// Builds `disk` of `size_gib` from files of this machine; returns the names of the files, as the disk knows them.
pub(crate) fn build(stage: &Stage, disk: &str, size_gib: u64) -> Result<Vec<String>, ErrorBody> {
    let mke2fs = tool("mke2fs")?;
    tool("debugfs")?;
    let wanted = size_gib * FILES_BYTES_PER_GIB;
    let mut picked = Picked::default();
    let root = stage.path("files");
    for (source, share) in SOURCES {
        let budget = picked.bytes + wanted * share / 100;
        gather(stage, Path::new(source), &root, budget, &mut picked)?;
    }
    if picked.bytes < FILES_BYTES_MIN {
        return Err(ErrorBody::new(
            Code::Unavailable,
            format!(
                "only {} of readable files found under /usr; the demo builds its disk from them",
                bytes(picked.bytes)
            ),
        ));
    }
    say(&format!(
        "\n{} files of this machine, {}, copied from /usr to files/",
        picked.names.len(),
        bytes(picked.bytes)
    ));
    stage.show(&format!("truncate -s {size_gib}G {disk}"))?;
    stage.show(&format!("{} -q -F -t ext4 -L demo -d files {disk}", mke2fs.display()))?;
    fs::remove_dir_all(&root).map_err(|e| internal("remove files/", e))?;
    say(&format!(
        "  {disk}: {size_gib} GiB, of which {} are allocated",
        bytes(allocated(&stage.path(disk))?)
    ));
    Ok(picked.names)
}

/// A tool of e2fsprogs by its full path: Debian keeps them where users don't look.
pub(crate) fn tool(name: &str) -> Result<PathBuf, ErrorBody> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["/usr/sbin".into(), "/sbin".into()]
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|dir: PathBuf| dir.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| {
            ErrorBody::new(
                Code::Unavailable,
                format!("{name} is missing: it comes with the package e2fsprogs; nothing was done"),
            )
            .hint("apt-get install e2fsprogs")
        })
}

/// Bytes that the filesystem has allocated to a file.
pub(crate) fn allocated(path: &Path) -> Result<u64, ErrorBody> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(path).map_err(|e| internal(&format!("look at {}", path.display()), e))?;
    Ok(meta.blocks() * 512)
}

#[derive(Default)]
struct Picked {
    names: Vec<String>,
    bytes: u64,
}

/// Copies files from `source` to the same place below `root`, in the order of their names, until `budget` bytes are picked.
/// What can't be read is passed over: the demo runs as whoever calls it.
fn gather(stage: &Stage, source: &Path, root: &Path, budget: u64, picked: &mut Picked) -> Result<(), ErrorBody> {
    stage.check()?;
    let Ok(listing) = fs::read_dir(source) else {
        return Ok(());
    };
    let mut entries: Vec<_> = listing.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    let target = root.join(source.strip_prefix("/").unwrap_or(source));
    for entry in entries {
        if picked.bytes >= budget || picked.names.len() >= FILES_MAX {
            return Ok(());
        }
        let (Ok(kind), Some(name)) = (entry.file_type(), entry.file_name().to_str().map(str::to_owned)) else {
            continue;
        };
        let path = entry.path();
        if kind.is_dir() {
            gather(stage, &path, root, budget, picked)?;
        } else if kind.is_file()
            && entry.metadata().is_ok_and(|m| m.len() > 0 && m.len() <= FILE_BYTES_MAX)
            && File::open(&path).is_ok()
        {
            fs::create_dir_all(&target).map_err(|e| internal("make a directory", e))?;
            picked.bytes +=
                fs::copy(&path, target.join(&name)).map_err(|e| internal(&format!("copy {}", path.display()), e))?;
            picked.names.push(path.display().to_string());
        }
    }
    Ok(())
}
