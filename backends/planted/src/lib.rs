//! Faults that a simulation plants, to show that it would find them (`integration/tests/simulation`).
//!
//! The code that could be wrong asks [`is`] at the very place. Without the feature `testing` the answer is a constant, so the
//! compiler leaves nothing of question and answer; with it, the thread that runs a simulated world may plant one fault.
//!
//! What is absent: no way to plant anything in a shipped binary (a tidy test looks at its features), no fault that is planted
//! for more than one thread.

/// What may be wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// Jobs: a record is written whatever revision it has.
    RecordWrittenUncompared,
    /// Jobs: a taken job's message is acknowledged before the job has ended.
    AcknowledgedEarly,
    /// Jobs: another host's job is taken over without watching whether that host lives.
    TakenUnwatched,
    /// Jobs: a request id isn't written down.
    RequestIdForgotten,
    /// Jobs: a submit is answered before the queue has acknowledged it.
    SubmitUnacknowledged,
    /// Jobs: the end of a job is written by whoever had it, not by whoever has it.
    TicketUnchecked,
    /// Hosts: a host is declared lost without looking at its beat anew.
    LostUnlooked,
    /// Hosts: a process starts although another one has its id.
    IdTakenAnyway,
    /// State: a compare-and-set doesn't compare.
    StateUncompared,
    /// Racks: a change is decided whatever became of its placement meanwhile.
    PlacementDecidedUncompared,
    /// Racks: overdue bookings are dropped without asking whether their placement was decided.
    OverdueUnasked,
    /// Trust: a nonce isn't remembered.
    NonceForgotten,
    /// Trust: a member's word isn't checked against its key.
    SignatureUnchecked,
    /// Trust: who was put out is heard on.
    ExclusionIgnored,
}

#[cfg(feature = "testing")]
mod switch {
    use std::cell::Cell;

    use super::Fault;

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Plants a fault for what this thread runs from now on; `None` takes it out.
    pub fn plant(fault: Option<Fault>) {
        PLANTED.set(fault);
    }

    /// Whether this fault is planted here.
    #[inline]
    pub fn is(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }
}

#[cfg(feature = "testing")]
pub use switch::{is, plant};

/// Whether this fault is planted here: never, in what ships.
#[cfg(not(feature = "testing"))]
#[inline]
pub const fn is(_: Fault) -> bool {
    false
}
