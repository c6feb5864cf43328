//! What this host hears of the others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use planted::Fault;
use state::{Change, Entry, Key, Prefix};
use wire::HostId;
use wire::hosts::{HostBeat, HostLost, HostOrder};

use super::core::{LostMark, Overdue};
use super::{BEATS, Hosts, LOST, ORDERS, key};

/// After a watch that failed it is begun again after this long, in milliseconds.
const WATCH_AGAIN_MS: u64 = 500;
/// How often it is looked for lost hosts, as a part of a beat.
const LOOKS_PER_BEAT: u64 = 4;

/// Keeps the book up to date.
pub(crate) async fn follow(hosts: Arc<Hosts>) {
    let mut after = 0;
    loop {
        tokio::select! {
            biased;
            () = hosts.ending.cancelled() => return,
            () = follow_from(&hosts, &mut after) => {}
        }
        tokio::time::sleep(Duration::from_millis(WATCH_AGAIN_MS)).await;
    }
}

async fn follow_from(hosts: &Hosts, after: &mut u64) {
    let Ok(root) = Key::new("hosts") else { return };
    let mut changes = match hosts.state.watch(&Prefix::below(&root), *after).await {
        Ok(changes) => changes,
        Err(e) => return tracing::warn!(error = %e, "the hosts can't be watched now; trying again"),
    };
    while let Some(change) = changes.next().await {
        match change {
            Ok(change) => {
                *after = change.revision();
                take_in(hosts, change);
            }
            Err(e) => {
                if e.kind == state::Kind::Compacted {
                    *after = 0;
                }
                return tracing::debug!(error = %e, "the watch of the hosts ended; beginning again");
            }
        }
    }
}

/// The host that a key below `below` names.
fn named(key: &Key, below: &str) -> Option<HostId> {
    let name = key.as_str().strip_prefix(below)?.strip_prefix('/')?;
    HostId::new(name).ok()
}

fn take_in(hosts: &Hosts, change: Change) {
    match change {
        Change::Put(entry) => take_in_entry(hosts, &entry),
        Change::Deleted { key, revision } => {
            if let Some(host) = named(&key, BEATS) {
                hosts.book().forget(&host);
            }
            if let Some(host) = named(&key, ORDERS) {
                hosts.book().order(host, HostOrder::Serve, revision);
                hosts.ordered.notify_one();
            }
        }
    }
}

fn take_in_entry(hosts: &Hosts, entry: &Entry) {
    let now_ms = hosts.clock.monotonic_ms();
    if named(&entry.key, BEATS).is_some() {
        match serde_json::from_slice::<HostBeat>(&entry.value) {
            Ok(beat) => hosts.book().hear(beat, now_ms),
            Err(e) => tracing::warn!(key = %entry.key, error = %e, "a beat can't be read"),
        }
    } else if let Some(host) = named(&entry.key, ORDERS) {
        match serde_json::from_slice::<HostOrder>(&entry.value) {
            Ok(order) => hosts.book().order(host, order, entry.revision),
            Err(e) => tracing::warn!(key = %entry.key, error = %e, "an order can't be read"),
        }
        hosts.ordered.notify_one();
    } else if let Some(host) = named(&entry.key, LOST)
        && let Ok(mark) = serde_json::from_slice::<LostMark>(&entry.value)
    {
        hosts.book().mark_lost(host, mark);
    }
}

/// Writes down who is lost; the first to do so tells everyone.
pub(crate) async fn look_for_the_lost(hosts: Arc<Hosts>) {
    let every = Duration::from_millis((hosts.options.beat_every_ms / LOOKS_PER_BEAT).max(10));
    loop {
        tokio::select! {
            biased;
            () = hosts.ending.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let overdue = hosts.book().overdue(hosts.clock.monotonic_ms());
        for lost in overdue.into_iter().filter(|lost| lost.host != *hosts.host()) {
            match declare(&hosts, &lost).await {
                Ok(true) => {
                    tracing::warn!(host = %lost.host, silent_ms = lost.silent_ms, "host lost");
                    let lost = HostLost {
                        host: lost.host,
                        boot: lost.mark.boot,
                        silent_ms: lost.silent_ms,
                        jobs_running: lost.jobs_running,
                    };
                    hosts.desk.announcer.announce(lost).await;
                }
                Ok(false) => {}
                Err(e) => tracing::debug!(host = %lost.host, error = %e, "a lost host was not written down yet"),
            }
        }
    }
}

/// True when this host was the first to say so.
async fn declare(hosts: &Hosts, lost: &Overdue) -> state::Result<bool> {
    // the silence may be our own: what stands there now decides
    let Some(entry) = hosts.state.get(&key(BEATS, &lost.host)?).await? else {
        hosts.book().forget(&lost.host);
        return Ok(false);
    };
    if let Ok(beat) = serde_json::from_slice::<HostBeat>(&entry.value)
        && !planted::is(Fault::LostUnlooked)
        && (&beat.boot, beat.count) != (&lost.mark.boot, lost.mark.count)
    {
        hosts.book().hear(beat, hosts.clock.monotonic_ms());
        return Ok(false);
    }
    let at = key(LOST, &lost.host)?;
    let known = hosts.state.get(&at).await?;
    if let Some(known) = &known
        && let Ok(mark) = serde_json::from_slice::<LostMark>(&known.value)
        && mark == lost.mark
    {
        hosts.book().mark_lost(lost.host.clone(), mark);
        return Ok(false);
    }
    let value = Bytes::from(serde_json::to_vec(&lost.mark).unwrap_or_default());
    let written = match known {
        Some(known) => hosts.state.update(&at, value, known.revision).await,
        None => hosts.state.create(&at, value).await,
    };
    match written {
        Ok(_) => {
            hosts.book().mark_lost(lost.host.clone(), lost.mark.clone());
            Ok(true)
        }
        // somebody else was first
        Err(e) if matches!(e.kind, state::Kind::Conflict | state::Kind::NotFound) => Ok(false),
        Err(e) => Err(e),
    }
}
