//! How the hosts and persons of a test become members of one fleet: as people do it, with the real binary.

use crate::process::Windlass;

/// Has the daemon of `member` let a host in, and the host join; its daemon may be started then. `joiner` has the host's own state
/// directory and id, and the servers.
///
/// # Panics
/// When either refuses.
pub fn join(member: &Windlass, joiner: &Windlass, host: &str) {
    join_with(member, joiner, &[host]);
}

/// The same for a person, an admin.
///
/// # Panics
/// When either refuses.
pub fn join_person(member: &Windlass, joiner: &Windlass, name: &str) {
    join_with(member, joiner, &["--person", name, "--role", "admin"]);
}

/// The same with whatever words `windlass hosts token` takes.
///
/// # Panics
/// When either refuses.
pub fn join_with(member: &Windlass, joiner: &Windlass, words: &[&str]) {
    let token = token(member, words);
    joiner.run(&["hosts", "join", &token]).expect("it runs").success();
}

/// A token.
///
/// # Panics
/// When it is refused.
pub fn token(member: &Windlass, words: &[&str]) -> String {
    let mut all = vec!["hosts", "token"];
    all.extend(words);
    let made = member.run(&all).expect("it runs").success();
    made.stdout.trim().to_owned()
}
