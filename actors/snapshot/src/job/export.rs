//! `windlass snapshot export` and `windlass restore --output`.

use std::path::PathBuf;
use std::sync::Arc;

use repo::{DiskEntry, SnapshotDoc};
use tokio::runtime::Handle;
use wire::snapshot::{ExportReport, SnapshotExport};

use super::create::seconds;
use super::restore::options;
use super::{Tools, blocking, look};
use crate::core::format::Format;
use crate::engine::export;
use crate::engine::progress::Progress;
use crate::{Kind, Result, SnapshotError};

/// Writes a snapshot's disk as a whole new sparse file.
///
/// # Errors
/// No file is there then.
pub async fn export(tools: Arc<Tools>, request: SnapshotExport, progress: Arc<Progress>) -> Result<ExportReport> {
    let (tools, progress) = (&*tools, &progress);
    let began_ms = tools.clock.monotonic_ms();
    let format = Format::parse(&request.format)?;
    let repo = tools.repos.open(request.repo.as_deref()).await?;
    let doc = look::find(&repo, request.vm.as_deref(), &request.id).await?;
    let entry = one_disk(&doc, request.disk.as_deref())?;
    let (manifest, output) = (entry.manifest, PathBuf::from(&request.output));
    let (handle, options, progress) = (Handle::current(), options(tools), progress.clone());
    let ulid = runtime::ulid(&*tools.clock);
    let done =
        blocking(move || export::export(&repo, &handle, manifest, (&output, format), &ulid, &options, &progress))
            .await?;
    Ok(ExportReport {
        id: doc.id.to_string(),
        disk: entry.name.clone(),
        output: request.output,
        size_bytes: done.size_bytes,
        written_bytes: done.written_bytes,
        fetched_bytes: done.fetched_bytes,
        took_s: seconds(tools.clock.monotonic_ms().saturating_sub(began_ms)),
    })
}

fn one_disk<'a>(doc: &'a SnapshotDoc, name: Option<&str>) -> Result<&'a DiskEntry> {
    let names = || doc.disks.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, doc.disks.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(SnapshotError::new(
            Kind::Invalid,
            format!("snapshot {} has several disks: {}", doc.id, names()),
        )
        .hint("say which: --disk NAME")),
        (Some(name), _) => doc.disk(name).ok_or_else(|| {
            SnapshotError::new(
                Kind::NotFound,
                format!("snapshot {} has no disk {name}; it has {}", doc.id, names()),
            )
        }),
    }
}
