//! Signed commands in a simulated world: members command one another, a thief sends what it heard once more and changed, and members
//! are put out. What is heard is decided by the crate `trust`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use state::State;
use trust::{Identity, Membership, Row};
use wire::{Headers, HostId, Sender, Subject};

use super::plan::HOSTS_MAX;
use super::run::Play;
use super::world::{Process, World, host_name, pause};

/// Hosts that may let others in and put them out.
const MAY_ADMIT: usize = 2;

/// A command on its way, as anybody at the servers sees it.
#[derive(Debug, Clone)]
pub struct Command {
    id: u64,
    from: usize,
    to: usize,
    subject: Subject,
    headers: Headers,
    body: Bytes,
}

/// What became of commands.
#[derive(Debug, Default)]
pub struct Commands {
    sent: Vec<Command>,
    effects: BTreeMap<u64, u32>,
    /// Hosts that were put out, as whoever did so was told.
    pub out: Vec<usize>,
}

fn member(host: usize) -> Result<Sender, String> {
    HostId::new(&host_name(host))
        .map(Sender::Host)
        .map_err(|e| e.to_string())
}

fn identity(host: usize) -> Identity {
    let byte = u8::try_from(host + 1).unwrap_or(u8::MAX);
    Identity::from_seed(&zeroize::Zeroizing::new([byte; 32]))
}

/// What every host was told of the others when it joined.
fn rows() -> Result<Vec<Row>, String> {
    let row = |host: usize| {
        Ok(Row {
            member: member(host)?,
            epoch: 1,
            key: identity(host).public(),
            revoked: false,
            may_admit: host < MAY_ADMIT,
            role: None,
        })
    };
    (0..HOSTS_MAX).map(row).collect()
}

/// A process among the members. `own` is what its disk keeps.
///
/// # Errors
/// What the states say.
pub async fn membership(
    host: usize,
    shared: Arc<dyn State>,
    own: Arc<dyn State>,
    now_ms: trust::FleetNow,
) -> Result<Membership, String> {
    let me = (member(host)?, identity(host));
    let opened = Membership::over(me, rows()?, shared, own, now_ms).await;
    let membership = opened.map_err(|e| e.to_string())?;
    membership.follow();
    Ok(membership)
}

fn knows_out(membership: &Membership, of: &Sender) -> bool {
    membership
        .members()
        .members
        .iter()
        .any(|m| m.member == *of && m.revoked)
}

impl Play {
    fn commands(&self) -> MutexGuard<'_, Commands> {
        let commands: &Mutex<Commands> = &self.0.commands;
        commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host commands another one.
    pub fn command(&self, by: usize, to: usize) {
        let (Some(serving), Ok(id)) = (self.serving(by), HostId::new(&host_name(to))) else {
            return;
        };
        let Ok(subject) = Subject::host(&id, "mill", "grind") else {
            return;
        };
        let id = self.commands().sent.len() as u64;
        let (mut headers, body) = (Headers::default(), Bytes::from(format!("command {id}")));
        let signed = serving.membership.fleet().sign_request(&subject, &mut headers, &body);
        if signed.is_err() {
            return;
        }
        let command = Command {
            id,
            from: by,
            to,
            subject,
            headers,
            body,
        };
        self.commands().sent.push(command.clone());
        self.deliver(serving.process, command, false);
    }

    /// A thief sends what it heard in so many-th place once more, `altered` or not, from a host's line to the servers.
    pub fn steal(&self, from: usize, nth: u64, altered: bool) {
        let Some(serving) = self.serving(from) else { return };
        let Some(mut command) = self.commands().sent.get(nth as usize).cloned() else {
            return;
        };
        if altered {
            command.body = Bytes::from(format!("{} and more", command.id));
        }
        self.deliver(serving.process, command, altered);
    }

    /// Over the network, to the process that the host has then.
    fn deliver(&self, from: Process, command: Command, altered: bool) {
        let ways = self.world().ways(from);
        for ms in ways {
            let (play, command) = (self.clone(), command.clone());
            tokio::spawn(async move {
                pause(ms).await;
                let Some(serving) = play.serving(command.to) else {
                    return;
                };
                if play.world().cut_for_ms(serving.process).is_none() {
                    play.hear(&command, altered, &serving.membership);
                }
            });
        }
    }

    fn hear(&self, command: &Command, altered: bool, membership: &Membership) {
        let Command { id, from, to, .. } = *command;
        let heard = membership
            .fleet()
            .hear_request(&command.subject, &command.headers, &command.body);
        let world: &World = self.world();
        world.note(|| {
            let how = heard.as_ref().map_or_else(|why| format!("{why:?}"), |_| "heard".into());
            format!("-- command {id} of {} to {}: {how}", host_name(from), host_name(to))
        });
        let Ok(stamp) = heard else { return };
        let times = {
            let mut commands = self.commands();
            let times = commands.effects.entry(id).or_default();
            *times += 1;
            *times
        };
        let wrong = if altered {
            Some("was heard although it was altered")
        } else if times > 1 {
            Some("had an effect twice")
        } else if knows_out(membership, &stamp.sender) {
            Some("was heard although its sender had been put out")
        } else {
            None
        };
        let mut inner = world.lock();
        inner.watcher.counts.heard += 1;
        if let Some(wrong) = wrong {
            let why = format!("command {id} of {} to {} {wrong}", host_name(from), host_name(to));
            inner.watcher.say_wrong(why);
        }
    }

    /// A member puts another one out.
    pub async fn put_out(&self, by: usize, host: usize) {
        let (by, host) = (
            by % MAY_ADMIT,
            MAY_ADMIT + host % (self.0.plan.hosts - MAY_ADMIT).max(1),
        );
        let (Some(serving), Ok(member)) = (self.serving(by), member(host)) else {
            return;
        };
        let revoking = serving.membership.revoke(&member);
        if self.busy(serving.process, revoking).await.is_ok() {
            self.world().note(|| format!("-- told: {} is out", host_name(host)));
            self.commands().out.push(host);
        }
    }

    /// Hosts that don't know who was put out.
    pub fn unaware(&self) -> Vec<String> {
        let out = self.commands().out.clone();
        let mut unaware = vec![];
        for host in 0..self.0.plan.hosts {
            let Some(serving) = self.serving(host) else { continue };
            for other in &out {
                if member(*other).is_ok_and(|other| !knows_out(&serving.membership, &other)) {
                    unaware.push(format!("{} still hears {}", host_name(host), host_name(*other)));
                }
            }
        }
        unaware
    }
}
