//! Takes snapshots: for a person's `create`, and for the common snapshot of a restore.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use repo::{
    BlobKind, BlobRef, BlobSink, DiskEntry, ManifestRef, NodeSource, Repo, Session, SnapshotDoc, SnapshotDraft,
};
use tokio::runtime::Handle;
use wire::snapshot::{SnapshotCreate, SnapshotCreated, SnapshotInfo, SnapshotKind};

use super::{Tools, blocking, record};
use crate::core::format::Looks;
use crate::core::request::{self, NamedDisk};
use crate::engine::ingest::{self, Ingested};
use crate::engine::journal::Journals;
use crate::engine::open::Opened;
use crate::engine::progress::Progress;
use crate::engine::raw::{Access, RawDisk};
use crate::port::{DiskRead, Fingerprint};
use crate::{Kind, Result, SnapshotError};

/// Largest definition that is kept, in bytes.
pub const DEFINITION_BYTES_MAX: u64 = 16 << 20;

/// What [`capture`] takes a snapshot of.
pub(super) struct Capture {
    pub vm: String,
    pub kind: SnapshotKind,
    pub held_until: Option<String>,
    pub disks: Vec<(NamedDisk, Arc<dyn DiskRead>)>,
    pub definition: Option<Vec<u8>>,
    /// States that make a snapshot pointless: when the disks equal these, none is kept.
    pub unless_equal: Option<Vec<ManifestRef>>,
}

/// `windlass snapshot create`.
///
/// # Errors
/// Nothing is visible in the repository then.
pub async fn create(tools: Arc<Tools>, request: SnapshotCreate, progress: Arc<Progress>) -> Result<SnapshotInfo> {
    let (tools, progress) = (&*tools, &progress);
    let named = request::name_disks(&request.vm, &request.disks)?;
    let (journals, definition_path) = (Journals::new(&tools.state_dir), request.definition.clone());
    let crash_consistent = request.crash_consistent;
    let (opened, definition) = blocking(move || {
        let mut opened = Vec::new();
        for disk in named {
            let path = Path::new(&disk.path);
            let open = if crash_consistent {
                Opened::of_this_moment(path)?
            } else {
                Opened::new(path, Access::Read)?
            };
            refuse_unfinished(&journals, open.file())?;
            opened.push((disk, open));
        }
        let definition = definition_path.map(|path| read_definition(&path)).transpose()?;
        Ok((opened, definition))
    })
    .await?;
    let repo = tools.repos.open(request.repo.as_deref()).await?;
    let disks = in_their_formats(tools, &repo, &request.vm, opened).await?;
    let capture_of = Capture {
        vm: request.vm,
        kind: SnapshotKind::User,
        held_until: None,
        disks,
        definition,
        unless_equal: None,
    };
    let doc = capture(tools, &repo, capture_of, progress)
        .await?
        .ok_or_else(|| SnapshotError::new(Kind::Internal, "a snapshot that was asked for was not kept"))?;
    record::equal_now(tools, &repo, &doc).await;
    let snapshot = doc.info();
    let created = SnapshotCreated {
        snapshot: snapshot.clone(),
    };
    tools.announcer.announce(created).await;
    Ok(snapshot)
}

/// The disks in the formats that they have: as asked for, as recorded, as they look.
async fn in_their_formats(
    tools: &Tools,
    repo: &Repo,
    vm: &str,
    opened: Vec<(NamedDisk, Opened)>,
) -> Result<Vec<(NamedDisk, Arc<dyn DiskRead>)>> {
    let mut known = Vec::new();
    for (named, open) in opened {
        let recorded = match named.format {
            Some(_) => None,
            None => record::format(tools, repo, vm, &named.name, open.looks()? != Looks::Plain).await,
        };
        known.push((named, open, recorded));
    }
    blocking(move || {
        let read = |(named, open, recorded): (NamedDisk, Opened, _)| {
            let disk = open.read(named.format, recorded)?;
            Ok((named, disk))
        };
        known.into_iter().map(read).collect()
    })
    .await
}

/// A disk in the middle of a restore is neither one state nor the other.
fn refuse_unfinished(journals: &Journals, disk: &RawDisk) -> Result<()> {
    match journals.touching(disk.path(), disk.fingerprint()?.identity)?.first() {
        Some(unfinished) => Err(unfinished.conflict()),
        None => Ok(()),
    }
}

fn read_definition(path: &str) -> Result<Vec<u8>> {
    let failed = |e: &std::io::Error| SnapshotError::io("read definition", path, e);
    let file = std::fs::File::open(path).map_err(|e| failed(&e))?;
    let mut bytes = Vec::new();
    file.take(DEFINITION_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| failed(&e))?;
    if bytes.len() as u64 > DEFINITION_BYTES_MAX {
        return Err(SnapshotError::new(
            Kind::Invalid,
            format!("definition {path} has more than {DEFINITION_BYTES_MAX} bytes; no snapshot was taken"),
        ));
    }
    if bytes.is_empty() {
        return Err(SnapshotError::new(
            Kind::Invalid,
            format!("definition {path} is empty; no snapshot was taken"),
        ));
    }
    Ok(bytes)
}

/// Puts all disks of a VM into `repo` as one snapshot. It is durable and visible when this returns, or not visible at all. `None` when
/// [`Capture::unless_equal`] says that none is wanted.
pub(super) async fn capture(
    tools: &Tools,
    repo: &Repo,
    what: Capture,
    progress: &Arc<Progress>,
) -> Result<Option<SnapshotDoc>> {
    let began_ms = tools.clock.monotonic_ms();
    let before: Vec<Fingerprint> = what.disks.iter().map(|(_, d)| d.fingerprint()).collect::<Result<_>>()?;
    let session = repo.begin(tools.session_limits.clone()).await?;
    match fill(tools, repo, &session, &what, &before, progress).await {
        Ok((disks, definition)) => {
            let equal = |all: &Vec<ManifestRef>| disks.iter().map(|d| d.manifest).eq(all.iter().copied());
            if what.unless_equal.as_ref().is_some_and(equal) {
                session.abandon().await;
                return Ok(None);
            }
            progress.check()?;
            let now_ms = tools.clock.now_ms();
            let draft = SnapshotDraft {
                id: None,
                vm: what.vm,
                kind: what.kind,
                host: tools.announcer.host.to_string(),
                created_at: runtime::rfc3339(now_ms),
                held_until: what.held_until,
                disks,
                definition,
                took_s: seconds(tools.clock.monotonic_ms().saturating_sub(began_ms)),
            };
            Ok(Some(session.finish(draft).await?))
        }
        Err(error) => {
            session.abandon().await;
            Err(error)
        }
    }
}

/// `[snapshot] threads`, where 0 means all cores.
fn options(tools: &Tools) -> ingest::Options {
    let all = ingest::Options::default();
    match usize::try_from(tools.settings.threads) {
        Ok(0) | Err(_) => all,
        Ok(threads) => ingest::Options {
            threads,
            window_leaves: 16 * threads,
        },
    }
}

/// Milliseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "a duration in milliseconds is far below 2^52")]
pub(super) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

async fn fill(
    tools: &Tools,
    repo: &Repo,
    session: &Arc<Session>,
    what: &Capture,
    before: &[Fingerprint],
    progress: &Arc<Progress>,
) -> Result<(Vec<DiskEntry>, Option<BlobRef>)> {
    let mut entries = Vec::new();
    for (named, disk) in &what.disks {
        let base = record::base(tools, repo, &what.vm, &named.name, disk.size_bytes()).await;
        let done = scan(tools, repo, session.clone(), disk.clone(), base, progress).await?;
        entries.push(DiskEntry {
            name: named.name.clone(),
            path: named.path.clone(),
            format: disk.format().to_owned(),
            manifest: done.manifest,
            moved: done.moved,
        });
    }
    // all disks are one state: none may have changed while the others were read
    for ((_, disk), before) in what.disks.iter().zip(before) {
        if disk.fingerprint()? != *before {
            return Err(ingest::changed(disk.path()));
        }
    }
    let definition = match &what.definition {
        None => None,
        Some(bytes) => {
            let (session, bytes) = (session.clone(), bytes.clone());
            Some(blocking(move || store_definition(session.as_ref(), &bytes)).await?)
        }
    };
    Ok((entries, definition))
}

fn store_definition(sink: &dyn BlobSink, bytes: &[u8]) -> Result<BlobRef> {
    let id = sink.id_of(bytes);
    sink.put(BlobKind::Definition, &id, bytes)?;
    let len =
        u32::try_from(bytes.len()).map_err(|_| SnapshotError::new(Kind::Invalid, "the definition is too large"))?;
    Ok(BlobRef { id, len })
}

/// Reads one disk into `sink` on a blocking thread.
pub(super) async fn scan(
    tools: &Tools,
    repo: &Repo,
    sink: Arc<dyn BlobSink>,
    disk: Arc<dyn DiskRead>,
    base: Option<repo::ManifestRef>,
    progress: &Arc<Progress>,
) -> Result<Ingested> {
    let base = base.map(|manifest| (Arc::new(repo.clone()) as Arc<dyn NodeSource>, manifest));
    let (chunker, progress, handle) = (repo.config().chunker, progress.clone(), Handle::current());
    let options = options(tools);
    blocking(move || {
        ingest::ingest(
            disk.as_ref(),
            sink.as_ref(),
            chunker,
            base,
            &handle,
            &options,
            &progress,
        )
    })
    .await
}
