//! Verbs that look at snapshots, and the one that forgets them.

use std::sync::Arc;

use futures::StreamExt;
use repo::manifest::{self, LeafPair};
use repo::{NodeSource, Repo, SnapshotDoc};
use wire::snapshot::{
    ByteRange, DiffReport, DiskDiff, Forgotten, SnapshotDiff, SnapshotForget, SnapshotForgotten, SnapshotInfo,
    SnapshotList, SnapshotListing, SnapshotShow,
};

use super::Tools;
use crate::core::ranges;
use crate::core::request;
use crate::engine::journal::Journals;
use crate::{Kind, Result, SnapshotError};

/// Ranges that a report lists; the counts are complete.
pub const RANGES_LISTED_MAX: usize = 1_000;

/// Snapshots of one page when the request doesn't say.
const LIST_SNAPSHOTS_DEFAULT: usize = 1_000;
/// Bytes of one page, so that the bus carries it.
const LIST_BYTES_MAX: usize = 768 << 10;

/// The snapshot that a person means.
pub(super) async fn find(repo: &Repo, vm: Option<&str>, text: &str) -> Result<SnapshotDoc> {
    if text.len() == 26 {
        // a full id needs no list
        let doc = repo.snapshot(text).await?;
        return of_vm(doc, vm);
    }
    let all = repo.snapshots().await?;
    for damaged in &all.damaged {
        tracing::warn!(%damaged, "a snapshot can't be read");
    }
    let ids: Vec<(String, wire::snapshot::SnapshotKind)> = all
        .docs
        .iter()
        .filter(|d| vm.is_none_or(|vm| d.vm == vm))
        .map(|d| (d.id.to_string(), d.kind))
        .collect();
    let borrowed: Vec<_> = ids.iter().map(|(id, kind)| (id.as_str(), *kind)).collect();
    let chosen = request::choose(vm, &borrowed, text)?;
    let doc = all.docs.iter().find(|d| d.id.to_string() == chosen).cloned();
    doc.ok_or_else(|| SnapshotError::new(Kind::NotFound, format!("snapshot {chosen} is gone")))
}

fn of_vm(doc: SnapshotDoc, vm: Option<&str>) -> Result<SnapshotDoc> {
    match vm {
        Some(vm) if doc.vm != vm => Err(SnapshotError::new(
            Kind::Invalid,
            format!(
                "snapshot {} is of VM {}, not of {vm}; nothing was changed",
                doc.id, doc.vm
            ),
        )
        .hint(format!("windlass snapshot ls --vm {vm}"))),
        _ => Ok(doc),
    }
}

/// `windlass snapshot ls`: a page of it.
pub async fn list(tools: &Tools, request: SnapshotList) -> Result<SnapshotListing> {
    let after = request.after.as_deref().map(str::parse).transpose()?;
    let count_max = match request.count_max {
        0 => LIST_SNAPSHOTS_DEFAULT,
        count => count as usize,
    };
    let repo = tools.repos.open(request.repo.as_deref()).await?;
    let page = repo.snapshots_after(after, count_max, request.vm.as_deref()).await?;
    if let Some(damaged) = page.damaged.first() {
        tracing::warn!(count = page.damaged.len(), first = %damaged, "snapshots that can't be read are not listed");
        if page.docs.is_empty() && !page.more && after.is_none() {
            return Err(damaged.clone().into());
        }
    }
    let mut bytes = 0;
    let mut fits = |info: &SnapshotInfo| {
        bytes += serde_json::to_vec(info).map_or(0, |json| json.len());
        bytes <= LIST_BYTES_MAX
    };
    let found = page.docs.len();
    // one alone always fits: a snapshot has at most 64 disks
    let mut infos = page.docs.iter().map(SnapshotDoc::info);
    let first = infos.next().inspect(|info| {
        fits(info);
    });
    let snapshots: Vec<SnapshotInfo> = first.into_iter().chain(infos.take_while(|info| fits(info))).collect();
    Ok(SnapshotListing {
        more: page.more || snapshots.len() < found,
        snapshots,
    })
}

/// `windlass snapshot show`.
pub async fn show(tools: &Tools, request: SnapshotShow) -> Result<SnapshotInfo> {
    let repo = tools.repos.open(request.repo.as_deref()).await?;
    Ok(find(&repo, request.vm.as_deref(), &request.id).await?.info())
}

/// `windlass snapshot forget`.
pub async fn forget(tools: &Tools, request: SnapshotForget) -> Result<Forgotten> {
    let repo = tools.repos.open(request.repo.as_deref()).await?;
    if request.id == "latest" {
        return Err(SnapshotError::new(
            Kind::Invalid,
            "to forget a snapshot takes its id, not 'latest'; nothing was changed",
        )
        .hint("windlass snapshot ls"));
    }
    let doc = match find(&repo, None, &request.id).await {
        Err(e) if e.kind == Kind::Corrupt => return discard(tools, &repo, &request, e).await,
        found => found?,
    };
    let id = doc.id.to_string();
    for journal in Journals::new(&tools.state_dir).list()? {
        let journal = journal?;
        let intent = &journal.record().intent;
        if intent.target.snapshot == id || intent.common.snapshot == id {
            return Err(SnapshotError::new(
                Kind::Conflict,
                format!(
                    "snapshot {id} is needed by the unfinished restore of VM {} on this host; nothing was changed",
                    intent.vm
                ),
            )
            .hint(journal.record().way_on()));
        }
    }
    let gone = repo
        .forget(&doc.id, request.force, &runtime::rfc3339(tools.clock.now_ms()))
        .await?;
    let forgotten = Forgotten { id, vm: gone.vm };
    told(tools, &forgotten).await;
    Ok(forgotten)
}

async fn told(tools: &Tools, forgotten: &Forgotten) {
    let Forgotten { id, vm } = forgotten.clone();
    tools.announcer.announce(SnapshotForgotten { id, vm }).await;
}

/// A snapshot whose object is damaged can only be thrown away, and only by someone who insists.
async fn discard(tools: &Tools, repo: &Repo, request: &SnapshotForget, damaged: SnapshotError) -> Result<Forgotten> {
    let id: repo::SnapshotId = match request.id.parse() {
        Ok(id) if request.force => id,
        _ => {
            return Err(damaged.hint(format!(
                "to throw it away: windlass snapshot forget {} --force",
                request.id
            )));
        }
    };
    repo.discard(&id).await?;
    let forgotten = Forgotten {
        id: id.to_string(),
        vm: "unknown (its object was damaged)".into(),
    };
    told(tools, &forgotten).await;
    Ok(forgotten)
}

/// `windlass snapshot diff`.
pub async fn diff(tools: &Tools, request: SnapshotDiff) -> Result<DiffReport> {
    let repo = tools.repos.open(request.repo.as_deref()).await?;
    let a = find(&repo, None, &request.a).await?;
    let b = find(&repo, None, &request.b).await?;
    let names = |doc: &SnapshotDoc| -> Vec<String> {
        let wanted = |name: &String| request.disk.as_ref().is_none_or(|d| d == name);
        doc.disks.iter().map(|d| d.name.clone()).filter(wanted).collect()
    };
    let (in_a, in_b) = (names(&a), names(&b));
    if let Some(disk) = &request.disk
        && in_a.is_empty()
        && in_b.is_empty()
    {
        return Err(SnapshotError::new(
            Kind::NotFound,
            format!("neither {} nor {} has a disk {disk}", a.id, b.id),
        )
        .hint(format!("windlass snapshot show {}", a.id)));
    }
    let mut disks = Vec::new();
    for name in in_a.iter().filter(|n| in_b.contains(n)) {
        if let (Some(in_a), Some(in_b)) = (a.disk(name), b.disk(name)) {
            disks.push(diff_disk(&repo, name, in_a.manifest, in_b.manifest).await?);
        }
    }
    Ok(DiffReport {
        a: a.id.to_string(),
        b: b.id.to_string(),
        disks,
        only_a: in_a.iter().filter(|n| !in_b.contains(n)).cloned().collect(),
        only_b: in_b.iter().filter(|n| !in_a.contains(n)).cloned().collect(),
    })
}

async fn diff_disk(repo: &Repo, name: &str, a: repo::ManifestRef, b: repo::ManifestRef) -> Result<DiskDiff> {
    let nodes: Arc<dyn NodeSource> = Arc::new(repo.clone());
    let mut found = DiskDiff {
        name: name.to_owned(),
        ranges: 0,
        first_ranges: Vec::new(),
        differing_bytes: 0,
        nodes_read: 0,
    };
    let mut last_end = None;
    let mut diff = manifest::diff(nodes.clone(), a, nodes, b);
    while let Some(pair) = diff.next().await {
        let LeafPair { a, b, .. } = pair?;
        for range in ranges::differing(&a, &b) {
            found.differing_bytes += range.end - range.start;
            if last_end == Some(range.start) {
                if found.ranges as usize <= RANGES_LISTED_MAX
                    && let Some(last) = found.first_ranges.last_mut()
                {
                    last.length_bytes += range.end - range.start;
                }
            } else {
                found.ranges += 1;
                if found.first_ranges.len() < RANGES_LISTED_MAX {
                    found.first_ranges.push(ByteRange {
                        offset_bytes: range.start,
                        length_bytes: range.end - range.start,
                    });
                }
            }
            last_end = Some(range.end);
        }
    }
    found.nodes_read = diff.nodes_read();
    Ok(found)
}
