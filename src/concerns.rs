//! THE TABLE: one row a concern. Spawning, the command line's help, `check-config`, status and the documents read it.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rack_scheduler::actor::{OverBus, RackScheduler};
use rack_scheduler::engine::{Scheduler, Settings};
use rack_scheduler::port::{Hosts, Silent};
use snapshot::actor::Snapshot;
use snapshot::job::Tools;
use wire::ErrorBody;

use crate::backends;
use crate::house::Parts;

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

async fn snapshot_concern(parts: Parts) -> Result<(), ErrorBody> {
    let (config, ports) = (&parts.config, &parts.ports);
    let tools = Arc::new(Tools {
        host: config.host_id.clone(),
        bus: ports.bus.clone(),
        clock: ports.clock.clone(),
        state: ports.own_state.clone(),
        repos: ports.repos.clone(),
        settings: config.snapshot.clone(),
        session_limits: backends::session_limits(&config.repo),
        fetch_limits: backends::fetch_limits(&config.repo),
        state_dir: config.state_dir.clone(),
    });
    let parallel = usize::try_from(config.snapshot.jobs_parallel_max).unwrap_or(1);
    let runner = parts.house.runner("snapshot", Snapshot::kinds(&tools), parallel);
    let factory = move || Snapshot::new(tools.clone(), runner.clone());
    Ok(parts.house.start(parts.limits(), factory).await?)
}

async fn rack_scheduler_concern(parts: Parts) -> Result<(), ErrorBody> {
    let (config, ports) = (&parts.config.rack_scheduler, &parts.ports);
    let tells_hosts = config.provide == config::Provide::Ask;
    let hosts: Arc<dyn Hosts> = match tells_hosts {
        false => Arc::new(Silent),
        true => Arc::new(OverBus {
            bus: ports.bus.clone(),
            timeout_ms: config.provide_timeout_s * 1000,
        }),
    };
    let settings = Settings {
        tentative_ms: config.tentative_s * 1000,
        attempts_max: config.attempts_max,
        tells_hosts,
        vcpus_sold_percent: u32::try_from(config.vcpus_sold_percent).unwrap_or(100),
        memory_sold_percent: u32::try_from(config.memory_sold_percent).unwrap_or(100),
        keep_ms: parts.config.runtime.idempotency_keep_h * 3_600_000,
        ..Settings::default()
    };
    let scheduler = Arc::new(Scheduler::new(
        parts.config.host_id.clone(),
        ports.state.clone(),
        ports.bus.clone(),
        ports.clock.clone(),
        hosts,
        settings,
    ));
    // ends with the concern: only the factory keeps the scheduler alive
    let (swept, every_s) = (Arc::downgrade(&scheduler), config.sweep_every_s);
    let by_beats = config.inventory == config::Inventory::Heartbeats;
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_secs(every_s));
        loop {
            tick.tick().await;
            let Some(scheduler) = swept.upgrade() else { return };
            if by_beats && let Err(error) = scheduler.take_beats().await {
                tracing::warn!(%error, "heartbeats; they are read again");
            }
            if let Err(error) = scheduler.sweep().await {
                tracing::warn!(%error, "the rack scheduler's sweep; it is tried again");
            }
        }
    });
    let factory = move || RackScheduler::new((*scheduler).clone());
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
