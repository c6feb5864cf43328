//! The whole life of a job as a golden table: what becomes of each state at each event.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;
use wire::job::JobId;
use wire::{Code, ErrorBody};

use super::{new, worker};
use crate::core::{Now, Record};
use crate::{Kind, Outcome, Result, Ticket};

const DELIVERIES_MAX: u32 = 2;

fn now() -> Now {
    Now {
        ms: 1,
        text: "2026-11-24T03:00:00Z".into(),
    }
}

fn why() -> ErrorBody {
    ErrorBody::new(Code::Unavailable, "why")
}

/// A record in each of its states, with the ticket that counts (or counted last).
fn states() -> Vec<(&'static str, Record, Ticket)> {
    let queued = Record::accepted(JobId("01J".into()), new(None), &now());
    let mut running = queued.clone();
    let ticket = running.take(&worker("1"), &now()).unwrap();
    let after = |change: &dyn Fn(&mut Record)| {
        let mut record = running.clone();
        change(&mut record);
        record
    };
    let finished = |outcome: Outcome| after(&|r| r.finish(&ticket, outcome.clone(), &now()).unwrap());
    let mut at_the_limit = after(&|r| r.lapse("silence", DELIVERIES_MAX, &now()));
    let last = at_the_limit.take(&worker("1"), &now()).unwrap();
    let mut dead = at_the_limit.clone();
    dead.lapse("silence", DELIVERIES_MAX, &now());
    vec![
        ("queued", queued, ticket.clone()),
        ("running", running.clone(), ticket.clone()),
        (
            "running, its end asked for",
            after(&|r| r.cancel(&now())),
            ticket.clone(),
        ),
        ("running, at the limit of deliveries", at_the_limit, last.clone()),
        ("interrupted", finished(Outcome::Interrupted(why())), ticket.clone()),
        ("done", finished(Outcome::Done(json!(1))), ticket.clone()),
        ("failed", finished(Outcome::Failed(why())), ticket.clone()),
        ("cancelled", finished(Outcome::Cancelled(why())), ticket.clone()),
        ("dead", dead, last),
    ]
}

type Event = (&'static str, fn(&mut Record, &Ticket) -> Result<()>);

/// Everything that may happen to a job.
const EVENTS: [Event; 12] = [
    ("a worker takes it", |r, _| r.take(&worker("2"), &now()).map(|_| ())),
    ("its worker says: done", |r, t| {
        r.finish(t, Outcome::Done(json!(1)), &now())
    }),
    ("its worker says: failed", |r, t| {
        r.finish(t, Outcome::Failed(why()), &now())
    }),
    ("its worker says: cancelled", |r, t| {
        r.finish(t, Outcome::Cancelled(why()), &now())
    }),
    ("its worker leaves it", |r, t| {
        r.finish(t, Outcome::Interrupted(why()), &now())
    }),
    ("its worker hands it back", |r, t| {
        r.finish(t, Outcome::HandedBack, &now())
    }),
    ("an earlier worker says: done", |r, t| {
        let mut earlier = t.clone();
        earlier.attempt -= 1;
        r.finish(&earlier, Outcome::Done(json!(1)), &now())
    }),
    ("its worker falls silent", |r, _| {
        r.lapse("silence", DELIVERIES_MAX, &now());
        Ok(())
    }),
    ("its worker never learned that it has it", |r, _| {
        r.unlearn(&now());
        Ok(())
    }),
    ("someone asks for its end", |r, _| {
        r.cancel(&now());
        Ok(())
    }),
    ("someone asks for it again", |r, _| r.retry(&now())),
    ("its worker's host restarts", |r, _| {
        if r.was_left_by(&worker("2")) {
            r.lapse("its process ended", DELIVERIES_MAX, &now());
        }
        Ok(())
    }),
];

#[test]
fn golden_table_of_what_becomes_of_a_job() {
    let mut table = String::new();
    for (state, record, ticket) in states() {
        let _ = writeln!(table, "{state}");
        for (event, happen) in EVENTS {
            let mut after = record.clone();
            let outcome = match happen(&mut after, &ticket) {
                Err(error) => {
                    assert_eq!((error.kind, &after), (Kind::Conflict, &record), "{state}: {event}");
                    "refused".to_owned()
                }
                Ok(()) if after == record => "nothing".to_owned(),
                Ok(()) if after.job.cancel_asked => format!("{}, its end asked for", after.job.state.as_str()),
                Ok(()) => after.job.state.as_str().to_owned(),
            };
            // what has ended stays ended, unless a person asks for it again
            let revived = record.job.state.is_final() && !after.job.state.is_final();
            assert!(!revived || event == "someone asks for it again", "{state}: {event}");
            let _ = writeln!(table, "  {event:30} -> {outcome}");
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/transitions.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == table, "{} differs: UPDATE_GOLDEN=1\n{table}", path.display());
}
