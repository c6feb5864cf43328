//! This host's heartbeat, its lease on its id, and its obedience to orders.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use planted::Fault;
use tokio::task::JoinHandle;
use wire::hosts::{HostBeat, HostOrder, HostState};
use wire::{Code, ErrorBody};

use super::core::{BEATS_MISSED_MAX, state_under};
use super::{BEATS, Hosts, LEASES, ORDERS, key, unreadable, watch};
use crate::Admission;

/// How often a daemon whose id is taken looks whether it is free, in milliseconds.
const LOOK_EVERY_MS: u64 = 200;
/// How often a draining host looks whether its jobs have ended, in milliseconds.
const DRAIN_LOOK_EVERY_MS: u64 = 100;
/// The last beat may take this long, in milliseconds.
const LAST_BEAT_TIMEOUT_MS: u64 = 2_000;

/// The tasks of a host that beats; they end with it.
#[derive(Debug)]
pub(crate) struct Beating {
    hosts: Arc<Hosts>,
    tasks: Vec<JoinHandle<()>>,
}

impl Beating {
    /// Takes the host's id, obeys its standing order, beats once, and goes on beating and watching.
    ///
    /// # Errors
    /// `conflict` when another process has the id and lives; what the state says.
    pub(crate) async fn start(hosts: Arc<Hosts>) -> Result<Self, ErrorBody> {
        hosts.take_id().await?;
        let (order, revision) = hosts.standing_order().await?;
        hosts.book().order(hosts.host().clone(), order, revision);
        hosts.obey(order);
        hosts.beat(hosts.present_state()).await?;
        hosts.announce_host(hosts.host()).await;
        let tasks = vec![
            tokio::spawn(beat_on(hosts.clone())),
            tokio::spawn(follow_orders(hosts.clone())),
            tokio::spawn(watch::follow(hosts.clone())),
            tokio::spawn(watch::look_for_the_lost(hosts.clone())),
        ];
        Ok(Self { hosts, tasks })
    }

    /// The last beat says that the host ended in good order; its id is free.
    pub(crate) async fn stop(&self) {
        self.hosts.ending.cancel();
        if self.hosts.evicted.is_cancelled() {
            return;
        }
        let last = async {
            if let Err(e) = self.hosts.beat(HostState::Stopped).await {
                tracing::warn!(error = %e, "the others were not told that this host ends; they will count it as lost");
            }
            self.hosts.announce_host(self.hosts.host()).await;
            if let Ok(lease) = key(LEASES, self.hosts.host()) {
                let _ends_by_itself = self.hosts.state.release(&lease, &self.hosts.desk.worker.boot).await;
            }
        };
        let _in_time = tokio::time::timeout(Duration::from_millis(LAST_BEAT_TIMEOUT_MS), last).await;
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.hosts.ending.cancel();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Hosts {
    fn lease_ms(&self) -> u64 {
        self.options.beat_every_ms.saturating_mul(BEATS_MISSED_MAX).max(1_000)
    }

    /// One process a host id. Who has it keeps it as long as it beats; the lease of one that is gone ends by itself.
    async fn take_id(&self) -> Result<(), ErrorBody> {
        let lease = key(LEASES, self.host())?;
        let boot = &self.desk.worker.boot;
        if let Some(earlier) = &self.options.earlier_boot {
            let _free_or_not_its = self.state.release(&lease, earlier).await;
        }
        let patience_ms = self.lease_ms() + self.options.beat_every_ms + 1_000;
        let began_ms = self.clock.monotonic_ms();
        let seen = self.last_beat().await?;
        loop {
            let error = match self.state.lease(&lease, boot, self.lease_ms()).await {
                Ok(_) => return Ok(()),
                Err(e) if e.kind == state::Kind::Conflict && planted::is(Fault::IdTakenAnyway) => return Ok(()),
                Err(e) if e.kind == state::Kind::Conflict => e,
                Err(e) => return Err(e.into()),
            };
            let waited_ms = self.clock.monotonic_ms().saturating_sub(began_ms);
            if waited_ms >= patience_ms || self.last_beat().await? != seen {
                let message = format!(
                    "another windlass has the host id '{}' and lives ({error}); this one was not started",
                    self.host()
                );
                return Err(ErrorBody::new(Code::Conflict, message)
                    .hint("give each host an id of its own: --host-id, or host_id in its configuration"));
            }
            tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
        }
    }

    /// Boot and count of the last beat under this id.
    async fn last_beat(&self) -> Result<Option<(String, u64)>, ErrorBody> {
        let Some(entry) = self.state.get(&key(BEATS, self.host())?).await? else {
            return Ok(None);
        };
        let beat: HostBeat = serde_json::from_slice(&entry.value).map_err(unreadable)?;
        Ok(Some((beat.boot, beat.count)))
    }

    /// The order that stands, and the revision at which it was given.
    async fn standing_order(&self) -> Result<(HostOrder, u64), ErrorBody> {
        match self.state.get(&key(ORDERS, self.host())?).await? {
            Some(entry) => Ok((
                serde_json::from_slice(&entry.value).map_err(unreadable)?,
                entry.revision,
            )),
            None => Ok((HostOrder::Serve, 0)),
        }
    }

    fn obey(&self, order: HostOrder) {
        self.desk.set_admission(match order {
            HostOrder::Serve => Admission::All,
            HostOrder::Cordon => Admission::Own,
            HostOrder::Drain => Admission::Nothing,
        });
    }

    fn present_state(&self) -> HostState {
        state_under(self.book().order_of(self.host()), self.jobs_running())
    }

    async fn beat(&self, state: HostState) -> Result<(), ErrorBody> {
        let beat = HostBeat {
            host: self.host().clone(),
            boot: self.desk.worker.boot.clone(),
            count: self.beats.fetch_add(1, Ordering::SeqCst) + 1,
            beat_every_ms: self.options.beat_every_ms,
            state,
            jobs_running: self.jobs_running(),
            facts: self.options.facts.clone(),
        };
        let value = serde_json::to_vec(&beat)
            .map_err(|e| ErrorBody::new(Code::Internal, format!("the beat can't be encoded: {e}")))?;
        self.state.put(&key(BEATS, self.host())?, Bytes::from(value)).await?;
        self.book().hear(beat, self.clock.monotonic_ms());
        Ok(())
    }

    /// False when another process has the id.
    async fn renew_id(&self) -> Result<bool, ErrorBody> {
        let lease = key(LEASES, self.host())?;
        match self.state.lease(&lease, &self.desk.worker.boot, self.lease_ms()).await {
            Ok(_) => Ok(true),
            Err(e) if e.kind == state::Kind::Conflict => {
                tracing::error!(host = %self.host(), error = %e, "another windlass has this host's id; this one ends");
                Ok(false)
            }
            Err(e) => Err(e.into()),
        }
    }
}

async fn beat_on(hosts: Arc<Hosts>) {
    let every = Duration::from_millis(hosts.options.beat_every_ms);
    let mut said = hosts.present_state();
    let mut failed = false;
    loop {
        tokio::select! {
            biased;
            () = hosts.ending.cancelled() => return,
            () = tokio::time::sleep(every) => {}
            () = hosts.beat_now.notified() => {}
        }
        match hosts.renew_id().await {
            Ok(true) => {}
            Ok(false) => {
                // what runs here is another's business now
                hosts.desk.set_admission(Admission::Nothing);
                hosts.desk.leave_running();
                return hosts.evicted.cancel();
            }
            Err(e) if failed => tracing::debug!(error = %e, "the host's id was not renewed"),
            Err(e) => tracing::warn!(error = %e, "the host's id was not renewed; trying again"),
        }
        let state = hosts.present_state();
        let beaten = hosts.beat(state).await;
        match &beaten {
            Ok(()) if std::mem::replace(&mut said, state) != state => hosts.announce_host(hosts.host()).await,
            Ok(()) => {}
            Err(e) if failed => tracing::debug!(error = %e, "no beat"),
            Err(e) => tracing::warn!(error = %e, "this host's beat was not kept; trying again"),
        }
        failed = beaten.is_err();
    }
}

/// Does what this host was told, again and again.
async fn follow_orders(hosts: Arc<Hosts>) {
    let mut obeyed = hosts.book().order_of(hosts.host());
    let mut drain_began_ms = (obeyed == HostOrder::Drain).then(|| hosts.clock.monotonic_ms());
    loop {
        let look_again = Duration::from_millis(DRAIN_LOOK_EVERY_MS);
        tokio::select! {
            biased;
            () = hosts.ending.cancelled() => return,
            () = hosts.ordered.notified() => {}
            () = tokio::time::sleep(look_again), if drain_began_ms.is_some() => {}
        }
        let order = hosts.book().order_of(hosts.host());
        if std::mem::replace(&mut obeyed, order) != order {
            tracing::info!(?order, "told by a person");
            hosts.obey(order);
            drain_began_ms = (order == HostOrder::Drain).then(|| hosts.clock.monotonic_ms());
            hosts.beat_now.notify_one();
        }
        let Some(began_ms) = drain_began_ms else { continue };
        if hosts.jobs_running() == 0 {
            drain_began_ms = None;
            hosts.beat_now.notify_one();
            continue;
        }
        let drained_for = Duration::from_millis(hosts.clock.monotonic_ms().saturating_sub(began_ms));
        if drained_for >= hosts.drain_timeout() {
            hosts.desk.leave_running();
        }
    }
}
