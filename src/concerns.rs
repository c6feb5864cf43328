//! THE TABLE: one row a concern. Spawning, the command line's help, `check-config`, status and the documents read it.

use std::sync::Arc;
use std::time::Duration;

use bus::Bus;
use config::Config;
use futures::FutureExt;
use futures::future::BoxFuture;
use rack_scheduler::actor::{OverBus, RackScheduler};
use rack_scheduler::engine::{Scheduler, Settings};
use rack_scheduler::port::Silent;
use snapshot::actor::Snapshot;
use snapshot::job::Tools;
use wire::ErrorBody;

use crate::backends::{self, Ports};
use crate::house::{Parts, Today};

/// One concern.
#[derive(Debug)]
pub struct Row {
    /// Its one spelling: directory, configuration section, subject token.
    pub name: &'static str,
    /// Its noun on the command line.
    pub noun: &'static str,
    /// One line for people; the noun's help.
    pub about: &'static str,
    /// Its verbs also run without a daemon.
    pub one_shot: bool,
    /// Its page.
    pub page: &'static str,
    /// Starts it.
    pub spawn: fn(Parts) -> BoxFuture<'static, Result<(), ErrorBody>>,
}

/// Every concern.
pub static TABLE: &[Row] = &[
    Row {
        name: "snapshot",
        noun: "snapshot",
        about: "Take, look at, restore and forget snapshots of VMs",
        one_shot: true,
        page: "docs/snapshot.md",
        spawn: |parts| snapshot_concern(parts).boxed(),
    },
    Row {
        name: "rack_scheduler",
        noun: "rack",
        about: "Place many VMs in groups, each with a home rack",
        one_shot: true,
        page: "docs/rack_scheduler.md",
        spawn: |parts| rack_scheduler_concern(parts).boxed(),
    },
];

fn snapshot_tools(ports: &Ports, config: &Config) -> Arc<Tools> {
    Arc::new(Tools {
        host: config.host_id.clone(),
        bus: ports.bus.clone(),
        clock: ports.clock.clone(),
        state: ports.own_state.clone(),
        repos: ports.repos.clone(),
        settings: config.snapshot.clone(),
        session_limits: backends::session_limits(&config.repo),
        fetch_limits: backends::fetch_limits(&config.repo),
        state_dir: config.state_dir.clone(),
    })
}

async fn snapshot_concern(parts: Parts) -> Result<(), ErrorBody> {
    let limits = parts.limits();
    let Parts { house, ports, today } = parts;
    let parallel = |config: &Config| usize::try_from(config.snapshot.jobs_parallel_max).unwrap_or(1);
    let config = today.config();
    let kinds = Snapshot::kinds(&snapshot_tools(&ports, &config));
    let runner = house.runner("snapshot", kinds, parallel(&config));
    // no part of the house may be in here: it holds the factory
    let factory = move || {
        let config = today.config();
        let tools = snapshot_tools(&ports, &config);
        runner.renew(Snapshot::kinds(&tools), parallel(&config));
        Snapshot::new(tools, runner.clone())
    };
    Ok(house.start(limits, factory).await?)
}

/// Makes schedulers by the configuration of the day that share what they know.
struct Racks {
    first: Scheduler,
    bus: Arc<dyn Bus>,
    today: Today,
}

impl Racks {
    fn new(parts: &Parts) -> Self {
        let (ports, config) = (&parts.ports, parts.today.config());
        let first = Scheduler::new(
            config.host_id.clone(),
            ports.state.clone(),
            ports.bus.clone(),
            ports.clock.clone(),
            Arc::new(Silent),
            Self::settings(&config),
        );
        Self {
            first,
            bus: ports.bus.clone(),
            today: parts.today.clone(),
        }
    }
    fn settings(config: &Config) -> Settings {
        let rack = &config.rack_scheduler;
        Settings {
            tentative_ms: rack.tentative_s * 1000,
            attempts_max: rack.attempts_max,
            tells_hosts: rack.provide == config::Provide::Ask,
            vcpus_sold_percent: u32::try_from(rack.vcpus_sold_percent).unwrap_or(100),
            memory_sold_percent: u32::try_from(rack.memory_sold_percent).unwrap_or(100),
            keep_ms: config.runtime.idempotency_keep_h * 3_600_000,
            ..Settings::default()
        }
    }
    fn present(&self) -> Scheduler {
        let config = self.today.config();
        let mut scheduler = self.first.clone();
        scheduler.settings = Self::settings(&config);
        if scheduler.settings.tells_hosts {
            scheduler.hosts = Arc::new(OverBus {
                bus: self.bus.clone(),
                timeout_ms: config.rack_scheduler.provide_timeout_s * 1000,
            });
        }
        scheduler
    }
    /// What others left unfinished; returns after how many seconds to look again.
    async fn sweep(&self) -> u64 {
        let (config, scheduler) = (self.today.config(), self.present());
        let by_beats = config.rack_scheduler.inventory == config::Inventory::Heartbeats;
        if by_beats && let Err(error) = scheduler.take_beats().await {
            tracing::warn!(%error, "heartbeats; they are read again");
        }
        if let Err(error) = scheduler.sweep().await {
            tracing::warn!(%error, "the rack scheduler's sweep; it is tried again");
        }
        config.rack_scheduler.sweep_every_s
    }
}

async fn rack_scheduler_concern(parts: Parts) -> Result<(), ErrorBody> {
    let racks = Arc::new(Racks::new(&parts));
    // ends with the concern: only the factory keeps the schedulers alive
    let swept = Arc::downgrade(&racks);
    tokio::spawn(async move {
        while let Some(racks) = swept.upgrade() {
            let again_s = racks.sweep().await;
            drop(racks);
            tokio::time::sleep(Duration::from_secs(again_s)).await;
        }
    });
    let factory = move || RackScheduler::new(racks.present());
    Ok(parts.house.start(parts.limits(), factory).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_section_its_verbs_its_noun_and_its_page() {
        let command = crate::cli::command();
        for row in TABLE {
            assert!(
                config::sections().iter().any(|s| s.name == row.name),
                "no [{}] in the configuration",
                row.name
            );
            assert!(
                wire::catalog::endpoints().iter().any(|e| e.concern == row.name),
                "{} has no verbs",
                row.name
            );
            let noun = command.find_subcommand(row.noun).expect(row.noun);
            assert_eq!(noun.get_about().map(ToString::to_string).as_deref(), Some(row.about));
            for verb in ["ls", "show"] {
                assert!(noun.find_subcommand(verb).is_some(), "{} has no {verb}", row.noun);
            }
            assert!(
                std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(row.page).exists(),
                "{} is missing",
                row.page
            );
        }
    }
}
