//! `windlass restore --undo`: back to what was before the last restore; and `--plan`.

use std::path::Path;
use std::sync::Arc;

use repo::{DrySink, NodeSource, Repo};
use tokio::runtime::Handle;
use wire::snapshot::{DiskArg, RestoreReport, SnapshotKind, SnapshotPlan, SnapshotUndo};

use super::create::{scan, seconds};
use super::restore::{Wanted, options, restore_to, undo_unfinished, wanted};
use super::{Tools, blocking, record};
use crate::core::request::{self, NamedDisk, Recorded};
use crate::engine::journal::{Journal, Journals};
use crate::engine::open::Opened;
use crate::engine::progress::Progress;
use crate::engine::raw::Access;
use crate::engine::restore::{Rates, Side, plan_only};
use crate::{Kind, Result, SnapshotError};

/// Undoes the last restore of a VM. An unfinished one goes back to its common snapshot; a finished one is undone by a
/// restore to its common snapshot, which first records the present state and so can be undone itself.
///
/// # Errors
/// `NotFound` when nothing was restored.
pub async fn undo(tools: Arc<Tools>, request: SnapshotUndo, progress: Arc<Progress>) -> Result<RestoreReport> {
    let (tools, progress) = (&*tools, &progress);
    request::check_name("VM", &request.vm)?;
    let journals = Journals::new(&tools.state_dir);
    let (vm, disks) = (request.vm.clone(), request.disks.clone());
    let unfinished = blocking(move || {
        let mut found = Vec::new();
        for journal in journals.list()? {
            let journal = journal?;
            let intent = &journal.record().intent;
            if intent.vm == vm && asked_for(&disks, &intent.disk, &intent.path.display().to_string()) {
                found.push(journal);
            }
        }
        Ok(found)
    })
    .await?;
    let url = request
        .repo
        .clone()
        .or_else(|| unfinished.first().map(|j: &Journal| j.record().intent.repo_url.clone()));
    let repo = tools.repos.open(url.as_deref()).await?;
    if !unfinished.is_empty() {
        return undo_unfinished(tools, &repo, &request.vm, unfinished, progress).await;
    }
    let wanted = way_back(tools, &repo, &request).await?;
    restore_to(tools, &repo, &request.vm, wanted, progress).await
}

/// True when no disks were named, or this one was, by name or path.
fn asked_for(asked: &[DiskArg], name: &str, path: &str) -> bool {
    let same = |arg: &DiskArg| match &arg.name {
        Some(wanted) => wanted == name,
        None => arg.path == path || arg.path == name,
    };
    asked.is_empty() || asked.iter().any(same)
}

/// The common snapshot of each disk's last restore: from State, or else the newest common one in the repository.
async fn way_back(tools: &Tools, repo: &Repo, request: &SnapshotUndo) -> Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    for back in record::ways_back(tools, repo, &request.vm).await? {
        if asked_for(&request.disks, &back.disk, &back.path) {
            let doc = repo.snapshot(&back.common).await?;
            let disk = NamedDisk {
                name: back.disk,
                path: back.path,
                format: None,
            };
            wanted.extend(Wanted::of(disk, &doc));
        }
    }
    if !wanted.is_empty() {
        return Ok(wanted);
    }
    let all = repo.snapshots().await?;
    let newest = all
        .docs
        .iter()
        .rev()
        .find(|d| d.vm == request.vm && d.kind == SnapshotKind::Common);
    let Some(doc) = newest else {
        return Err(SnapshotError::new(
            Kind::NotFound,
            format!("nothing was restored for VM {}; nothing was changed", request.vm),
        )
        .hint(format!("windlass snapshot ls --vm {}", request.vm)));
    };
    let recorded: Vec<Recorded<'_>> = doc
        .disks
        .iter()
        .map(|d| Recorded {
            name: &d.name,
            path: &d.path,
        })
        .collect();
    let id = doc.id.to_string();
    let disks = request::match_disks(&request.vm, &id, &recorded, &request.disks)?;
    Ok(disks.into_iter().filter_map(|disk| Wanted::of(disk, doc)).collect())
}

/// What a restore would do; stores and changes nothing.
///
/// # Errors
/// As a restore's before it writes, but for the disk being in use.
pub async fn plan(tools: Arc<Tools>, request: SnapshotPlan, progress: Arc<Progress>) -> Result<RestoreReport> {
    let (tools, progress) = (&*tools, &progress);
    let began_ms = tools.clock.monotonic_ms();
    let restore = request.restore;
    let repo = tools.repos.open(restore.repo.as_deref()).await?;
    let (mut disks, mut estimate_s, mut to) = (Vec::new(), 0.0, String::new());
    for one in wanted(&repo, &restore).await? {
        to.clone_from(&one.snapshot);
        let (disk, took_s) = plan_disk(tools, &repo, &restore.vm, one, progress).await?;
        estimate_s += took_s;
        disks.push(disk);
    }
    // a restore reads the disks as this did
    let scan_s = seconds(tools.clock.monotonic_ms().saturating_sub(began_ms));
    Ok(RestoreReport {
        vm: restore.vm,
        to,
        common: None,
        resumed: false,
        disks,
        took_s: estimate_s + scan_s,
    })
}

async fn plan_disk(
    tools: &Tools,
    repo: &Repo,
    vm: &str,
    wanted: Wanted,
    progress: &Arc<Progress>,
) -> Result<(wire::snapshot::DiskRestore, f64)> {
    let (journals, name, path) = (
        Journals::new(&tools.state_dir),
        wanted.disk.name.clone(),
        wanted.disk.path.clone(),
    );
    let (its_vm, size_bytes) = (vm.to_owned(), wanted.manifest.size_bytes);
    let (asked, recorded) = (wanted.disk.format, wanted.recorded);
    let disk = blocking(move || {
        if let Some(unfinished) = journals.find(&its_vm, &name)? {
            return Err(unfinished.conflict());
        }
        let disk = Opened::new(Path::new(&path), Access::Look)?.read(asked, recorded)?;
        if disk.size_bytes() != size_bytes {
            return Err(SnapshotError::new(
                Kind::Invalid,
                format!(
                    "disk {path} has another size, {} bytes, than in the snapshot, {size_bytes} bytes",
                    disk.size_bytes()
                ),
            )
            .hint("a whole new file takes: windlass restore … --output NEW"));
        }
        Ok(disk)
    })
    .await?;
    let base = record::base(tools, repo, vm, &wanted.disk.name, size_bytes).await;
    let sink = Arc::new(DrySink::new(repo));
    let scan_ms = tools.clock.monotonic_ms();
    let present = scan(tools, repo, sink.clone(), disk, base, progress).await?;
    let scan_s = seconds(tools.clock.monotonic_ms().saturating_sub(scan_ms));
    let from = Side {
        nodes: sink,
        manifest: present.manifest,
    };
    let to = Side {
        nodes: Arc::new(repo.clone()) as Arc<dyn NodeSource>,
        manifest: wanted.manifest,
    };
    let (repo, handle, options, progress) = (repo.clone(), Handle::current(), options(tools), progress.clone());
    let estimate =
        blocking(move || plan_only(&repo, &handle, &from, &to, &options, Rates::default(), &progress)).await?;
    let mut report = estimate.disk;
    report.name = wanted.disk.name;
    report.path = wanted.disk.path;
    report.phases_s.insert("scan".to_owned(), scan_s);
    Ok((report, estimate.took_s))
}
