//! THE TABLE: one row a concern. Spawning, the command line's help, `check-config`, status and the documents read it.

use std::sync::Arc;

use config::Config;
use confine::Capability;
use futures::future::BoxFuture;
use metal_broker::actor::MetalBroker;
use rack_scheduler::actor::{OverBus, RackScheduler};
use rack_scheduler::engine::{Scheduler, Settings};
use rack_scheduler::port::Silent;
use snapshot::actor::Snapshot;
use snapshot::job::Tools;
use wire::ErrorBody;

use crate::backends::{self, Ports, metal};
use crate::hardening::Needs;
use crate::house::Parts;

/// One concern.
#[derive(Debug)]
pub struct Row {
    /// Its one spelling: directory, configuration section, subject token, page in `docs/`.
    pub name: &'static str,
    /// Its noun on the command line. Where `src/cli` has none of that name, its verbs are those of its messages.
    pub noun: &'static str,
    /// One line for people; the noun's help.
    pub about: &'static str,
    /// Its verbs also run without a daemon.
    pub one_shot: bool,
    /// What it needs of the system; the daemon gives up the rest.
    pub needs: Needs,
    /// Below this the hosts of a fleet share what it knows; `windlass nats-permissions` lets them write there.
    pub shared_state: Option<&'static str>,
    /// Starts it: from the ports, and from the configuration of the day.
    pub spawn: fn(Parts) -> BoxFuture<'static, Result<(), ErrorBody>>,
}

/// Every concern.
pub static TABLE: &[Row] = &[
    Row {
        name: "snapshot",
        noun: "snapshot",
        about: "Take, look at, restore and forget snapshots of VMs",
        one_shot: true,
        needs: Needs {
            // disks belong to the users of hypervisors; a disk that somebody holds open is refused
            capabilities: &[
                Capability::DacOverride,
                Capability::DacReadSearch,
                Capability::SysPtrace,
            ],
            disks: true,
        },
        shared_state: None,
        spawn: |parts| parts.start(|ports, config| Snapshot::new(tools(ports, config))),
    },
    Row {
        name: "rack_scheduler",
        noun: "rack",
        about: "Place many VMs in groups, each with a home rack",
        one_shot: true,
        needs: Needs::NOTHING,
        shared_state: Some("rack_scheduler"),
        spawn: |parts| {
            let first = scheduler(&parts);
            parts.start(move |ports, config| RackScheduler::new(of_today(&first, ports, config)))
        },
    },
    Row {
        name: "metal_broker",
        noun: "metal",
        about: "Find, claim and give back bare-metal machines for clusters",
        one_shot: true,
        needs: Needs::NOTHING,
        shared_state: Some("metal_broker"),
        spawn: |parts| {
            let first = metal::first(&parts);
            parts.start(move |ports, config| MetalBroker::new(metal::of_today(&first, ports, config)))
        },
    },
    #[cfg(feature = "example")]
    Row {
        name: "echo",
        noun: "echo",
        about: "Say back what is said: CONTRIBUTING's example",
        one_shot: true,
        needs: Needs::NOTHING,
        shared_state: None,
        spawn: |parts| parts.start(|ports, config| echo::actor::Echo::new(&ports.announcer, &config.echo)),
    },
];

impl Row {
    /// Its page.
    pub fn page(&self) -> String {
        format!("docs/{}.md", self.name)
    }
}

fn tools(ports: &Ports, config: &Config) -> Tools {
    Tools {
        announcer: ports.announcer.clone(),
        clock: ports.clock.clone(),
        state: ports.own_state.clone(),
        repos: ports.repos.clone(),
        settings: config.snapshot.clone(),
        session_limits: backends::session_limits(&config.repo),
        fetch_limits: backends::fetch_limits(&config.repo),
        state_dir: config.state_dir.clone(),
    }
}

/// The scheduler whose view of the inventory all that follow share.
fn scheduler(parts: &Parts) -> Scheduler {
    let (ports, config) = (&parts.ports, parts.today.config());
    Scheduler::new(
        config.host_id.clone(),
        ports.state.clone(),
        ports.bus.clone(),
        ports.clock.clone(),
        Arc::new(Silent),
        Settings::default(),
    )
}

/// The same scheduler, by the configuration of the day.
fn of_today(first: &Scheduler, ports: &Ports, config: &Config) -> Scheduler {
    let (rack, mut scheduler) = (&config.rack_scheduler, first.clone());
    // the bounds of the keys are within these types
    let percent = |sold: u64| u32::try_from(sold).unwrap_or(100);
    scheduler.settings = Settings {
        tentative_ms: rack.tentative_s * 1_000,
        attempts_max: rack.attempts_max,
        tells_hosts: rack.provide == config::Provide::Ask,
        takes_beats: rack.inventory == config::Inventory::Heartbeats,
        sweep_every_ms: rack.sweep_every_s * 1_000,
        vcpus_sold_percent: percent(rack.vcpus_sold_percent),
        memory_sold_percent: percent(rack.memory_sold_percent),
        keep_ms: config.runtime.idempotency_keep_h * 3_600_000,
        ..Settings::default()
    };
    if scheduler.settings.tells_hosts {
        scheduler.hosts = Arc::new(OverBus {
            bus: ports.bus.clone(),
            timeout_ms: rack.provide_timeout_s * 1_000,
        });
    }
    scheduler
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
            // the example has its page in CONTRIBUTING.md, and no verbs but those of its messages
            if row.name == "echo" {
                continue;
            }
            for verb in ["ls", "show"] {
                assert!(noun.find_subcommand(verb).is_some(), "{} has no {verb}", row.noun);
            }
            let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(row.page());
            assert!(page.exists(), "{} is missing", page.display());
        }
    }
}
