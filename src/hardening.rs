//! What the daemon gives up before it does anything: by THE TABLE, what no concern of it needs.

use std::path::{Path, PathBuf};

use config::{Config, OnOff, Programs};
use confine::{Access, Capability, Files, Policy, confine};
use secret::Reference;
use wire::house::Hardening;

use crate::concerns;

/// What a concern needs of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Capabilities.
    pub capabilities: &'static [Capability],
    /// Files that people name: disks.
    pub disks: bool,
}

impl Needs {
    /// What no concern can do without: its own state, and the network.
    pub const NOTHING: Self = Self {
        capabilities: &[],
        disks: false,
    };
}

/// What everything reads: names, certificates, time zones, what the kernel tells; and the C library's modules for names.
const LOOKED_AT: &[&str] = &[
    "/proc",
    "/sys",
    "/etc",
    "/usr/share",
    "/usr/lib",
    "/usr/lib64",
    "/lib",
    "/lib64",
    "/run",
];
/// Devices: disks, the null device, randomness.
const DEVICES: &str = "/dev";

/// Gives it up, and says so in the log. To be called before there is a second thread.
pub fn apply(config: &Config, config_file: Option<&Path>) -> Option<Hardening> {
    if config.hardening.mode == OnOff::Off {
        tracing::warn!("hardening.mode is off: a fault in this daemon has all the rights of its user");
        return None;
    }
    let confined = confine(&policy(config, config_file));
    for warning in &confined.warnings {
        tracing::warn!("{warning}");
    }
    for row in concerns::TABLE {
        let lacks: Vec<&str> = row
            .needs
            .capabilities
            .iter()
            .filter(|c| confined.missing.contains(c))
            .map(|c| c.name())
            .collect();
        if !lacks.is_empty() {
            tracing::warn!(
                concern = row.name,
                "without {} it works on files alone that this user may open; run windlass as root, or with AmbientCapabilities= \
                 of systemd",
                lacks.join(", ")
            );
        }
    }
    Some(Hardening {
        no_new_privs: confined.no_new_privs,
        seccomp: confined.seccomp.to_string(),
        landlock: confined.landlock.to_string(),
        capabilities: confined.capabilities,
    })
}

fn policy(config: &Config, config_file: Option<&Path>) -> Policy {
    let needs = concerns::TABLE.iter().map(|row| row.needs);
    let mut capabilities: Vec<Capability> = needs.clone().flat_map(|needs| needs.capabilities).copied().collect();
    capabilities.sort_unstable();
    capabilities.dedup();
    let dirs = config.hardening.disk_dir_list();
    let anywhere = needs.clone().any(|needs| needs.disks) && dirs.is_empty();
    Policy {
        capabilities,
        runs_programs: config.hardening.programs == Programs::Allow,
        files: match anywhere {
            true => Files::Anywhere,
            false => Files::Below(places(config, config_file, dirs)),
        },
    }
}

/// Where the daemon works when the disks' places are known.
fn places(config: &Config, config_file: Option<&Path>, disk_dirs: Vec<PathBuf>) -> Vec<(PathBuf, Access)> {
    // what isn't there yet can't be named
    let made = [config.state_dir.clone(), config.repo.cache_dir.clone()];
    for dir in &made {
        let _said_when_it_is_opened = std::fs::create_dir_all(dir);
    }
    let mut written: Vec<PathBuf> = made.into();
    written.extend(config.gateway.socket.parent().map(Path::to_owned));
    written.extend(local_repository(config));
    written.extend(disk_dirs);
    written.push(DEVICES.into());
    let mut read: Vec<PathBuf> = LOOKED_AT.iter().map(PathBuf::from).collect();
    let nats = &config.nats;
    let secrets = [&nats.user_file, &nats.nkey_file, &nats.creds_file].map(|text| Reference::parse(text));
    read.extend(
        secrets
            .into_iter()
            .flatten()
            .filter_map(|place| place.path().ok().flatten()),
    );
    read.extend([&nats.ca_file, &nats.cert_file, &nats.key_file, &nats.server_log].map(PathBuf::from));
    read.extend([&config.gateway.token_file, &config.gateway.tokens_file].map(|file| file.clone()));
    read.extend(config_file.map(Path::to_owned));
    // a file that is put in place anew is another one: its directory is what counts
    let dirs = read
        .iter()
        .filter(|path| path.is_file())
        .filter_map(|path| path.parent())
        .map(Path::to_owned);
    read.extend(dirs.collect::<Vec<_>>());
    read.extend(std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from));
    read.extend(
        [
            "AWS_SHARED_CREDENTIALS_FILE",
            "AWS_CONFIG_FILE",
            "AWS_CA_BUNDLE",
            "SSL_CERT_FILE",
            "GOOGLE_APPLICATION_CREDENTIALS",
        ]
        .iter()
        .filter_map(std::env::var_os)
        .map(PathBuf::from),
    );
    read.extend(std::env::var_os("HOME").map(|home| Path::new(&home).join(".aws")));
    let read = read
        .into_iter()
        .filter(|path| path.is_absolute())
        .map(|path| (path, Access::Read));
    read.chain(written.into_iter().map(|path| (path, Access::Write)))
        .collect()
}

fn local_repository(config: &Config) -> Option<PathBuf> {
    let path = url::Url::parse(&config.repo.url).ok()?.to_file_path().ok()?;
    let _said_when_it_is_opened = std::fs::create_dir_all(&path);
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_with(disk_dirs: &str) -> Config {
        let around = config::Surroundings {
            env: [("WINDLASS_HARDENING__DISK_DIRS".to_owned(), disk_dirs.to_owned())]
                .into_iter()
                .collect(),
            is_root: false,
            host_name: "h1".into(),
            working_dir: "/tmp".into(),
        };
        config::load(None, &around, &config::Flags::default()).unwrap().config
    }

    #[test]
    fn disks_are_anywhere_until_their_places_are_named() {
        let policy_of = |dirs: &str| policy(&config_with(dirs), None);
        assert_eq!(policy_of("").files, Files::Anywhere);
        let policy = policy_of("/srv/vms,/dev/mapper");
        let Files::Below(places) = policy.files else {
            panic!("anywhere")
        };
        for dir in ["/srv/vms", "/dev/mapper"] {
            assert!(places.contains(&(dir.into(), Access::Write)), "{places:?}");
        }
        assert!(
            places
                .iter()
                .all(|(path, _)| path.is_absolute() && path != Path::new("/"))
        );
        assert!(!policy.runs_programs);
        assert_eq!(
            policy.capabilities,
            [
                Capability::DacOverride,
                Capability::DacReadSearch,
                Capability::SysPtrace
            ],
            "docs/security.md lists what each concern needs"
        );
    }
}
