//! One simulated world: its time, its chance, its network, its servers, and what was seen in it.
//!
//! Time is tokio's, paused: it jumps to the next moment at which something happens. Chance is one generator. There is one thread,
//! so that one seed is one run.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus::EventSender;
use bytes::Bytes;
use nats::testing::Outgoing;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use windlass_integration::Random;
use wire::Subject;
use wire::subject::EventFilter;

use super::plan::{HOSTS_MAX, Network};
use super::server::{Refused, Server};
use super::watch::{Watcher, Write};

/// The servers' time when the world begins, Unix milliseconds.
const BEGAN_MS: u64 = 1_700_000_000_000;

/// What is followed.
const FOLLOWED: &str = "$KV.windlass.";

/// A process of a host, by its number in this world.
pub type Process = usize;

/// One process as the world knows it.
#[derive(Debug)]
pub struct Known {
    pub host: usize,
    pub boot: String,
    pub alive: bool,
}

/// What a message meets on its way.
#[derive(Debug, Clone, Copy)]
struct Way {
    lost: bool,
    there_ms: u64,
    answer_lost: bool,
    back_ms: u64,
    again_ms: Option<u64>,
}

/// Everything that changes.
pub struct Inner {
    pub server: Server,
    pub network: Network,
    pub dice: Random,
    pub processes: Vec<Known>,
    /// Until when each host is cut off from the servers.
    cut_until_ms: [u64; HOSTS_MAX],
    cut_since_ms: [u64; HOSTS_MAX],
    /// How far each host's wall clock is off.
    pub skew_ms: [i64; HOSTS_MAX],
    pub watcher: Watcher,
    /// Who hears events.
    listeners: Vec<(Process, EventFilter, Arc<EventSender>)>,
    trace: Option<Vec<String>>,
    /// Somebody who follows the state has something to read.
    wrote: bool,
    /// Of everything that happened, so that two runs can be compared.
    pub print: u64,
}

/// See the head of the file.
pub struct World {
    inner: Mutex<Inner>,
    began: Instant,
    /// Something was written.
    pub changed: Notify,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

pub fn host_name(host: usize) -> String {
    format!("h{host}")
}

impl World {
    pub fn new(seed: u64, network: Network, jobs_open_max: u64, traced: bool, watcher: Watcher) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                server: Server::new(jobs_open_max),
                network,
                dice: Random::new(seed),
                processes: vec![],
                cut_until_ms: [0; HOSTS_MAX],
                cut_since_ms: [0; HOSTS_MAX],
                skew_ms: [0; HOSTS_MAX],
                watcher,
                listeners: vec![],
                trace: traced.then(Vec::new),
                wrote: false,
                print: 0xcbf2_9ce4_8422_2325,
            }),
            began: Instant::now(),
            changed: Notify::new(),
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since the world began, in milliseconds.
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The servers' time, Unix milliseconds.
    pub fn server_ms(&self) -> u64 {
        BEGAN_MS + self.elapsed_ms()
    }

    /// A host's own idea of the time.
    pub fn wall_ms(&self, host: usize) -> u64 {
        self.server_ms().saturating_add_signed(self.lock().skew_ms[host])
    }

    /// Notes what happens; the words are made only when somebody will read them.
    pub fn note(&self, words: impl FnOnce() -> String) {
        let at_ms = self.elapsed_ms();
        self.lock().note(at_ms, words);
    }

    pub fn begin_process(&self, host: usize) -> Process {
        let mut inner = self.lock();
        let process = inner.processes.len();
        let boot = format!("boot{process}");
        inner.processes.push(Known {
            host,
            boot,
            alive: true,
        });
        process
    }

    pub fn end_process(&self, process: Process) {
        self.lock().processes[process].alive = false;
    }

    pub fn is_alive(&self, process: Process) -> bool {
        self.lock().processes[process].alive
    }

    /// Goes on only while the process lives: whatever a dead one waits for never comes.
    pub async fn living(&self, process: Process) {
        if !self.is_alive(process) {
            std::future::pending::<()>().await;
        }
    }

    pub fn cut_off(&self, host: usize, for_ms: u64) {
        let now_ms = self.elapsed_ms();
        let mut inner = self.lock();
        if inner.cut_until_ms[host] <= now_ms {
            inner.cut_since_ms[host] = now_ms;
        }
        inner.cut_until_ms[host] = inner.cut_until_ms[host].max(now_ms + for_ms);
    }

    /// From now on everything arrives.
    pub fn heal(&self) {
        let mut inner = self.lock();
        inner.cut_until_ms = [0; HOSTS_MAX];
        inner.network = Network::perfect();
    }

    /// For how long the process's host has been cut off, if it is.
    pub fn cut_for_ms(&self, process: Process) -> Option<u64> {
        let now_ms = self.elapsed_ms();
        let inner = self.lock();
        let host = inner.processes[process].host;
        (inner.cut_until_ms[host] > now_ms).then(|| now_ms - inner.cut_since_ms[host])
    }

    /// Sends something to the servers that does `act` there, and waits for what comes back, until `until`. A request that was
    /// sent arrives, or is lost, whatever becomes of its sender.
    pub async fn exchange<T: Send + 'static>(
        self: &Arc<Self>,
        process: Process,
        until: Instant,
        may_come_twice: bool,
        act: impl Fn(&mut Inner, u64) -> T + Send + Sync + 'static,
    ) -> Option<T> {
        self.living(process).await;
        let way = self.way(process);
        let (tell, told) = oneshot::channel();
        if !way.lost {
            let world = self.clone();
            tokio::spawn(async move {
                pause(way.there_ms).await;
                let value = world.act(&act);
                pause(way.back_ms).await;
                if !way.answer_lost && world.cut_for_ms(process).is_none() {
                    let _nobody_waits = tell.send(value);
                }
                if let Some(again_ms) = way.again_ms.filter(|_| may_come_twice) {
                    pause(again_ms).await;
                    world.act(&act);
                }
            });
        }
        let answer = tokio::time::timeout_at(until, told).await;
        if let Ok(Err(_)) = answer {
            // nobody will say that it is lost
            tokio::time::sleep_until(until).await;
        }
        self.living(process).await;
        answer.ok().and_then(Result::ok)
    }

    /// Something that is said without waiting for an answer.
    pub fn say(self: &Arc<Self>, process: Process, act: impl Fn(&mut Inner, u64) + Send + 'static) {
        if !self.is_alive(process) {
            return;
        }
        let way = self.way(process);
        if way.lost {
            return;
        }
        let world = self.clone();
        tokio::spawn(async move {
            pause(way.there_ms).await;
            world.act(&act);
        });
    }

    /// What a message meets that comes from the servers: how long it takes, or `None` when it is lost.
    pub fn comes(&self, process: Process) -> Option<u64> {
        let way = self.way(process);
        (!way.lost).then_some(way.there_ms)
    }

    /// What a message meets that goes to another host: how long each of its copies takes; none when it is lost.
    pub fn ways(&self, process: Process) -> Vec<u64> {
        let way = self.way(process);
        let again = way.again_ms.map(|again_ms| way.there_ms + again_ms);
        let copies = [Some(way.there_ms), again].into_iter().flatten();
        copies.filter(|_| !way.lost).collect()
    }

    fn way(&self, process: Process) -> Way {
        let cut = self.cut_for_ms(process).is_some();
        let mut inner = self.lock();
        let network = inner.network;
        let mut hit = |per_mille: u64| inner.dice.below(1_000) < per_mille;
        let (lost, answer_lost, again) = (
            hit(network.lost_per_mille),
            hit(network.answer_lost_per_mille),
            hit(network.twice_per_mille),
        );
        let slow = hit(network.slow_per_mille);
        let most = if slow {
            network.slow_ms_max
        } else {
            network.delay_ms_max
        };
        Way {
            lost: lost || cut,
            there_ms: 1 + inner.dice.below(most),
            answer_lost,
            back_ms: 1 + inner.dice.below(most),
            again_ms: again.then(|| 1 + inner.dice.below(200)),
        }
    }

    /// A process hears these events from now on.
    pub fn listen(&self, process: Process, filter: EventFilter, sender: EventSender) {
        self.lock().listeners.push((process, filter, Arc::new(sender)));
    }

    /// Tells an event to whoever hears it: sooner or later, once, twice or never.
    pub fn tell(self: &Arc<Self>, process: Process, subject: &Subject, payload: &Bytes) {
        let listeners: Vec<(Process, Arc<EventSender>)> = {
            let inner = self.lock();
            let wanted = inner.listeners.iter().filter(|(_, filter, _)| filter.wants(subject));
            wanted.map(|(of, _, sender)| (*of, sender.clone())).collect()
        };
        let leaves = !self.way(process).lost;
        for (of, sender) in listeners {
            let way = self.way(of);
            let own = of == process;
            if !own && (!leaves || way.lost) {
                continue;
            }
            let (subject, payload) = (subject.clone(), payload.clone());
            tokio::spawn(async move {
                pause(way.there_ms).await;
                sender.push(subject.clone(), payload.clone());
                if let Some(again_ms) = way.again_ms {
                    pause(again_ms).await;
                    sender.push(subject, payload);
                }
            });
        }
    }

    /// At the servers, now.
    pub fn act<T>(&self, act: &impl Fn(&mut Inner, u64) -> T) -> T {
        let now_ms = self.server_ms();
        let mut inner = self.lock();
        let value = act(&mut inner, now_ms);
        inner.server.turn(now_ms);
        let wrote = std::mem::take(&mut inner.wrote);
        drop(inner);
        if wrote {
            self.changed.notify_waiters();
        }
        value
    }

    /// What happened, for a reader.
    pub fn take_trace(&self) -> Vec<String> {
        self.lock().trace.take().unwrap_or_default()
    }
}

impl Inner {
    pub fn note(&mut self, at_ms: u64, words: impl FnOnce() -> String) {
        self.mark(at_ms);
        if let Some(trace) = &mut self.trace {
            let words = words();
            words
                .bytes()
                .for_each(|b| self.print = (self.print ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
            trace.push(format!("{:>7} ms  {words}", at_ms));
        }
    }

    fn mark(&mut self, number: u64) {
        self.print = (self.print ^ number).wrapping_mul(0x100_0000_01b3);
    }

    /// A process publishes; whatever is stored is looked at.
    pub fn publish(&mut self, process: Process, message: &Outgoing, now_ms: u64) -> Result<u64, Refused> {
        let before = self.server.now_at(&message.subject);
        let last = before.as_ref().map_or(0, |m| m.sequence);
        let stored = self.server.publish(message, now_ms);
        let at_ms = now_ms - BEGAN_MS;
        match &stored {
            Ok(sequence) => {
                let after = self.server.now_at(&message.subject).filter(|m| m.sequence == *sequence);
                self.mark(*sequence);
                self.wrote |= message.subject.starts_with(FOLLOWED);
                if *sequence > last
                    && let Some(after) = after
                {
                    let known = &self.processes[process];
                    let write = Write {
                        host: known.host,
                        boot: &known.boot,
                        before: before.as_ref(),
                        after: &after,
                        now_ms,
                    };
                    let told = self.watcher.see(&write, self.trace.is_some());
                    if let Some(told) = told {
                        self.note(at_ms, || told);
                    }
                }
            }
            Err(refused) => {
                let who = self.processes[process].boot.clone();
                let host = host_name(self.processes[process].host);
                let words = refused.words.clone();
                self.note(at_ms, || format!("{host}/{who}: {} refused: {words}", message.subject));
            }
        }
        stored
    }
}

pub async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
