//! The end of a session: everything durable, everything seen, then the snapshot.

use wire::snapshot::DISKS_MAX;

use super::*;
use crate::pack::PackName;

impl Inner {
    pub(super) async fn publish(self: &Arc<Self>, draft: SnapshotDraft) -> Result<SnapshotDoc> {
        if self.closed.swap(true, Ordering::SeqCst) {
            return Err(RepoError::invalid(session_key(&self.id), "the session has ended"));
        }
        let inner = self.clone();
        io::blocking("session", move || {
            for builder in [&inner.data, &inner.nodes] {
                let pack = std::mem::take(&mut *lock(builder));
                if !pack.is_empty() {
                    let pass = inner.gate.enter();
                    inner.upload(pack, pass);
                }
            }
            inner.gate.wait_empty();
            Ok(())
        })
        .await?;
        if let Some(error) = lock(&self.failure).clone() {
            return Err(error);
        }
        if lock(&self.durable).packs.len() != self.sealed.load(Ordering::SeqCst) {
            return Err(RepoError::internal(
                session_key(&self.id),
                "an upload ended without a result",
            ));
        }
        self.check_draft(&draft)?;
        let unlisted = lock(&self.durable).take_unlisted();
        self.write_index(unlisted).await?;
        self.check_packs().await?;
        let doc = SnapshotDoc::from_draft(draft.id.unwrap_or_else(SnapshotId::generate), draft);
        io::put(self.repo.store(), &SnapshotDoc::key_of(&doc.id), doc.encode()?.into()).await?;
        let written = std::mem::take(&mut *self.written.write().unwrap_or_else(PoisonError::into_inner));
        self.repo.add_segments(written);
        Ok(doc)
    }

    /// A snapshot must not refer to what is not there.
    fn check_draft(&self, draft: &SnapshotDraft) -> Result<()> {
        if draft.disks.len() > DISKS_MAX {
            let why = format!("{} disks; a snapshot has at most {DISKS_MAX}", draft.disks.len());
            return Err(RepoError::invalid(format!("vm {}", draft.vm), why));
        }
        for disk in &draft.disks {
            disk.manifest.check()?;
        }
        let roots = draft.disks.iter().filter_map(|d| d.manifest.root);
        for id in roots.chain(draft.definition.map(|d| d.id)) {
            if !self.known_before(&id) && !self.added(&id) {
                return Err(RepoError::invalid(
                    format!("blob {id}"),
                    "the snapshot refers to it, but it was never put",
                ));
            }
        }
        Ok(())
    }

    /// All packs that the session refers to, old and new, must be in a listing with their sizes; and so must its index.
    async fn check_packs(&self) -> Result<()> {
        let written = self.written.read().unwrap_or_else(PoisonError::into_inner).clone();
        for segment in &written {
            let head = self.repo.store().head(&io::key(segment.object())?).await;
            head.map_err(|e| RepoError::of_referenced(e.at(&self.repo.url())))?;
        }
        let mut wanted = self.marks.marked(&self.index);
        wanted.extend(lock(&self.durable).packs.iter().map(|p| (p.name, p.bytes)));
        if wanted.is_empty() {
            return Ok(());
        }
        io::list(self.repo.store(), "packs/", |meta| {
            if let Some(name) = PackName::from_key(meta.key.as_str())
                && wanted.get(&name) == Some(&meta.size_bytes)
            {
                wanted.remove(&name);
            }
        })
        .await?;
        match wanted.keys().next() {
            None => Ok(()),
            Some(name) => Err(RepoError::corrupt(
                name.key(),
                format!(
                    "{} pack(s) that the index knows are gone or have another size, this one first; no snapshot was made",
                    wanted.len()
                ),
            )),
        }
    }
}
