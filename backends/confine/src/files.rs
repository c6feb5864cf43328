//! Landlock (landlock(7)): what a process may do with files, whoever it is.

use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};

use crate::Layer;

/// The newest that is asked for; a kernel that knows less gives what it has.
const NEWEST: ABI = ABI::V6;

/// Where a process works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// Anywhere: people name paths.
    Anywhere,
    /// Below these, and nowhere else.
    Below(Vec<(PathBuf, Access)>),
}

/// What may be done below a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Look.
    Read,
    /// Everything but to run programs and to make devices.
    Write,
}

/// What nobody here does anywhere.
fn never(runs_programs: bool) -> BitFlags<AccessFs> {
    let devices = make_bitflags!(AccessFs::{MakeChar | MakeBlock | MakeFifo});
    match runs_programs {
        true => devices,
        false => devices | AccessFs::Execute,
    }
}

pub(crate) fn restrict(files: &Files, runs_programs: bool) -> Layer {
    let told = match (files, runs_programs) {
        (Files::Below(_), _) => "no files but those of its places",
        (Files::Anywhere, false) => "no programs, no device nodes; files anywhere, for disks are named by people",
        (Files::Anywhere, true) => "no device nodes; files and programs anywhere",
    };
    match restricted(files, runs_programs) {
        Ok(status) => match status.ruleset {
            RulesetStatus::FullyEnforced => Layer::On(told.to_owned()),
            RulesetStatus::PartiallyEnforced => Layer::Partly(format!("{told}, as far as this kernel knows how")),
            RulesetStatus::NotEnforced => Layer::Off("this kernel has no Landlock, or it is switched off".to_owned()),
        },
        Err(e) => Layer::Off(e.to_string()),
    }
}

fn restricted(files: &Files, runs_programs: bool) -> Result<RestrictionStatus, RulesetError> {
    let all = AccessFs::from_all(NEWEST);
    let handled = match files {
        Files::Anywhere => never(runs_programs),
        Files::Below(_) => all,
    };
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)?
        // no signal and no abstract socket to anybody outside
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    if let Files::Below(places) = files {
        for (path, access) in places {
            let allowed = match access {
                Access::Read => AccessFs::from_read(NEWEST) & !BitFlags::from(AccessFs::Execute),
                Access::Write => all & !never(runs_programs),
            };
            // a place that isn't there can't be opened later either
            let Ok(place) = PathFd::new(path) else { continue };
            let is_dir = path.is_dir();
            let allowed = if is_dir {
                allowed
            } else {
                allowed & AccessFs::from_file(NEWEST)
            };
            ruleset = ruleset.add_rule(PathBeneath::new(place, allowed))?;
        }
    }
    ruleset.restrict_self()
}
