//! How the view follows the state: everything once by listing, after that what a watch tells. The watch begins at a mark that is
//! written before the listing, so what changes while it is listed is told again, and nothing is missed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use state::{Change, Entry, Key, LIST_ENTRIES_MAX, Prefix};

use super::Broker;
use super::desk::{Desk, Known, Opaque};
use super::records::{ROOT, parts, read};
use crate::Result;
use crate::core::ledger::{Apart, Booking, ClusterRecord, PolicyRecord, StockHead, StockPart};
use crate::core::policy::Policy;

/// How long a watch may tell nothing while its broker waits for its mark.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// True when a value is newer than what is known; then it is to be taken in.
fn is_newer<T>(known: Option<&Known<T>>, revision: u64) -> bool {
    known.is_none_or(|(at, _)| *at < revision)
}

/// A watch on loan: given back also when whoever waits is dropped.
struct Loan<'a> {
    broker: &'a Broker,
    watch: Option<Opaque>,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            self.broker.desk().watch = Some(watch);
        }
    }
}

impl Desk {
    /// Takes in what a watch told.
    fn told(&mut self, change: Change, now_ms: u64) {
        self.seen = self.seen.max(change.revision());
        match change {
            Change::Put(entry) => self.take_in(&entry, now_ms),
            Change::Deleted { key, revision } => self.forget(&key, revision),
        }
    }
    /// Takes in an entry of the state. One that can't be read is left out, and said.
    pub(super) fn take_in(&mut self, entry: &Entry, now_ms: u64) {
        if let Err(error) = self.taken_in(entry, now_ms) {
            tracing::warn!(%error, "a record is left out");
        }
    }
    fn taken_in(&mut self, entry: &Entry, now_ms: u64) -> Result<()> {
        let Some((kind, tenant, name)) = parts(&entry.key) else {
            return Ok(());
        };
        let revision = entry.revision;
        if kind == "marks" || kind == "reading" {
            return Ok(());
        }
        let tenant = self.tenant_or_new(tenant);
        let name = name.to_owned();
        match kind {
            "stock" if is_newer(tenant.stock.get(&name), revision) => {
                let part: StockPart = read(entry)?;
                let machines = part.machines.into_iter().map(Arc::new).collect();
                tenant.stock.insert(name, (revision, machines));
                tenant.is_stale = true;
            }
            "heads" if is_newer(tenant.heads.get(&name), revision) => {
                let head: StockHead = read(entry)?;
                tenant.heads.insert(name, (revision, head));
            }
            "bookings" if is_newer(tenant.bookings.get(&name), revision) => {
                let booking: Booking = read(entry)?;
                tenant.bookings.insert(name.clone(), (revision, booking.cluster));
                tenant.changed(&name);
                tenant.seen_ms.insert(format!("b/{name}"), (revision, now_ms));
            }
            "apart" if is_newer(tenant.apart.get(&name), revision) => {
                let apart: Apart = read(entry)?;
                tenant.apart.insert(name.clone(), (revision, apart.why));
                tenant.changed(&name);
            }
            "clusters" if is_newer(tenant.clusters.get(&name), revision) => {
                let record: ClusterRecord = read(entry)?;
                tenant.seen_ms.insert(format!("c/{name}"), (revision, now_ms));
                tenant.clusters.insert(name, (revision, record));
            }
            "policies" => {
                let record: PolicyRecord = read(entry)?;
                let policy = Arc::new(Policy::read(&record.text)?);
                tenant.set_policy(revision, Some(policy));
            }
            _ => {}
        }
        Ok(())
    }
    /// Takes in that a key has gone.
    pub(super) fn forget(&mut self, key: &Key, revision: u64) {
        let Some((kind, tenant, name)) = parts(key) else { return };
        let Some(tenant) = self.tenants.get_mut(tenant) else {
            return;
        };
        match kind {
            "stock" if tenant.stock.get(name).is_some_and(|(at, _)| *at < revision) => {
                tenant.stock.remove(name);
                tenant.is_stale = true;
            }
            "heads" if tenant.heads.get(name).is_some_and(|(at, _)| *at < revision) => {
                tenant.heads.remove(name);
            }
            "bookings" if tenant.bookings.get(name).is_some_and(|(at, _)| *at < revision) => {
                tenant.bookings.remove(name);
                tenant.seen_ms.remove(&format!("b/{name}"));
                tenant.changed(name);
            }
            "apart" if tenant.apart.get(name).is_some_and(|(at, _)| *at < revision) => {
                tenant.apart.remove(name);
                tenant.changed(name);
            }
            "clusters" if tenant.clusters.get(name).is_some_and(|(at, _)| *at < revision) => {
                tenant.clusters.remove(name);
                tenant.seen_ms.remove(&format!("c/{name}"));
            }
            "policies" => tenant.set_policy(revision, None),
            _ => {}
        }
    }
}

impl Broker {
    /// Takes in what changed since; the first time, everything.
    ///
    /// # Errors
    /// When the state can't be read.
    pub async fn refresh(&self) -> Result<()> {
        if !self.desk().is_loaded {
            return self.read_all().await;
        }
        let now_ms = self.clock.now_ms();
        let mut desk = self.desk();
        let Some(mut watch) = desk.watch.take() else {
            return Ok(());
        };
        let alive = loop {
            match watch.0.next().now_or_never() {
                None => break true,
                Some(Some(Ok(change))) => desk.told(change, now_ms),
                Some(Some(Err(error))) => {
                    tracing::debug!(%error, "the watch ended; everything is read again");
                    break false;
                }
                Some(None) => break false,
            }
        };
        match alive {
            true => desk.watch = Some(watch),
            false => desk.is_loaded = false,
        }
        Ok(())
    }

    /// Brings the view up to everything that was written before this call: writes a mark and waits until the watch tells it, for
    /// changes are told in the order of their revisions.
    ///
    /// # Errors
    /// When the state can't be read.
    pub(super) async fn catch_up(&self) -> Result<()> {
        self.refresh().await?;
        let mark = Key::new(format!("{ROOT}/marks/{}", self.host))?;
        let revision = self.state.put(&mark, Bytes::from_static(b"{}")).await?;
        if self.told_up_to(revision).await {
            return Ok(());
        }
        self.desk().is_loaded = false;
        self.read_all().await
    }

    /// Waits until the watch has told everything up to a revision; false when it doesn't.
    async fn told_up_to(&self, revision: u64) -> bool {
        let _turn = self.following.lock().await;
        let mut loan = Loan {
            broker: self,
            watch: None,
        };
        loop {
            {
                let mut desk = self.desk();
                if desk.seen >= revision {
                    return true;
                }
                loan.watch = loan.watch.take().or_else(|| desk.watch.take());
            }
            let Some(watch) = &mut loan.watch else { return false };
            match tokio::time::timeout(SILENCE_MAX, watch.0.next()).await {
                Ok(Some(Ok(change))) => self.desk().told(change, self.clock.now_ms()),
                Ok(ended) => {
                    tracing::debug!(?ended, "the watch ended; everything is read again");
                    loan.watch = None;
                    return false;
                }
                Err(_silent) => return false,
            }
        }
    }

    async fn read_all(&self) -> Result<()> {
        let _turn = self.loading.lock().await;
        if self.desk().is_loaded {
            return Ok(());
        }
        let mark = Key::new(format!("{ROOT}/marks/{}", self.host))?;
        let revision = self.state.put(&mark, Bytes::from_static(b"{}")).await?;
        let prefix = Prefix::below(&Key::new(ROOT)?);
        let mut fresh = Desk::default();
        let mut after = None;
        loop {
            let page = self.state.list(&prefix, after.as_ref(), LIST_ENTRIES_MAX).await?;
            let now_ms = self.clock.now_ms();
            for entry in &page {
                fresh.take_in(entry, now_ms);
            }
            match page.last() {
                Some(last) => after = Some(last.key.clone()),
                None => break,
            }
        }
        let watch = self.state.watch(&prefix, revision).await?;
        for tenant in fresh.tenants.values_mut() {
            tenant.is_stale = true;
        }
        let mut desk = self.desk();
        // what this broker holds for claims under way isn't in the state yet
        for (name, tenant) in &mut fresh.tenants {
            if let Some(old) = desk.tenants.remove(name) {
                tenant.seen_ms.extend(old.seen_ms);
                let holds = old.bookings.into_iter().filter(|(_, (revision, _))| *revision == 0);
                for (machine, hold) in holds {
                    tenant.bookings.entry(machine).or_insert(hold);
                }
            }
        }
        fresh.watch = Some(Opaque(watch));
        fresh.is_loaded = true;
        fresh.seen = revision;
        *desk = fresh;
        Ok(())
    }
}
