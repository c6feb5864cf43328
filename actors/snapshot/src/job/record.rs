//! What State keeps of a disk: the snapshot that it was last equal to, whose cut points the next scan tries first; and
//! the way back of the last restore. It only saves work: without it, the newest snapshot in the repository serves.

use bytes::Bytes;
use repo::{ManifestRef, Repo, SnapshotDoc};
use serde::{Deserialize, Serialize};
use state::{Key, Prefix};

use super::Tools;
use crate::core::format::Format;
use crate::engine::journal::{Direction, Record};
use crate::{Kind, Result, SnapshotError};

/// Value of `snapshot/disks/<vm>/<disk>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LastEqual {
    version: u32,
    repository: String,
    snapshot: String,
    /// `raw`, `block` or `qcow2`; empty in records of before there was a choice.
    #[serde(default)]
    format: String,
}

const VERSION: u32 = 1;

/// Value of `snapshot/undo/<vm>/<disk>`: the way back of the disk's last restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WayBack {
    version: u32,
    repository: String,
    pub disk: String,
    pub path: String,
    /// The snapshot of what the restore replaced.
    pub common: String,
}

const WAYS_BACK_MAX: usize = wire::snapshot::DISKS_MAX * 4;

fn key(kind: &str, vm: &str, disk: &str) -> Option<Key> {
    Key::new(format!("snapshot/{kind}/{vm}/{disk}")).ok()
}

async fn keep(tools: &Tools, key: Option<Key>, value: &impl Serialize) {
    let (Some(key), Ok(value)) = (key, serde_json::to_vec(value)) else {
        return;
    };
    if let Err(error) = tools.state.put(&key, Bytes::from(value)).await {
        tracing::warn!(key = key.as_str(), %error, "a record was not kept; the repository serves in its place");
    }
}

/// Records what a finished restore left: what the disk equals, and for one that went forward the way back.
pub(super) async fn restored(tools: &Tools, record: &Record) {
    let intent = &record.intent;
    let (now, _) = record.to_and_from();
    let equals = LastEqual {
        version: VERSION,
        repository: intent.repo_id.clone(),
        snapshot: now.snapshot.clone(),
        format: intent.format.clone().unwrap_or_else(|| "raw".to_owned()),
    };
    keep(tools, key("disks", &intent.vm, &intent.disk), &equals).await;
    if record.direction == Direction::Forward {
        let back = WayBack {
            version: VERSION,
            repository: intent.repo_id.clone(),
            disk: intent.disk.clone(),
            path: intent.path.display().to_string(),
            common: intent.common.snapshot.clone(),
        };
        keep(tools, key("undo", &intent.vm, &intent.disk), &back).await;
    }
}

/// The ways back of a VM's last restores from this repository, one for each disk.
pub(super) async fn ways_back(tools: &Tools, repo: &Repo, vm: &str) -> Result<Vec<WayBack>> {
    let unreadable = |e: state::StateError| {
        SnapshotError::new(
            Kind::Unavailable,
            format!("can't read the way back of VM {vm}: {e}; nothing was changed"),
        )
    };
    let below = Key::new(format!("snapshot/undo/{vm}")).map_err(unreadable)?;
    let entries = tools
        .state
        .list(&Prefix::below(&below), None, WAYS_BACK_MAX)
        .await
        .map_err(unreadable)?;
    let ours = |back: &WayBack| back.version == VERSION && back.repository == repo.config().id;
    Ok(entries
        .iter()
        .filter_map(|e| serde_json::from_slice(&e.value).ok())
        .filter(ours)
        .collect())
}

/// Records that every disk of `doc` now equals it. A failure costs the next scan its head start and nothing else.
pub(super) async fn equal_now(tools: &Tools, repo: &Repo, doc: &SnapshotDoc) {
    let repository = repo.config().id.to_string();
    for disk in &doc.disks {
        let equals = LastEqual {
            version: VERSION,
            repository: repository.clone(),
            snapshot: doc.id.to_string(),
            format: disk.format.clone(),
        };
        keep(tools, key("disks", &doc.vm, &disk.name), &equals).await;
    }
}

/// The manifest whose cut points a scan of this disk should try first, if there is one of the same size.
pub(super) async fn base(tools: &Tools, repo: &Repo, vm: &str, disk: &str, size_bytes: u64) -> Option<ManifestRef> {
    let fits = |doc: &SnapshotDoc| {
        doc.disk(disk)
            .map(|d| d.manifest)
            .filter(|m| doc.vm == vm && m.size_bytes == size_bytes)
    };
    if let Some(record) = last_equal(tools, repo, vm, disk).await
        && let Ok(doc) = repo.snapshot(&record.snapshot).await
        && let Some(manifest) = fits(&doc)
    {
        return Some(manifest);
    }
    let all = repo.snapshots().await.ok()?;
    all.docs.iter().rev().find_map(fits)
}

/// The format in which a disk was recorded last. The repository is asked only when State knows nothing and `ask_repo`.
pub(super) async fn format(tools: &Tools, repo: &Repo, vm: &str, disk: &str, ask_repo: bool) -> Option<Format> {
    if let Some(record) = last_equal(tools, repo, vm, disk).await {
        return Format::recorded(if record.format.is_empty() {
            "raw"
        } else {
            &record.format
        });
    }
    if !ask_repo {
        return None;
    }
    let all = repo.snapshots().await.ok()?;
    let of_disk = |doc: &SnapshotDoc| doc.disk(disk).filter(|_| doc.vm == vm).map(|d| d.format.clone());
    Format::recorded(&all.docs.iter().rev().find_map(of_disk)?)
}

async fn last_equal(tools: &Tools, repo: &Repo, vm: &str, disk: &str) -> Option<LastEqual> {
    let entry = tools.state.get(&key("disks", vm, disk)?).await.ok()??;
    let record: LastEqual = serde_json::from_slice(&entry.value).ok()?;
    (record.version == VERSION && record.repository == repo.config().id).then_some(record)
}
