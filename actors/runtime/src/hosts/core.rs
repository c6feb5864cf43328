//! What is known of the hosts, and what follows from it: no clock, no I/O. Times are the observer's own monotonic
//! milliseconds; no host's clock is compared with another's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wire::HostId;
use wire::hosts::{HostBeat, HostInfo, HostOrder, HostState};

/// A host that is silent for so many of its beats is lost.
pub(crate) const BEATS_MISSED_MAX: u64 = 3;

/// Which beat of a host was its last before it was lost; whoever writes it says so in an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LostMark {
    pub(crate) boot: String,
    pub(crate) count: u64,
}

/// A host that is silent for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overdue {
    pub(crate) host: HostId,
    pub(crate) mark: LostMark,
    pub(crate) silent_ms: u64,
    pub(crate) jobs_running: u64,
}

#[derive(Debug, Clone)]
struct Heard {
    beat: HostBeat,
    at_ms: u64,
}

/// What one host knows of all.
#[derive(Debug, Default)]
pub(crate) struct Book {
    heard: BTreeMap<HostId, Heard>,
    /// With the revision of the state at which each was given.
    orders: BTreeMap<HostId, (u64, HostOrder)>,
    lost: BTreeMap<HostId, LostMark>,
}

impl Book {
    /// A beat, heard at `now_ms`. One that was heard before is no sign of life.
    pub(crate) fn hear(&mut self, beat: HostBeat, now_ms: u64) {
        let is_new = self
            .heard
            .get(&beat.host)
            .is_none_or(|known| (&known.beat.boot, known.beat.count) != (&beat.boot, beat.count));
        if is_new {
            self.heard.insert(beat.host.clone(), Heard { beat, at_ms: now_ms });
        }
    }

    /// An order that was given at this revision. One that is told late changes nothing: whoever gave it may hear of it, through
    /// lost answers, after the watch has told the next one.
    pub(crate) fn order(&mut self, host: HostId, order: HostOrder, revision: u64) {
        let known = self.orders.entry(host).or_default();
        if known.0 <= revision {
            *known = (revision, order);
        }
    }

    pub(crate) fn order_of(&self, host: &HostId) -> HostOrder {
        self.orders.get(host).copied().unwrap_or_default().1
    }

    pub(crate) fn mark_lost(&mut self, host: HostId, mark: LostMark) {
        self.lost.insert(host, mark);
    }

    /// The host's inventory entry is gone.
    pub(crate) fn forget(&mut self, host: &HostId) {
        self.heard.remove(host);
        self.lost.remove(host);
    }

    fn is_marked(&self, beat: &HostBeat) -> bool {
        let mark = self.lost.get(&beat.host);
        mark.is_some_and(|m| m.boot == beat.boot && m.count == beat.count)
    }

    fn is_silent(heard: &Heard, now_ms: u64) -> bool {
        let silent_ms = now_ms.saturating_sub(heard.at_ms);
        heard.beat.state != HostState::Stopped && silent_ms >= heard.beat.beat_every_ms.saturating_mul(BEATS_MISSED_MAX)
    }

    /// Hosts that are lost and not marked so yet.
    pub(crate) fn overdue(&self, now_ms: u64) -> Vec<Overdue> {
        let silent = self
            .heard
            .values()
            .filter(|heard| Self::is_silent(heard, now_ms) && !self.is_marked(&heard.beat));
        silent
            .map(|heard| Overdue {
                host: heard.beat.host.clone(),
                mark: LostMark {
                    boot: heard.beat.boot.clone(),
                    count: heard.beat.count,
                },
                silent_ms: now_ms.saturating_sub(heard.at_ms),
                jobs_running: heard.beat.jobs_running,
            })
            .collect()
    }

    pub(crate) fn info(&self, host: &HostId, now_ms: u64) -> Option<HostInfo> {
        self.heard.get(host).map(|heard| self.seen(heard, now_ms))
    }

    pub(crate) fn all(&self, now_ms: u64) -> Vec<HostInfo> {
        self.heard.values().map(|heard| self.seen(heard, now_ms)).collect()
    }

    fn seen(&self, heard: &Heard, now_ms: u64) -> HostInfo {
        let beat = &heard.beat;
        let state = match self.is_marked(beat) || Self::is_silent(heard, now_ms) {
            true => HostState::Lost,
            false => beat.state,
        };
        HostInfo {
            host: beat.host.clone(),
            state,
            order: self.order_of(&beat.host),
            boot: beat.boot.clone(),
            silent_ms: now_ms.saturating_sub(heard.at_ms),
            beat_every_ms: beat.beat_every_ms,
            jobs_running: beat.jobs_running,
            facts: beat.facts.clone(),
        }
    }
}

/// What a host does with jobs under this order, with so many in hand.
pub(crate) fn state_under(order: HostOrder, jobs_running: u64) -> HostState {
    match (order, jobs_running) {
        (HostOrder::Serve, _) => HostState::Up,
        (HostOrder::Cordon, _) => HostState::Cordoned,
        (HostOrder::Drain, 0) => HostState::Drained,
        (HostOrder::Drain, _) => HostState::Draining,
    }
}

#[cfg(test)]
mod tests {
    use wire::hosts::HostFacts;

    use super::*;

    const EVERY_MS: u64 = 1_000;

    fn id(name: &str) -> HostId {
        HostId::new(name).unwrap()
    }

    fn beat(boot: &str, count: u64, state: HostState) -> HostBeat {
        HostBeat {
            host: id("a"),
            boot: boot.into(),
            count,
            beat_every_ms: EVERY_MS,
            state,
            jobs_running: 2,
            facts: HostFacts::sample(),
        }
    }

    fn mark(boot: &str, count: u64) -> LostMark {
        LostMark {
            boot: boot.into(),
            count,
        }
    }

    #[test]
    fn a_host_is_lost_after_three_silent_beats_and_not_before() {
        use HostState::{Cordoned, Draining, Lost, Stopped, Up};
        // heard at 0 in this state; at this time; is then, and is overdue
        let table = [
            (Up, 2_999, Up, false),
            (Up, 3_000, Lost, true),
            (Cordoned, 2_999, Cordoned, false),
            (Draining, 9_000, Lost, true),
            (Stopped, 1_000_000, Stopped, false),
        ];
        for (state, now_ms, expected, overdue) in table {
            let mut book = Book::default();
            book.hear(beat("1", 1, state), 0);
            assert_eq!(
                book.info(&id("a"), now_ms).unwrap().state,
                expected,
                "{state:?} at {now_ms}"
            );
            assert_eq!(!book.overdue(now_ms).is_empty(), overdue, "{state:?} at {now_ms}");
        }
    }

    #[test]
    fn only_a_new_beat_is_a_sign_of_life() {
        let mut book = Book::default();
        book.hear(beat("1", 7, HostState::Up), 0);
        book.hear(beat("1", 7, HostState::Up), 2_900);
        assert_eq!(
            book.overdue(3_000),
            [Overdue {
                host: id("a"),
                mark: mark("1", 7),
                silent_ms: 3_000,
                jobs_running: 2
            }]
        );
        book.hear(beat("1", 8, HostState::Up), 3_000);
        assert!(book.overdue(5_999).is_empty());
        // another process of it counts from the beginning
        book.hear(beat("2", 1, HostState::Up), 5_999);
        assert!(book.overdue(8_998).is_empty());
    }

    #[test]
    fn a_loss_is_told_once_and_over_with_the_next_beat() {
        let mut book = Book::default();
        book.hear(beat("1", 7, HostState::Up), 0);
        book.mark_lost(id("a"), mark("1", 7));
        assert!(book.overdue(9_000).is_empty());
        assert_eq!(
            book.info(&id("a"), 1).unwrap().state,
            HostState::Lost,
            "others saw it first"
        );
        book.hear(beat("1", 8, HostState::Up), 9_000);
        assert_eq!(book.info(&id("a"), 9_000).unwrap().state, HostState::Up);
        assert_eq!(book.overdue(12_000).len(), 1, "and it may be lost again");
        book.forget(&id("a"));
        assert!(book.all(12_000).is_empty());
    }

    #[test]
    fn orders_hold_whatever_the_host_says() {
        let mut book = Book::default();
        book.hear(beat("1", 1, HostState::Up), 0);
        for (n, order) in [HostOrder::Cordon, HostOrder::Drain, HostOrder::Serve]
            .into_iter()
            .enumerate()
        {
            book.order(id("a"), order, n as u64 + 1);
            let info = book.info(&id("a"), 0).unwrap();
            assert_eq!(
                (info.order, info.state),
                (order, HostState::Up),
                "it says so itself when it obeys"
            );
        }
        // found by the simulation (its seed 121): the drain was answered after the watch had told that it was taken back
        book.order(id("a"), HostOrder::Drain, 2);
        assert_eq!(book.order_of(&id("a")), HostOrder::Serve);
        assert_eq!(book.order_of(&id("b")), HostOrder::Serve);
        let table = [
            (HostOrder::Serve, 3, HostState::Up),
            (HostOrder::Cordon, 0, HostState::Cordoned),
            (HostOrder::Drain, 3, HostState::Draining),
            (HostOrder::Drain, 0, HostState::Drained),
        ];
        for (order, jobs, expected) in table {
            assert_eq!(state_under(order, jobs), expected);
        }
    }
}
