//! A provider in memory that passes the port's conformance suite, and can be made to fail.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use wire::metal_broker::Machine;

use crate::port::{Provider, Stock};
use crate::{Kind, MetalError, Result};

/// What it has, and how it misbehaves.
#[derive(Debug, Default)]
pub struct Inside {
    /// The machines.
    pub machines: BTreeMap<String, Machine>,
    /// Who has which.
    pub taken: BTreeMap<String, String>,
    /// It answers nothing.
    pub down: bool,
    /// It answers late.
    pub late: Duration,
    /// Machines that can't be read.
    pub unread: Vec<String>,
    /// How often a machine was taken.
    pub takes: u64,
}

/// The fake.
#[derive(Debug)]
pub struct Fake {
    tenant: String,
    name: String,
    inside: Mutex<Inside>,
}

impl Fake {
    /// With these machines.
    pub fn new(tenant: &str, name: &str, machines: Vec<Machine>) -> Self {
        let machines = machines.into_iter().map(|m| (m.id.clone(), m)).collect();
        Self {
            tenant: tenant.into(),
            name: name.into(),
            inside: Mutex::new(Inside {
                machines,
                ..Inside::default()
            }),
        }
    }
    /// To look at and to change.
    pub fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
    async fn answer<T>(&self, with: impl FnOnce(&mut Inside) -> Result<T>) -> Result<T> {
        let late = self.inside().late;
        if !late.is_zero() {
            tokio::time::sleep(late).await;
        }
        let mut inside = self.inside();
        if inside.down {
            return Err(MetalError::new(
                Kind::Unavailable,
                format!("provider {} doesn't answer; nothing was changed", self.name),
            ));
        }
        with(&mut inside)
    }
}

fn find(inside: &Inside, id: &str) -> Result<Machine> {
    let absent = || MetalError::new(Kind::NotFound, format!("machine {id} has gone; nothing was changed"));
    inside.machines.get(id).cloned().ok_or_else(absent)
}

#[async_trait]
impl Provider for Fake {
    fn tenant(&self) -> &str {
        &self.tenant
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn kind(&self) -> &'static str {
        "fake"
    }
    async fn stock(&self) -> Result<Stock> {
        self.answer(|inside| {
            let unread = inside.unread.clone();
            Ok(Stock {
                machines: inside
                    .machines
                    .values()
                    .filter(|m| !unread.contains(&m.id))
                    .cloned()
                    .collect(),
                troubles: unread.iter().map(|id| format!("machine {id} doesn't answer")).collect(),
                unread,
            })
        })
        .await
    }
    async fn look(&self, machine: &str) -> Result<Machine> {
        self.answer(|inside| find(inside, machine)).await
    }
    async fn take(&self, machine: &str, cluster: &str) -> Result<Machine> {
        self.answer(|inside| {
            let found = find(inside, machine)?;
            inside.takes += 1;
            match inside.taken.get(machine) {
                Some(other) if other != cluster => Err(MetalError::new(
                    Kind::Conflict,
                    format!("machine {machine} is {other}'s; nothing was changed"),
                )),
                _ => {
                    inside.taken.insert(machine.to_owned(), cluster.to_owned());
                    Ok(found)
                }
            }
        })
        .await
    }
    async fn give_back(&self, machine: &str, cluster: &str) -> Result<()> {
        self.answer(|inside| {
            if inside.taken.get(machine).is_some_and(|c| c == cluster) {
                inside.taken.remove(machine);
            }
            Ok(())
        })
        .await
    }
}
