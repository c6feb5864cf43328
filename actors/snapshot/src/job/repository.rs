//! Verbs about the repository itself.

use std::sync::Arc;

use repo::Repo;
use wire::repo::{RebuiltIndex, RepoCounts, RepoInfo, RepoInit, RepoRebuildIndex, RepoShow, RepoStats};

use super::Tools;
use crate::Result;
use crate::engine::progress::Progress;

fn info(repo: &Repo) -> RepoInfo {
    let config = repo.config();
    RepoInfo {
        url: repo.url(),
        id: config.id.to_string(),
        version: config.version,
        created_at: config.created_at.clone(),
        chunker: config.chunker,
        store: config.store,
    }
}

/// `windlass repo init`.
pub async fn repo_init(tools: &Tools, request: RepoInit) -> Result<RepoInfo> {
    Ok(info(&tools.repos.init(request.repo.as_deref(), request.chunker).await?))
}

/// `windlass repo show`.
pub async fn repo_show(tools: &Tools, request: RepoShow) -> Result<RepoInfo> {
    Ok(info(&tools.repos.open(request.repo.as_deref()).await?))
}

/// `windlass repo stats`.
pub async fn repo_stats(tools: &Tools, request: RepoStats) -> Result<RepoCounts> {
    Ok(tools.repos.open(request.repo.as_deref()).await?.counts().await?)
}

/// `windlass repo rebuild-index`.
pub async fn repo_rebuild_index(
    tools: Arc<Tools>,
    request: RepoRebuildIndex,
    _: Arc<Progress>,
) -> Result<RebuiltIndex> {
    let repo = tools.repos.open(request.repo.as_deref()).await?;
    let blobs = repo.rebuild_index().await?;
    Ok(RebuiltIndex { url: repo.url(), blobs })
}
