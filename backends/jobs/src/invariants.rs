//! What never happens to a job's record, as functions: debug builds of production check each write, and the simulation each
//! write of every host.

use wire::job::JobState;

use crate::{Record, Worker};

/// What is wrong with `after` as the record that follows `before` (`None`: the job has none yet), written by `writer` where
/// that is known. `None` when it may follow.
///
/// * A job stays what it was asked for.
/// * Attempts and retries are counted up, one at a time: an attempt begins with a taker, a retry with an ended job.
/// * One attempt has one holder, and only the holder ends it as `done` or `failed`.
/// * What has ended stays as it ended, until somebody asks for it again.
pub fn misstep(before: Option<&Record>, after: &Record, writer: Option<&Worker>) -> Option<String> {
    let wrong = match before {
        None => first(after),
        Some(before) => is_another(before, after)
            .or_else(|| counted_wrongly(before, after))
            .or_else(|| match after.job.attempts == before.job.attempts {
                true => within_attempt(before, after, writer),
                false => None,
            }),
    };
    wrong.map(|why| format!("job {}: {why}", after.job.id))
}

fn first(after: &Record) -> Option<String> {
    let fine = match after.job.state {
        JobState::Queued | JobState::Cancelled => after.job.attempts == 0,
        JobState::Running => after.job.attempts > 0,
        // nobody stands behind it, whatever it says of itself
        JobState::Dead => true,
        _ => false,
    };
    (!fine).then(|| format!("begins as {:?}, attempt {}", after.job.state, after.job.attempts))
}

fn is_another(before: &Record, after: &Record) -> Option<String> {
    let (b, a) = (&before.job, &after.job);
    let same = b.id == a.id
        && b.concern == a.concern
        && b.kind == a.kind
        && b.request_id == a.request_id
        && b.target == a.target
        && b.request == a.request;
    (!same).then(|| "is another job now".to_owned())
}

fn counted_wrongly(before: &Record, after: &Record) -> Option<String> {
    let (b, a) = (&before.job, &after.job);
    if after.retries != before.retries && !(after.retries == before.retries + 1 && b.state.is_final()) {
        return Some(format!(
            "retry {} of a job that is {:?} in its retry {}",
            after.retries, b.state, before.retries
        ));
    }
    match a.attempts.checked_sub(b.attempts) {
        Some(0) => None,
        Some(1) if a.state == JobState::Running => None,
        _ => Some(format!(
            "from attempt {} ({:?}) to attempt {} ({:?})",
            b.attempts, b.state, a.attempts, a.state
        )),
    }
}

fn within_attempt(before: &Record, after: &Record, writer: Option<&Worker>) -> Option<String> {
    let (b, a) = (&before.job, &after.job);
    let again = after.retries != before.retries;
    let steps = || format!("from {:?} to {:?} within attempt {}", b.state, a.state, a.attempts);
    match (b.state, a.state) {
        (_, JobState::Queued) if again => None,
        _ if again => Some(format!("asked for again, and goes {}", steps())),
        (from, to) if from.is_final() => {
            (from != to || before.ended_ms != after.ended_ms).then(|| format!("has ended, and goes {}", steps()))
        }
        (JobState::Running, JobState::Running) => {
            let same = b.host == a.host && before.boot == after.boot;
            (!same).then(|| format!("attempt {} has a second holder", a.attempts))
        }
        (JobState::Running, JobState::Done | JobState::Failed) => {
            let theirs = writer.is_some_and(|writer| !before.is_held_by(writer));
            theirs.then(|| format!("attempt {} is ended by {writer:?}, who doesn't hold it", a.attempts))
        }
        (JobState::Running, _) => None,
        (_, JobState::Cancelled | JobState::Dead) => None,
        (JobState::Interrupted, JobState::Interrupted | JobState::Failed) => None,
        (JobState::Queued, JobState::Queued) => None,
        _ => Some(format!("goes {}", steps())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wire::HostId;
    use wire::job::JobId;

    use super::*;
    use crate::{NewJob, Now, Outcome, Target};

    fn worker(host: &str) -> Worker {
        Worker {
            host: HostId::new(host).unwrap(),
            boot: "1".into(),
        }
    }

    fn now(ms: u64) -> Now {
        Now {
            ms,
            text: ms.to_string(),
        }
    }

    fn queued() -> Record {
        let new = NewJob {
            concern: "mill".into(),
            kind: "grind".into(),
            request_id: None,
            traceparent: None,
            target: Target::Any,
            request: json!(1),
        };
        Record::accepted(JobId("1".into()), new, &now(1))
    }

    #[test]
    fn the_rules_of_a_record_never_misstep() {
        let (a, b) = (worker("a"), worker("b"));
        let mut record = queued();
        assert_eq!(misstep(None, &record, None), None);
        let step = |record: &mut Record, writer: Option<&Worker>, change: &dyn Fn(&mut Record)| {
            let before = record.clone();
            change(record);
            assert_eq!(misstep(Some(&before), record, writer), None);
        };
        step(&mut record, Some(&a), &|r| drop(r.take(&a, &now(2)).unwrap()));
        step(&mut record, Some(&b), &|r| {
            r.lapse("silent", 5, &now(3));
            r.take(&b, &now(3)).unwrap();
        });
        let ticket = crate::Ticket {
            job: record.job.id.clone(),
            attempt: 2,
            worker: b.clone(),
            resumed: true,
        };
        step(&mut record, Some(&b), &|r| {
            r.finish(&ticket, Outcome::Done(json!(1)), &now(4)).unwrap();
        });
        step(&mut record, None, &|r| r.cancel(&now(5)));
        step(&mut record, None, &|r| r.lapse("late", 5, &now(6)));
    }

    #[test]
    fn missteps_are_seen() {
        let (a, b) = (worker("a"), worker("b"));
        let mut running = queued();
        let ticket = running.take(&a, &now(2)).unwrap();
        let mut done = running.clone();
        done.finish(&ticket, Outcome::Done(json!(1)), &now(3)).unwrap();
        let mut taken_twice = queued();
        taken_twice.take(&b, &now(2)).unwrap();
        let mut skipped = running.clone();
        skipped.job.attempts = 3;
        let mut retried = running.clone();
        retried.retries = 1;
        let mut other = running.clone();
        other.job.request = json!(2);
        let table = [
            ("ended anew", Some(&done), &running, None),
            ("a second holder", Some(&running), &taken_twice, None),
            ("somebody else's end", Some(&running), &done, Some(&b)),
            ("an attempt left out", Some(&running), &skipped, None),
            ("a retry of what runs", Some(&running), &retried, None),
            ("another request", Some(&running), &other, None),
            ("begun at its end", None, &done, None),
            ("done before it ran", Some(&queued()), &done, None),
        ];
        for (what, before, after, writer) in table {
            assert!(misstep(before, after, writer).is_some(), "{what}");
        }
    }
}
