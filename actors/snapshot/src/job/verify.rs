//! `windlass snapshot verify`.

use std::sync::Arc;

use wire::snapshot::{SnapshotVerify, VerifyReport};

use super::{Tools, create::seconds, look};
use crate::engine::progress::Progress;
use crate::{Kind, Result, SnapshotError};

/// Findings that the error's message names; the count is complete.
const FINDINGS_NAMED_MAX: usize = 5;

/// Checks that snapshots can be restored.
///
/// # Errors
/// `Corrupt` with the first findings when anything is damaged.
pub async fn verify(tools: Arc<Tools>, request: SnapshotVerify, progress: Arc<Progress>) -> Result<VerifyReport> {
    let (tools, progress) = (&*tools, &progress);
    let began_ms = tools.clock.monotonic_ms();
    // what a cache has may be whole where the store's is not
    let repo = tools.repos.open(request.repo.as_deref()).await?.uncached().await?;
    let mut findings: Vec<String> = repo.damaged_indexes().iter().map(ToString::to_string).collect();
    let docs = match &request.id {
        Some(id) => vec![look::find(&repo, None, id).await?],
        None => {
            let all = repo.snapshots().await?;
            findings.extend(all.damaged.iter().map(ToString::to_string));
            all.docs
        }
    };
    progress.begin("verifying", 0);
    let seen = progress.clone();
    let report = repo
        .verify(&docs, request.quick, &move |done, total| seen.set(done, total))
        .await?;
    progress.check()?;
    let total = findings.len() as u64 + report.findings_total;
    findings.extend(report.findings.iter().map(ToString::to_string));
    if total > 0 {
        let named = findings
            .iter()
            .take(FINDINGS_NAMED_MAX)
            .cloned()
            .collect::<Vec<_>>()
            .join("; ");
        return Err(SnapshotError::new(
            Kind::Corrupt,
            format!("{total} findings in {} ({} snapshots checked): {named}; nothing was changed", repo.url(), docs.len()),
        )
        .hint("keep the repository as it is, take new snapshots into another one (--repo URL), and bring back the damaged objects from a copy"));
    }
    Ok(VerifyReport {
        snapshots: report.snapshots,
        nodes: report.nodes,
        chunks: report.chunks,
        read_bytes: report.read_bytes,
        took_s: seconds(tools.clock.monotonic_ms().saturating_sub(began_ms)),
    })
}
