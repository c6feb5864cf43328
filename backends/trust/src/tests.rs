mod books;
mod known_answers;
mod lives;
mod over_nats;
mod places;
mod ports;
mod properties;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wire::{HostId, Sender};
use zeroize::Zeroizing;

use crate::core::book::{Entry, Row, Signed, Statement};
use crate::core::keys::Identity;
use crate::core::stamp::{Domain, Stamp};
use crate::fleet::FleetNow;

pub(crate) fn identity(n: u8) -> Identity {
    Identity::from_seed(&Zeroizing::new([n; 32]))
}

pub(crate) fn host(name: &str) -> Sender {
    Sender::Host(HostId::new(name).unwrap())
}

/// A clock that a test turns by hand.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turned(Arc<AtomicU64>);

impl Turned {
    pub(crate) fn at(ms: u64) -> Self {
        Self(Arc::new(ms.into()))
    }
    pub(crate) fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
    pub(crate) fn now(&self) -> FleetNow {
        let clock = self.0.clone();
        Arc::new(move || clock.load(Ordering::SeqCst))
    }
}

pub(crate) fn row(name: &str, epoch: u64, key: &Identity) -> Row {
    Row {
        member: host(name),
        epoch,
        key: key.public(),
        revoked: false,
        may_admit: true,
        role: None,
    }
}

pub(crate) fn told(row: Row) -> Entry {
    Entry {
        row,
        signed: None,
        confirms: vec![],
    }
}

/// A statement that `by` signed.
pub(crate) fn stated(by: &str, key: &Identity, row: Row, confirms: Vec<String>) -> Signed {
    let text = serde_json::to_string(&Statement { row, confirms }).unwrap();
    let stamp = Stamp::new(key, Domain::Statement, &host(by), 7, [7; 16], &[text.as_bytes()]);
    Signed {
        text,
        stamp: stamp.to_string(),
    }
}
