//! THE TABLE: one row a concern. Spawning, the command line's help, `check-config`, status and the documents read it.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
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
pub static TABLE: &[Row] = &[Row {
    name: "snapshot",
    noun: "snapshot",
    about: "Take, look at, restore and forget snapshots of VMs",
    one_shot: true,
    page: "docs/snapshot.md",
    spawn: |parts| snapshot_concern(parts).boxed(),
}];

async fn snapshot_concern(parts: Parts) -> Result<(), ErrorBody> {
    let (config, ports) = (&parts.config, &parts.ports);
    let tools = Arc::new(Tools {
        host: config.host_id.clone(),
        bus: ports.bus.clone(),
        clock: ports.clock.clone(),
        state: ports.state.clone(),
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
