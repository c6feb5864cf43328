//! What a delivered message means, by the record of its job.

use jobs::Worker;
use wire::job::JobState;

use super::records::Kept;

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivered {
    /// The job waits: take it.
    Take,
    /// A person asked for the ended job again: take it anew.
    Retry,
    /// Its worker is gone for certain: take it from there.
    TakeOver,
    /// Its worker may be gone: watch the record.
    Watch,
    /// This process has it; the servers forgot that it said so.
    Mine,
    /// This process took it and never learned so: every answer was lost. Nothing was begun: take it anew.
    Unlearned,
    /// Nothing more to do: acknowledge it.
    Drop,
}

/// A message: its place in the stream, which retry of its job it is, and whether this process has the job in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) sequence: u64,
    pub(super) retries: u32,
    pub(super) in_hand: bool,
}

pub(super) fn decide(kept: Option<&Kept>, arrived: Arrived, worker: &Worker) -> Delivered {
    let Some(kept) = kept else {
        return Delivered::Take;
    };
    let record = &kept.record;
    if record.job.state.is_final() {
        return match arrived.retries > record.retries {
            true => Delivered::Retry,
            false => Delivered::Drop,
        };
    }
    if arrived.retries != record.retries {
        // of another life of the job; the one that it has now has its own message
        return Delivered::Drop;
    }
    if record.job.state != JobState::Running {
        return Delivered::Take;
    }
    if kept.message != arrived.sequence {
        // a second message of the job; the first one answers for it
        return Delivered::Drop;
    }
    if record.is_held_by(worker) {
        return match arrived.in_hand {
            true => Delivered::Mine,
            false => Delivered::Unlearned,
        };
    }
    match record.was_left_by(worker) {
        true => Delivered::TakeOver,
        false => Delivered::Watch,
    }
}

#[cfg(test)]
mod tests {
    use jobs::{NewJob, Now, Outcome, Record, Target};
    use wire::HostId;
    use wire::job::JobId;

    use super::*;

    fn worker(host: &str, boot: &str) -> Worker {
        Worker {
            host: HostId::new(host).unwrap(),
            boot: boot.into(),
        }
    }

    fn now() -> Now {
        Now {
            ms: 1,
            text: "now".into(),
        }
    }

    fn kept() -> Kept {
        let new = NewJob {
            concern: "mill".into(),
            kind: "grind".into(),
            request_id: None,
            traceparent: None,
            target: Target::Any,
            request: serde_json::json!(1),
        };
        Kept {
            record: Record::accepted(JobId("1".into()), new, &now()),
            message: 7,
            beats: 0,
        }
    }

    #[test]
    fn messages_mean_what_the_record_says() {
        use Delivered::{Drop, Mine, Retry, Take, TakeOver, Unlearned, Watch};
        let a = worker("a", "1");
        let queued = kept();
        let mut running = kept();
        let ticket = running.record.take(&a, &now()).unwrap();
        let mut interrupted = running.clone();
        interrupted.record.lapse("gone", 9, &now());
        let mut done = running.clone();
        let outcome = Outcome::Done(serde_json::json!(1));
        done.record.finish(&ticket, outcome, &now()).unwrap();
        let mut dead = running.clone();
        dead.record.lapse("gone", 1, &now());
        let mut again = dead.clone();
        again.record.retry(&now()).unwrap();
        let table = [
            (None, 7, 0, &a, Take),
            (Some(&queued), 7, 0, &a, Take),
            (Some(&queued), 9, 0, &a, Take),
            (Some(&interrupted), 7, 0, &a, Take),
            (Some(&interrupted), 9, 0, &a, Take),
            (Some(&running), 7, 0, &a, Mine),
            (Some(&running), 7, 0, &worker("a", "2"), TakeOver),
            (Some(&running), 7, 0, &worker("b", "1"), Watch),
            (Some(&running), 9, 0, &worker("b", "1"), Drop),
            (Some(&done), 7, 0, &a, Drop),
            (Some(&done), 9, 0, &a, Drop),
            (Some(&dead), 7, 0, &a, Drop),
            (Some(&dead), 9, 1, &a, Retry),
            (Some(&again), 9, 1, &a, Take),
            (Some(&again), 7, 0, &a, Drop),
            (Some(&running), 9, 1, &a, Drop),
        ];
        for (n, (kept, sequence, retries, worker, expected)) in table.into_iter().enumerate() {
            for in_hand in [true, false] {
                let arrived = Arrived {
                    sequence,
                    retries,
                    in_hand,
                };
                let expected = match expected {
                    Mine if !in_hand => Unlearned,
                    other => other,
                };
                assert_eq!(decide(kept, arrived, worker), expected, "row {n}, in hand {in_hand}");
            }
        }
    }
}
