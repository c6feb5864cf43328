//! `windlass restore`: the order in which locks, the common snapshot, the journals, the writing and the records come.

use std::path::Path;
use std::sync::Arc;

use repo::{ManifestRef, Repo, SnapshotDoc};
use tokio::runtime::Handle;
use wire::snapshot::{DiskRestore, DiskRestored, RestoreReport, SnapshotKind, SnapshotRestore};

use super::create::{Capture, capture, seconds};
use super::{Tools, blocking, look, record};
use crate::core::format::Format;
use crate::core::request::{self, NamedDisk, Recorded};
use crate::engine::guard::{Guard, check_size};
use crate::engine::journal::{Direction, Intent, Journal, Journals, State};
use crate::engine::open::Opened;
use crate::engine::progress::Progress;
use crate::engine::raw::Access;
use crate::engine::restore::{Options, Restore};
use crate::port::{DiskRead, DiskWrite};
use crate::{Kind, Result, SnapshotError};

/// One disk, and the state that it is to have.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub disk: NamedDisk,
    pub snapshot: String,
    pub manifest: ManifestRef,
    /// The format that its snapshot recorded.
    pub recorded: Option<Format>,
}

impl Wanted {
    /// The disk, which is to have the state that `doc` has of it.
    pub(super) fn of(disk: NamedDisk, doc: &SnapshotDoc) -> Option<Self> {
        let entry = doc.disk(&disk.name)?;
        Some(Self {
            snapshot: doc.id.to_string(),
            manifest: entry.manifest,
            recorded: Format::recorded(&entry.format),
            disk,
        })
    }
}

/// A disk under our lock.
struct Held {
    wanted: Wanted,
    disk: Arc<dyn DiskWrite>,
    /// Of an unfinished restore that this goes on with.
    journal: Option<Journal>,
}

/// Puts a snapshot's disks back in place.
///
/// # Errors
/// Before the journals are written nothing was changed; afterwards the restore is unfinished, and the same request goes on.
pub async fn restore(tools: Arc<Tools>, request: SnapshotRestore, progress: Arc<Progress>) -> Result<RestoreReport> {
    let (tools, progress) = (&*tools, &progress);
    let repo = tools.repos.open(request.repo.as_deref()).await?;
    let wanted = wanted(&repo, &request).await?;
    restore_to(tools, &repo, &request.vm, wanted, progress).await
}

/// Which disks a request means, and the states that they are to have.
pub(super) async fn wanted(repo: &Repo, request: &SnapshotRestore) -> Result<Vec<Wanted>> {
    request::check_name("VM", &request.vm)?;
    let doc = look::find(repo, Some(&request.vm), &request.to).await?;
    let id = doc.id.to_string();
    let recorded: Vec<Recorded<'_>> = doc
        .disks
        .iter()
        .map(|d| Recorded {
            name: &d.name,
            path: &d.path,
        })
        .collect();
    let disks = request::match_disks(&request.vm, &id, &recorded, &request.disks)?;
    Ok(disks.into_iter().filter_map(|disk| Wanted::of(disk, &doc)).collect())
}

/// Brings every disk to its wanted state.
pub(super) async fn restore_to(
    tools: &Tools,
    repo: &Repo,
    vm: &str,
    wanted: Vec<Wanted>,
    progress: &Arc<Progress>,
) -> Result<RestoreReport> {
    let began_ms = tools.clock.monotonic_ms();
    let to = joined(wanted.iter().map(|w| w.snapshot.clone()));
    let (journals, its_vm) = (Journals::new(&tools.state_dir), vm.to_owned());
    let mut held = blocking(move || {
        wanted
            .into_iter()
            .map(|w| hold(&journals, &its_vm, w))
            .collect::<Result<Vec<_>>>()
    })
    .await?;
    let resumed = held.iter().any(|h| h.journal.is_some());
    let scan_ms = tools.clock.monotonic_ms();
    let begun = begin(tools, repo, vm, &mut held, progress).await?;
    let scan_s = seconds(tools.clock.monotonic_ms().saturating_sub(scan_ms));
    let disks = match begun {
        Begun::Equal => held.iter().map(|h| unchanged(h, scan_s)).collect(),
        Begun::Journaled => run_all(tools, repo, held, Direction::Forward, scan_s, progress).await?,
    };
    let common = match &disks {
        disks if disks.iter().all(|d: &Done| d.common.is_none()) => None,
        disks => Some(joined(disks.iter().filter_map(|d| d.common.clone()))),
    };
    let report = RestoreReport {
        vm: vm.to_owned(),
        to,
        common,
        resumed,
        disks: disks.into_iter().map(|d| d.report).collect(),
        took_s: seconds(tools.clock.monotonic_ms().saturating_sub(began_ms)),
    };
    Ok(told(tools, report).await)
}

/// Tells that disks equal a snapshot again.
async fn told(tools: &Tools, report: RestoreReport) -> RestoreReport {
    let restored = DiskRestored { report: report.clone() };
    tools.announcer.announce(restored).await;
    report
}

/// Different values, each once.
fn joined(values: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = Vec::new();
    for value in values {
        if !all.contains(&value) {
            all.push(value);
        }
    }
    all.join(", ")
}

/// Takes a disk: nobody else uses it, it has the right size, it is under our lock; or says why not.
fn hold(journals: &Journals, vm: &str, wanted: Wanted) -> Result<Held> {
    let path = Path::new(&wanted.disk.path);
    let journal = journals.find(vm, &wanted.disk.name)?;
    if let Some(other) = journal
        .as_ref()
        .filter(|j| j.record().intent.target.snapshot != wanted.snapshot)
    {
        return Err(other.conflict());
    }
    let size_bytes = wanted.manifest.size_bytes;
    let begun = journal.as_ref().map(|j| format_of(&j.record().intent));
    if let (Some(begun), Some(asked)) = (begun, wanted.disk.format)
        && begun != asked
    {
        let why = format!(
            "the unfinished restore of disk {} was begun as {}, not as {}; nothing was changed",
            wanted.disk.path,
            begun.name(),
            asked.name()
        );
        return Err(SnapshotError::new(Kind::Invalid, why).hint(format!("--format {}", begun.name())));
    }
    Guard::default().check(path)?;
    let disk = Opened::new(path, Access::Write)?.write(wanted.disk.format.or(begun), wanted.recorded)?;
    check_size(path, disk.size_bytes(), size_bytes)?;
    let identity = disk.fingerprint()?.identity;
    // the same file may be in the middle of a restore under another name
    let is_other = |j: &Journal| j.record().intent.vm != vm || j.record().intent.disk != wanted.disk.name;
    if let Some(other) = journals.touching(path, identity)?.into_iter().find(is_other) {
        return Err(other.conflict());
    }
    if let Some(journal) = &journal {
        journal.check_disk(path, identity.1, size_bytes)?;
    }
    Ok(Held { wanted, disk, journal })
}

/// The format in which a restore was begun.
fn format_of(intent: &Intent) -> Format {
    match intent.format.as_deref() {
        Some("qcow2") => Format::Qcow2,
        _ => Format::Raw,
    }
}

/// What [`begin`] found.
enum Begun {
    /// Every disk equals its wanted state already; nothing was recorded.
    Equal,
    /// Every disk has a durable journal.
    Journaled,
}

/// Records the present state of the disks that have no journal yet, durably, and writes their journals.
async fn begin(tools: &Tools, repo: &Repo, vm: &str, held: &mut [Held], progress: &Arc<Progress>) -> Result<Begun> {
    let fresh: Vec<&Held> = held.iter().filter(|h| h.journal.is_none()).collect();
    if fresh.is_empty() {
        return Ok(Begun::Journaled);
    }
    let all_fresh = fresh.len() == held.len();
    let now_ms = tools.clock.now_ms();
    let what = Capture {
        vm: vm.to_owned(),
        kind: SnapshotKind::Common,
        held_until: Some(runtime::rfc3339(now_ms + tools.settings.common_held_days * 86_400_000)),
        disks: fresh
            .iter()
            .map(|h| (h.wanted.disk.clone(), h.disk.clone() as Arc<dyn DiskRead>))
            .collect(),
        definition: None,
        unless_equal: all_fresh.then(|| fresh.iter().map(|h| h.wanted.manifest).collect()),
    };
    let Some(common) = capture(tools, repo, what, progress).await? else {
        return Ok(Begun::Equal);
    };
    let restore = runtime::ulid(&*tools.clock);
    let mut intents = Vec::new();
    for held in held.iter().filter(|h| h.journal.is_none()) {
        let entry = common.disk(&held.wanted.disk.name).ok_or_else(|| {
            SnapshotError::new(Kind::Internal, format!("the common snapshot {} lost a disk", common.id))
        })?;
        intents.push(Intent {
            restore: restore.clone(),
            vm: vm.to_owned(),
            disk: held.wanted.disk.name.clone(),
            path: held.wanted.disk.path.clone().into(),
            identity: held.disk.fingerprint()?.identity,
            repo_url: repo.url(),
            repo_id: repo.config().id.to_string(),
            target: State {
                snapshot: held.wanted.snapshot.clone(),
                manifest: held.wanted.manifest,
            },
            common: State {
                snapshot: common.id.to_string(),
                manifest: entry.manifest,
            },
            started_at: runtime::rfc3339(now_ms),
            format: (held.disk.format() == "qcow2").then(|| "qcow2".to_owned()),
        });
    }
    let journals = Journals::new(&tools.state_dir);
    let paths: Vec<String> = held.iter().map(|h| h.wanted.disk.path.clone()).collect();
    let mut written = blocking(move || {
        // someone may have come while the disks were read
        for path in &paths {
            Guard::default().check_again(Path::new(path))?;
        }
        intents
            .into_iter()
            .map(|i| journals.create(i))
            .collect::<Result<Vec<_>>>()
    })
    .await?
    .into_iter();
    for held in held.iter_mut().filter(|h| h.journal.is_none()) {
        held.journal = written.next();
    }
    Ok(Begun::Journaled)
}

/// How one disk came out.
pub(super) struct Done {
    report: DiskRestore,
    common: Option<String>,
}

fn unchanged(held: &Held, scan_s: f64) -> Done {
    let report = DiskRestore {
        name: held.wanted.disk.name.clone(),
        path: held.wanted.disk.path.clone(),
        size_bytes: held.wanted.manifest.size_bytes,
        phases_s: [("scan".to_owned(), scan_s)].into(),
        ..DiskRestore::default()
    };
    Done { report, common: None }
}

/// Writes all disks, records what they equal now and the way back, and only then removes their journals.
async fn run_all(
    tools: &Tools,
    repo: &Repo,
    held: Vec<Held>,
    direction: Direction,
    scan_s: f64,
    progress: &Arc<Progress>,
) -> Result<Vec<Done>> {
    let (mut done, mut finished) = (Vec::new(), Vec::new());
    let share_s = scan_s / held.len().max(1) as f64;
    for Held { disk, journal, .. } in held {
        let Some(journal) = journal else { continue };
        let (mut report, disk, journal) = run_one(tools, repo, disk, journal, direction, progress).await?;
        report.phases_s.insert("scan".to_owned(), share_s);
        let common = journal.record().intent.common.snapshot.clone();
        done.push(Done {
            report,
            common: Some(common),
        });
        finished.push((disk, journal));
    }
    for (_, journal) in &finished {
        record::restored(tools, journal.record()).await;
    }
    // the locks go after the journals
    blocking(move || {
        let mut disks = Vec::new();
        for (disk, journal) in finished {
            journal.remove()?;
            disks.push(disk);
        }
        Ok(())
    })
    .await?;
    Ok(done)
}

async fn run_one(
    tools: &Tools,
    repo: &Repo,
    disk: Arc<dyn DiskWrite>,
    mut journal: Journal,
    direction: Direction,
    progress: &Arc<Progress>,
) -> Result<(DiskRestore, Arc<dyn DiskWrite>, Journal)> {
    let (repo, handle, options) = (repo.clone(), Handle::current(), options(tools));
    let (progress, clock) = (progress.clone(), tools.clock.clone());
    blocking(move || {
        journal.turn(direction)?;
        let now_s = || seconds(clock.monotonic_ms());
        let disk_ref: &dyn DiskWrite = disk.as_ref();
        let restore = Restore {
            disk: disk_ref,
            repo: &repo,
            handle: &handle,
            options: &options,
            progress: &progress,
            clock: &now_s,
        };
        let report = restore.run(&mut journal)?;
        Ok((report, disk, journal))
    })
    .await
}

/// `[snapshot]` and `[repo]` as the engine takes them.
pub(super) fn options(tools: &Tools) -> Options {
    let all = Options::default();
    let threads = usize::try_from(tools.settings.threads)
        .ok()
        .filter(|n| *n > 0)
        .unwrap_or(all.threads);
    Options {
        threads,
        fetch: tools.fetch_limits.clone(),
        ..all
    }
}

/// Brings unfinished restores back to their common snapshots.
pub(super) async fn undo_unfinished(
    tools: &Tools,
    repo: &Repo,
    vm: &str,
    journals: Vec<Journal>,
    progress: &Arc<Progress>,
) -> Result<RestoreReport> {
    let began_ms = tools.clock.monotonic_ms();
    for intent in journals.iter().map(|j| &j.record().intent) {
        if intent.repo_id != repo.config().id {
            return Err(SnapshotError::new(
                Kind::Invalid,
                format!(
                    "the unfinished restore of VM {vm} used the repository {}, not {}; nothing was changed",
                    intent.repo_url,
                    repo.url()
                ),
            )
            .hint(format!("windlass restore --vm {vm} --undo --repo {}", intent.repo_url)));
        }
    }
    let to = joined(journals.iter().map(|j| j.record().intent.common.snapshot.clone()));
    let held = blocking(move || journals.into_iter().map(hold_unfinished).collect::<Result<Vec<_>>>()).await?;
    let done = run_all(tools, repo, held, Direction::Undo, 0.0, progress).await?;
    let report = RestoreReport {
        vm: vm.to_owned(),
        to,
        common: None,
        resumed: true,
        disks: done.into_iter().map(|d| d.report).collect(),
        took_s: seconds(tools.clock.monotonic_ms().saturating_sub(began_ms)),
    };
    Ok(told(tools, report).await)
}

fn hold_unfinished(journal: Journal) -> Result<Held> {
    let intent = journal.record().intent.clone();
    let size_bytes = intent.common.manifest.size_bytes;
    Guard::default().check(&intent.path)?;
    let format = format_of(&intent);
    let disk = Opened::new(&intent.path, Access::Write)?.write(Some(format), None)?;
    check_size(&intent.path, disk.size_bytes(), size_bytes)?;
    journal.check_disk(&intent.path, disk.fingerprint()?.identity.1, size_bytes)?;
    let named = NamedDisk {
        name: intent.disk,
        path: intent.path.display().to_string(),
        format: Some(format),
    };
    let wanted = Wanted {
        disk: named,
        snapshot: intent.common.snapshot,
        manifest: intent.common.manifest,
        recorded: None,
    };
    Ok(Held {
        wanted,
        disk,
        journal: Some(journal),
    })
}
