//! What clients and people do in a play, and what they make of the answers.

use std::time::Duration;

use jobs::Target;
use serde_json::json;
use wire::{Headers, HostId};

use super::host::Serving;
use super::racks::{self, Wish};
use super::run::{LOOK_EVERY_MS, Play, lock};
use super::world::{host_name, pause};

/// A client asks somebody else after this long, in milliseconds.
const CLIENT_PATIENCE_MS: u64 = 3_000;
/// How often a client asks.
const CLIENT_TRIES: usize = 4;
/// By how much the last sweep is later than anything that may be booked, in milliseconds.
const SWEEP_LATER_MS: i64 = 6 * 3_600_000;
/// Sweeps at the end.
const SWEEPS: u64 = 3;
/// How often it is tried to sweep at the end.
const SWEEPS_MAX: u64 = 60;

impl Play {
    /// A person says which racks there are.
    pub async fn load_racks(&self) {
        loop {
            for host in 0..self.0.plan.hosts {
                if let Some(serving) = self.serving(host)
                    && serving.racks.load(&racks::inventory()).await.is_ok()
                {
                    return self.world().note(|| "-- racks are loaded".to_owned());
                }
            }
            pause(LOOK_EVERY_MS).await;
        }
    }

    /// Nobody asks for anything any more. Whoever sweeps now finds every booking overdue, and what is left is whole.
    pub async fn look_at_racks(&self) {
        self.world().lock().skew_ms[0] += SWEEP_LATER_MS;
        let mut swept = 0;
        for _ in 0..SWEEPS_MAX {
            if let Some(serving) = self.serving(0) {
                swept += u64::from(serving.racks.sweep().await.is_ok());
            }
            pause(LOOK_EVERY_MS).await;
            if swept >= SWEEPS || self.wrong() {
                break;
            }
        }
        let known = std::mem::take(&mut *lock(&self.0.racks));
        let mut inner = self.world().lock();
        if let Some(wrong) = racks::wrong_at_the_end(&mut inner.server, &known).into_iter().next() {
            inner.watcher.say_wrong(wrong);
        }
        inner.watcher.counts.placed += known.placed.len() as u64;
    }

    pub async fn wish(&self, host: usize, wish: Wish) {
        let Some(serving) = self.serving(host) else { return };
        let id = {
            let mut known = lock(&self.0.racks);
            let (Wish::Grow { nth, .. } | Wish::Shrink { nth, .. } | Wish::Release { nth }) = &wish else {
                drop(known);
                return self.granted(&serving, &wish, None).await;
            };
            let Some(id) = known.placed.get(*nth as usize).cloned() else {
                return;
            };
            if let Wish::Release { .. } = &wish {
                known.let_go.insert(id.clone());
            }
            id
        };
        self.granted(&serving, &wish, Some(id)).await;
    }

    async fn granted(&self, serving: &Serving, wish: &Wish, id: Option<String>) {
        let granted = racks::grant(&serving.racks, wish, id);
        let placed = self.busy(serving.process, granted).await;
        let Some(id) = placed else { return };
        self.world().note(|| format!("-- told: {wish:?} is placement {id}"));
        let mut known = lock(&self.0.racks);
        if let Wish::Place {
            request_id: Some(request_id),
            ..
        } = wish
        {
            let named = known.named.entry(*request_id).or_insert_with(|| id.clone()).clone();
            if named != id {
                let why = format!("request p{request_id} is both placement {named} and {id}");
                self.world().lock().watcher.say_wrong(why);
            }
        }
        if !known.placed.contains(&id) {
            known.placed.push(id);
        }
    }

    /// A client that doesn't give up at once; with a request id it may ask again.
    pub async fn submit(&self, first: usize, request_id: Option<String>, on: Option<usize>, work_ms: u64) {
        let target = match on.map(|host| HostId::new(&host_name(host))) {
            Some(Ok(host)) => Target::Host(host),
            _ => Target::Any,
        };
        for n in 0..CLIENT_TRIES {
            let host = (first + n) % self.0.plan.hosts;
            if let Some(serving) = self.serving(host) {
                let (target, headers) = (
                    target.clone(),
                    Headers {
                        request_id: request_id.clone(),
                        ..Headers::default()
                    },
                );
                // what a server began goes on when its client has gone
                let asked = tokio::spawn(async move {
                    let request = json!({"work_ms": work_ms});
                    serving.house.submit("grind", request, headers, target).await
                });
                let patience = Duration::from_millis(CLIENT_PATIENCE_MS);
                if let Ok(Ok(Ok(accepted))) = tokio::time::timeout(patience, asked).await {
                    let at_ms = self.world().elapsed_ms();
                    let mut inner = self.world().lock();
                    let id = accepted.job.0.clone();
                    inner.note(at_ms, || format!("-- told: {request_id:?} is job {id}"));
                    inner
                        .watcher
                        .acknowledge(request_id.as_deref(), &id, accepted.duplicate, at_ms);
                    lock(&self.0.asked).push(accepted.job);
                    return;
                }
                if request_id.is_none() {
                    return;
                }
            }
            pause(LOOK_EVERY_MS).await;
        }
    }
}
