//! How the view follows the state: everything once, through a watch from the beginning; after that what the watch tells.
//!
//! A look that has to know of every acknowledged write can't trust a watch, which may lag behind, and must not read a hundred
//! thousand racks either. So it writes a mark of this scheduler's own below the racks and waits until the watch tells it: changes
//! are told in the order of their revisions, so everything that was written before the mark has been told then, too.
//!
//! ```text
//! put mark -> revision r;  watch: ... rack, rack, mark at r -> the view knows all that was there when the mark was written
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use state::{Change, Key, Prefix, Watch};

use super::Scheduler;
use super::view::{RACKS, View, all, rack_id, read_rack};
use crate::Result;

/// How long a watch may tell nothing while its scheduler waits for its mark.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// What a mark's name begins with; no rack's does.
const MARK: char = '=';

/// A watch on loan: given back also when whoever waits is dropped.
struct Loan<'a> {
    scheduler: &'a Scheduler,
    watch: Option<Watch>,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            self.scheduler.view().watch = Some(watch);
        }
    }
}

fn is_mark(key: &Key) -> bool {
    rack_id(key).starts_with(MARK)
}

/// Takes in what a watch told.
fn take_in(view: &mut View, change: Change) {
    view.seen = view.seen.max(change.revision());
    match change {
        Change::Put(entry) if is_mark(&entry.key) => {}
        // what this scheduler wrote comes back: nothing new
        Change::Put(entry) if view.knows(rack_id(&entry.key), entry.revision) => {}
        Change::Put(entry) => match read_rack(&entry) {
            Ok(record) => view.apply(rack_id(&entry.key), entry.revision, record),
            Err(error) => tracing::warn!(%error, "a rack is left out"),
        },
        Change::Deleted { key, revision } => view.forget(rack_id(&key), revision),
    }
}

impl Scheduler {
    /// Takes in what changed since; the first time, everything.
    ///
    /// # Errors
    /// When the state can't be read.
    pub async fn refresh(&self) -> Result<()> {
        if !self.view().loaded {
            return self.read_all().await;
        }
        let mut guard = self.view();
        let Some(mut watch) = guard.watch.take() else {
            return Ok(());
        };
        // what is there already is taken; nothing is waited for
        let alive = loop {
            match watch.next().now_or_never() {
                None => break true,
                Some(Some(Ok(change))) => take_in(&mut guard, change),
                Some(Some(Err(error))) => {
                    tracing::debug!(%error, "the watch ended; everything is read again");
                    break false;
                }
                Some(None) => break false,
            }
        };
        match alive {
            true => guard.watch = Some(watch),
            false => guard.loaded = false,
        }
        Ok(())
    }

    /// Brings the view up to everything that was written before this call.
    ///
    /// # Errors
    /// When the state can't be read.
    pub(super) async fn catch_up(&self) -> Result<()> {
        self.refresh().await?;
        if self.view().watch.is_some()
            && let Some(revision) = self.leave_mark().await
            && self.told_up_to(revision).await
        {
            return Ok(());
        }
        self.read_all().await
    }

    /// Writes this scheduler's mark; `None` when that can't be, and then everything is read.
    async fn leave_mark(&self) -> Option<u64> {
        let key = Key::new(format!("{RACKS}/{MARK}{}", self.host)).ok()?;
        let written = self.state.put(&key, Bytes::from_static(b"{}")).await;
        written
            .inspect_err(|error| tracing::debug!(%error, "no mark; everything is read"))
            .ok()
    }

    /// Waits until the watch has told everything up to a revision; false when it doesn't.
    async fn told_up_to(&self, revision: u64) -> bool {
        let _turn = self.following.lock().await;
        let mut loan = Loan {
            scheduler: self,
            watch: None,
        };
        loop {
            {
                let mut view = self.view();
                if view.seen >= revision {
                    return true;
                }
                loan.watch = loan.watch.take().or_else(|| view.watch.take());
            }
            let Some(watch) = &mut loan.watch else { return false };
            match tokio::time::timeout(SILENCE_MAX, watch.next()).await {
                Ok(Some(Ok(change))) => take_in(&mut self.view(), change),
                Ok(ended) => {
                    tracing::debug!(?ended, "the watch ended; everything is read again");
                    loan.watch = None;
                    self.view().loaded = false;
                    return false;
                }
                Err(_silent) => return false,
            }
        }
    }

    /// Reads every rack's record.
    pub(super) async fn read_all(&self) -> Result<()> {
        let prefix = Prefix::below(&Key::new(RACKS)?);
        if let Ok(watch) = self.state.watch(&prefix, 0).await
            && self.read_by(watch).await
        {
            return Ok(());
        }
        self.list_all().await
    }

    /// Reads every record through a watch from the beginning: one stream, where a list would ask for each. False when that fails.
    async fn read_by(&self, mut watch: Watch) -> bool {
        let Some(revision) = self.leave_mark().await else {
            return false;
        };
        let (mut told, mut seen) = (BTreeSet::new(), 0);
        while seen < revision {
            match tokio::time::timeout(SILENCE_MAX, watch.next()).await {
                Ok(Some(Ok(change))) => {
                    seen = seen.max(change.revision());
                    if let Change::Put(entry) = &change {
                        told.insert(rack_id(&entry.key).to_owned());
                    }
                    take_in(&mut self.view(), change);
                }
                ended => {
                    tracing::debug!(?ended, "racks can't be followed; they are listed");
                    return false;
                }
            }
        }
        let mut view = self.view();
        // what was taken in from elsewhere meanwhile is newer than the mark, and there
        let gone = |(id, (at, _)): (&String, &(u64, _))| (!told.contains(id) && *at < revision).then(|| id.clone());
        let gone: Vec<String> = view.racks().iter().filter_map(gone).collect();
        gone.iter().for_each(|id| view.remove(id));
        view.watch = Some(watch);
        view.loaded = true;
        true
    }

    /// Lists every record. What changes later is told by a watch from the beginning; where there are no watches, lost
    /// compare-and-sets bring the view up to date.
    async fn list_all(&self) -> Result<()> {
        let prefix = Prefix::below(&Key::new(RACKS)?);
        let entries = all(&*self.state, RACKS).await?;
        let watch = self.state.watch(&prefix, 0).await.ok();
        let mut view = self.view();
        let there: BTreeSet<&str> = entries.iter().map(|e| rack_id(&e.key)).collect();
        let known = view.racks().keys();
        let gone: Vec<String> = known.filter(|id| !there.contains(id.as_str())).cloned().collect();
        gone.iter().for_each(|id| view.remove(id));
        for entry in entries.iter().filter(|e| !is_mark(&e.key)) {
            match read_rack(entry) {
                Ok(record) => view.apply(rack_id(&entry.key), entry.revision, record),
                Err(error) => tracing::warn!(%error, "a rack is left out"),
            }
        }
        view.watch = watch;
        view.loaded = true;
        Ok(())
    }
}
