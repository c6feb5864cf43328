//! What State keeps of a disk: the snapshot that it was last equal to, whose cut points the next scan tries first; and
//! the way back of the last restore. It only saves work: without it, the newest snapshot in the repository serves.

use bytes::Bytes;
use repo::{ManifestRef, Repo, SnapshotDoc};
use serde::{Deserialize, Serialize};
use state::Key;

use super::Tools;

/// Value of `snapshot/disks/<vm>/<disk>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LastEqual {
    version: u32,
    repository: String,
    snapshot: String,
}

const VERSION: u32 = 1;

fn key(vm: &str, disk: &str) -> Option<Key> {
    Key::new(&format!("snapshot/disks/{vm}/{disk}")).ok()
}

/// Records that every disk of `doc` now equals it. A failure costs the next scan its head start and nothing else.
pub(super) async fn equal_now(tools: &Tools, repo: &Repo, doc: &SnapshotDoc) {
    for disk in &doc.disks {
        equal(tools, repo, &doc.vm, &disk.name, &doc.id.to_string()).await;
    }
}

/// Records that one disk now equals `snapshot`.
pub(super) async fn equal(tools: &Tools, repo: &Repo, vm: &str, disk: &str, snapshot: &str) {
    let record = LastEqual { version: VERSION, repository: repo.config().id.to_string(), snapshot: snapshot.to_owned() };
    let (Some(key), Ok(value)) = (key(vm, disk), serde_json::to_vec(&record)) else { return };
    if let Err(error) = tools.state.put(&key, Bytes::from(value)).await {
        tracing::warn!(vm, disk, %error, "could not record which snapshot the disk equals; the next scan will be slower");
    }
}

/// The manifest whose cut points a scan of this disk should try first, if there is one of the same size.
pub(super) async fn base(tools: &Tools, repo: &Repo, vm: &str, disk: &str, size_bytes: u64) -> Option<ManifestRef> {
    let fits = |doc: &SnapshotDoc| {
        doc.disk(disk).map(|d| d.manifest).filter(|m| doc.vm == vm && m.size_bytes == size_bytes)
    };
    if let Some(snapshot) = last_equal(tools, repo, vm, disk).await
        && let Ok(doc) = repo.snapshot(&snapshot).await
        && let Some(manifest) = fits(&doc)
    {
        return Some(manifest);
    }
    let all = repo.snapshots().await.ok()?;
    all.docs.iter().rev().find_map(fits)
}

async fn last_equal(tools: &Tools, repo: &Repo, vm: &str, disk: &str) -> Option<String> {
    let entry = tools.state.get(&key(vm, disk)?).await.ok()??;
    let record: LastEqual = serde_json::from_slice(&entry.value).ok()?;
    (record.version == VERSION && record.repository == repo.config().id.to_string()).then_some(record.snapshot)
}
