//! A process gives up what it doesn't need, for good, before it has a second thread.
//!
//! ```text
//! Policy --confine--> capabilities dropped (bounding set too) -> no_new_privs -> Landlock -> seccomp --> Confined: what holds
//! ```
//!
//! A kernel that lacks one of them is told of, and the others hold all the same: somebody who runs an old kernel is no worse off
//! than before.
//!
//! * [`Capability`]: the few that a concern of windlass may need.
//! * `files`: Landlock. Where the disks are anywhere, what is given up is to run programs and to make devices; where they are in
//!   places that were named, everything else of the file system is out of reach.
//! * `calls`: seccomp. Calls that no part of windlass makes answer `EPERM`.
//!
//! What is absent: no list of all calls that are allowed. glibc and the kernel's own advice change them from version to version,
//! and a daemon that dies of an upgrade protects nobody.

mod calls;
mod capabilities;
mod files;

pub use capabilities::Capability;
pub use files::{Access, Files};

/// What a process keeps.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Capabilities.
    pub capabilities: Vec<Capability>,
    /// Whether it runs other programs.
    pub runs_programs: bool,
    /// Where it works in the file system.
    pub files: Files,
}

/// How one layer ended up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layer {
    /// It holds; in words, what it keeps out.
    On(String),
    /// A part of it holds: the kernel knows no more of it.
    Partly(String),
    /// It doesn't, and why.
    Off(String),
}

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::On(what) => write!(f, "on: {what}"),
            Self::Partly(what) => write!(f, "partly on: {what}"),
            Self::Off(why) => write!(f, "off: {why}"),
        }
    }
}

/// What holds from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confined {
    /// No program that this process runs gains rights by it.
    pub no_new_privs: bool,
    /// Calls that answer `EPERM`.
    pub seccomp: Layer,
    /// Places of the file system.
    pub landlock: Layer,
    /// Capabilities that are left.
    pub capabilities: Vec<String>,
    /// Capabilities that the policy keeps and the process never had.
    pub missing: Vec<Capability>,
    /// What could not be done, for people.
    pub warnings: Vec<String>,
}

/// Gives up everything that the policy doesn't keep. To be called while the process has one thread: threads that run already
/// stay as they are.
pub fn confine(policy: &Policy) -> Confined {
    let mut warnings = Vec::new();
    let missing = capabilities::missing(&policy.capabilities);
    if let Err(e) = capabilities::keep(&policy.capabilities) {
        warnings.push(format!("capabilities were not dropped: {e}"));
    }
    let no_new_privs = rustix::thread::set_no_new_privs(true)
        .inspect_err(|e| warnings.push(format!("no_new_privs was not set: {e}")))
        .is_ok();
    let landlock = files::restrict(&policy.files, policy.runs_programs);
    let seccomp = calls::refuse(policy.runs_programs);
    for (name, layer) in [("Landlock", &landlock), ("seccomp", &seccomp)] {
        if !matches!(layer, Layer::On(_)) {
            warnings.push(format!("{name} is {layer}"));
        }
    }
    Confined {
        no_new_privs,
        seccomp,
        landlock,
        capabilities: capabilities::left(),
        missing,
        warnings,
    }
}

#[cfg(test)]
mod tests;
