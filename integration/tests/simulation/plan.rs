//! What happens to a world from outside: how its network is, and what people and faults do when. All of it follows from one seed,
//! and can be cut down afterwards.

use std::fmt;

use windlass_integration::Random;
use wire::hosts::HostOrder;

use super::racks::Wish;

/// Most hosts of a world.
pub const HOSTS_MAX: usize = 7;
/// Fewest hosts of a world that a seed makes.
const HOSTS_MIN: usize = 5;
/// Things happen until then, in milliseconds; afterwards the world heals.
const HAPPENS_MS: u64 = 24_000;
/// Request ids that a world's clients use.
const REQUEST_IDS: u64 = 6;

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Of 1,000 messages, how many never arrive.
    pub lost_per_mille: u64,
    /// Of 1,000 requests that were carried out, how many are not answered.
    pub answer_lost_per_mille: u64,
    /// Of 1,000 messages, how many arrive twice.
    pub twice_per_mille: u64,
    /// Of 1,000 messages, how many take up to `slow_ms_max`.
    pub slow_per_mille: u64,
    /// The longest delay of a slow message, in milliseconds.
    pub slow_ms_max: u64,
    /// The longest delay of any other, in milliseconds.
    pub delay_ms_max: u64,
}

impl Network {
    /// Nothing is lost.
    pub fn perfect() -> Self {
        Self {
            lost_per_mille: 0,
            answer_lost_per_mille: 0,
            twice_per_mille: 0,
            slow_per_mille: 0,
            slow_ms_max: 1,
            delay_ms_max: 5,
        }
    }

    fn of(dice: &mut Random) -> Self {
        let mut some = |most: u64| if dice.one_in(3) { 0 } else { dice.below(most) };
        Self {
            lost_per_mille: some(60),
            answer_lost_per_mille: some(80),
            twice_per_mille: some(50),
            slow_per_mille: some(100),
            slow_ms_max: 700,
            delay_ms_max: 5 + some(60),
        }
    }
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A client asks a host for work.
    Submit {
        host: usize,
        request_id: Option<u64>,
        /// On this host alone.
        on: Option<usize>,
        work_ms: u64,
    },
    /// A person asks for the end of the job that was asked for in so many-th place.
    Cancel { host: usize, nth: u64 },
    /// A person asks for it again.
    Retry { host: usize, nth: u64 },
    /// A person tells a host what to do.
    Order { by: usize, host: usize, order: HostOrder },
    /// Power fails.
    Crash {
        host: usize,
        down_ms: u64,
        keeps_disk: bool,
    },
    /// Ends in good order, and starts again.
    Restart { host: usize, down_ms: u64 },
    /// Somebody starts a second process with the same id.
    Twin { host: usize },
    /// The host doesn't reach the servers.
    CutOff { host: usize, for_ms: u64 },
    /// Somebody wants something of a host's rack scheduler.
    Rack { host: usize, wish: Wish },
    /// A member commands another one.
    Command { by: usize, host: usize },
    /// A thief sends a command that it heard once more, or changed.
    Steal { host: usize, nth: u64, altered: bool },
    /// A member puts another one out.
    PutOut { by: usize, host: usize },
    /// Another leader at the servers.
    Leader,
    /// Somebody sets a host's clock.
    Clock { host: usize, by_ms: i64 },
}

impl What {
    /// Who takes part.
    fn hosts(&self) -> Vec<usize> {
        match self {
            What::Submit { host, on, .. } => on.iter().copied().chain([*host]).collect(),
            What::Order { by, host, .. } | What::Command { by, host } | What::PutOut { by, host } => vec![*by, *host],
            What::Cancel { host, .. }
            | What::Retry { host, .. }
            | What::Crash { host, .. }
            | What::Restart { host, .. }
            | What::Twin { host }
            | What::Rack { host, .. }
            | What::Steal { host, .. }
            | What::CutOff { host, .. }
            | What::Clock { host, .. } => vec![*host],
            What::Leader => vec![],
        }
    }
}

/// When what happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub at_ms: u64,
    pub what: What,
}

/// See the head of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub hosts: usize,
    pub network: Network,
    /// How often a job may be delivered.
    pub deliveries_max: u32,
    /// Ended jobs that are kept.
    pub jobs_kept_max: u64,
    pub skew_ms: [i64; HOSTS_MAX],
    pub steps: Vec<Step>,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut dice = Random::new(seed ^ 0x5EED_0F1A);
        let hosts = HOSTS_MIN + dice.below((HOSTS_MAX - HOSTS_MIN + 1) as u64) as usize;
        let network = Network::of(&mut dice);
        let mut skew_ms = [0; HOSTS_MAX];
        for skew in &mut skew_ms {
            *skew = dice.below(1_200_001) as i64 - 600_000;
        }
        let count = 18 + dice.below(34);
        let mut steps: Vec<Step> = (0..count)
            .map(|_| Step {
                at_ms: 500 + dice.below(HAPPENS_MS),
                what: what(&mut dice, hosts as u64),
            })
            .collect();
        steps.sort_by_key(|step| step.at_ms);
        Self {
            seed,
            hosts,
            network,
            deliveries_max: if dice.one_in(4) { 2 } else { 20 },
            jobs_kept_max: 1_000,
            skew_ms,
            steps,
        }
    }

    /// Plans with less in them, the boldest first.
    pub fn smaller(&self) -> Vec<Self> {
        let mut found = Vec::new();
        let mut part = self.steps.len().div_ceil(2);
        while part > 0 {
            for from in (0..self.steps.len()).step_by(part) {
                let mut plan = self.clone();
                plan.steps.drain(from..(from + part).min(plan.steps.len()));
                found.push(plan);
            }
            part = if part == 1 { 0 } else { part.div_ceil(2) };
        }
        let last = self.hosts - 1;
        if self.hosts > 1 && self.steps.iter().all(|s| !s.what.hosts().contains(&last)) {
            found.push(Self {
                hosts: last,
                ..self.clone()
            });
        }
        type Quieten = fn(&mut Plan);
        let quieter: [Quieten; 8] = [
            |p| p.network = Network::perfect(),
            |p| p.network.lost_per_mille = 0,
            |p| p.network.answer_lost_per_mille = 0,
            |p| p.network.twice_per_mille = 0,
            |p| p.network.slow_per_mille = 0,
            |p| p.skew_ms = [0; HOSTS_MAX],
            |p| p.jobs_kept_max = 1_000,
            |p| p.deliveries_max = 20,
        ];
        for quieten in quieter {
            let mut plan = self.clone();
            quieten(&mut plan);
            if plan != *self {
                found.push(plan);
            }
        }
        found
    }
}

fn what(dice: &mut Random, hosts: u64) -> What {
    let host = dice.below(hosts) as usize;
    match dice.below(118) {
        0..=19 => What::Rack { host, wish: wish(dice) },
        20..=44 => What::Submit {
            host,
            request_id: dice.one_in(2).then(|| dice.below(REQUEST_IDS)),
            on: dice.one_in(4).then(|| dice.below(hosts) as usize),
            work_ms: 50 + dice.below(4_000),
        },
        45..=49 => What::Cancel {
            host,
            nth: dice.below(12),
        },
        50..=54 => What::Retry {
            host,
            nth: dice.below(12),
        },
        55..=59 => What::Order {
            by: dice.below(hosts) as usize,
            host,
            order: [HostOrder::Serve, HostOrder::Cordon, HostOrder::Drain][dice.below(3) as usize],
        },
        60..=72 => What::Crash {
            host,
            down_ms: 100 + dice.below(9_000),
            keeps_disk: !dice.one_in(3),
        },
        73..=77 => What::Restart {
            host,
            down_ms: 100 + dice.below(3_000),
        },
        78..=82 => What::Twin { host },
        83..=92 => What::CutOff {
            host,
            for_ms: 300 + dice.below(9_000),
        },
        93..=95 => What::Leader,
        100..=108 => What::Command {
            by: dice.below(hosts) as usize,
            host,
        },
        109..=114 => What::Steal {
            host,
            nth: dice.below(4),
            altered: dice.one_in(4),
        },
        115..=117 => What::PutOut {
            by: dice.below(hosts) as usize,
            host,
        },
        _ => What::Clock {
            host,
            by_ms: dice.below(7_200_001) as i64 - 3_600_000,
        },
    }
}

fn wish(dice: &mut Random) -> Wish {
    let (nth, vms) = (dice.below(6), 1 + dice.below(8));
    match dice.below(10) {
        0..=5 => Wish::Place {
            request_id: dice.one_in(2).then(|| dice.below(REQUEST_IDS)),
            vms: vms.max(2),
            groups: 1 + dice.below(2),
        },
        6 => Wish::Grow { nth, vms },
        7 => Wish::Shrink { nth, vms: 1 },
        _ => Wish::Release { nth },
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {} hosts, {:?}", self.seed, self.hosts, self.network)?;
        let Self {
            deliveries_max,
            jobs_kept_max,
            skew_ms,
            ..
        } = self;
        writeln!(
            f,
            "deliveries_max {deliveries_max}, jobs_kept_max {jobs_kept_max}, clocks off by {skew_ms:?} ms"
        )?;
        for step in &self.steps {
            writeln!(f, "{:>7} ms  {:?}", step.at_ms, step.what)?;
        }
        Ok(())
    }
}
