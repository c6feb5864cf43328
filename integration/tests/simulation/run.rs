//! Runs one plan in one world, to the end: what happens is let happen, then the world heals, and then everything that was
//! acknowledged has to come to its end.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use planted::Fault;
use state::Slow;
use wire::HostId;
use wire::hosts::{HostOrder, HostState};
use wire::job::JobId;

use super::commands::Commands;
use super::host::{BEAT_MS, LEASE_MS, Serving, Start};
use super::plan::{HOSTS_MAX, Plan, What};
use super::racks::Known;
use super::watch::{Counts, Watcher};
use super::world::{Process, World, host_name, pause};

/// How long a healed world may take until everything has ended, in milliseconds.
const PATIENCE_MS: u64 = 90_000;
/// How often it is looked whether everything has ended, in milliseconds.
pub const LOOK_EVERY_MS: u64 = 500;
/// How often the servers look at their clock, in milliseconds.
const TURN_EVERY_MS: u64 = 50;
/// The pause between two rounds of a rack scheduler, in milliseconds.
const SWEEP_EVERY_MS: u64 = 4_000;
/// A process that ended is started again after this long, in milliseconds.
const START_AGAIN_MS: u64 = 1_000;

/// What came of a plan.
pub struct Outcome {
    /// What is wrong, if anything.
    pub wrong: Option<String>,
    pub trace: Vec<String>,
    /// Of everything that happened.
    pub print: u64,
    pub counts: Counts,
    /// How long it took in its own time, in milliseconds.
    pub took_ms: u64,
}

thread_local! {
    /// What panicked in the world that this thread runs.
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// A panic in a world is something that is wrong there, and no line on the terminal.
fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let in_world = PANICS.with_borrow_mut(|panics| match panics {
                Some(panics) => {
                    panics.push(info.to_string());
                    true
                }
                None => false,
            });
            if !in_world {
                before(info);
            }
        }));
    });
}

/// Runs a plan; with a fault planted, if one is named.
pub fn run(plan: &Plan, fault: Option<Fault>, traced: bool) -> Outcome {
    hear_panics();
    planted::plant(fault);
    PANICS.set(Some(vec![]));
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    let outcome = tokio.block_on(play(plan, traced));
    drop(tokio);
    PANICS.set(None);
    planted::plant(None);
    outcome
}

async fn play(plan: &Plan, traced: bool) -> Outcome {
    let watcher = Watcher::new(LEASE_MS, BEAT_MS);
    let world = World::new(plan.seed, plan.network, u64::MAX, traced, watcher);
    world.lock().skew_ms = plan.skew_ms;
    let play = Play(Arc::new(Stage {
        world: world.clone(),
        plan: plan.clone(),
        hosts: Mutex::default(),
        asked: Mutex::default(),
        racks: Mutex::default(),
        busy: Mutex::default(),
        commands: Mutex::default(),
    }));
    let turning = world.clone();
    tokio::spawn(async move {
        loop {
            pause(TURN_EVERY_MS).await;
            turning.act(&|_, _| ());
        }
    });
    play.to_the_end().await;
    let trace = world.take_trace();
    let inner = world.lock();
    Outcome {
        wrong: inner.watcher.wrong().map(str::to_owned),
        trace,
        print: inner.print,
        counts: inner.watcher.counts,
        took_ms: world.elapsed_ms(),
    }
}

/// One host as the play knows it.
#[derive(Debug, Clone, Default)]
struct Host {
    /// Its process; whatever an earlier one does counts no more.
    now: Option<Process>,
    serving: Option<Serving>,
    /// What its state directory says: who had it last.
    disk: Option<String>,
    /// What it keeps of the members.
    own: Arc<Slow>,
    /// It is to stay down.
    down: bool,
    twins: Vec<Process>,
}

#[derive(Debug)]
pub struct Stage {
    pub world: Arc<World>,
    pub plan: Plan,
    hosts: Mutex<[Host; HOSTS_MAX]>,
    /// Jobs that clients were told of, in order.
    pub asked: Mutex<Vec<JobId>>,
    /// What clients know of placements.
    pub racks: Mutex<Known>,
    /// Processes that answer a client just now.
    pub busy: Mutex<Vec<Process>>,
    /// What members told one another.
    pub commands: Mutex<Commands>,
}

/// Clones are the same play.
#[derive(Debug, Clone)]
pub struct Play(pub Arc<Stage>);

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Play {
    pub fn world(&self) -> &Arc<World> {
        &self.0.world
    }

    pub fn serving(&self, host: usize) -> Option<Serving> {
        lock(&self.0.hosts)[host].serving.clone()
    }

    pub fn wrong(&self) -> bool {
        let panicked = PANICS.with_borrow_mut(|panics| panics.as_mut().and_then(Vec::pop));
        let mut inner = self.world().lock();
        if let Some(panicked) = panicked {
            inner.watcher.say_wrong(panicked);
        }
        inner.watcher.wrong().is_some()
    }

    async fn to_the_end(&self) {
        let plan = self.0.plan.clone();
        for host in 0..plan.hosts {
            self.start(host);
        }
        let play = self.clone();
        tokio::spawn(async move { play.load_racks().await });
        for step in plan.steps {
            while self.world().elapsed_ms() < step.at_ms {
                pause((step.at_ms - self.world().elapsed_ms()).min(LOOK_EVERY_MS)).await;
                if self.wrong() {
                    return;
                }
            }
            self.world().note(|| format!("-- {:?}", step.what));
            self.happens(step.what);
        }
        pause(LOOK_EVERY_MS).await;
        self.heal().await;
    }

    /// Everybody comes back, and nothing is lost any more.
    async fn heal(&self) {
        self.world().note(|| "-- the world heals".to_owned());
        self.world().heal();
        let twins: Vec<Process> = lock(&self.0.hosts)
            .iter_mut()
            .flat_map(|h| std::mem::take(&mut h.twins))
            .collect();
        twins.into_iter().for_each(|twin| self.world().end_process(twin));
        for host in 0..self.0.plan.hosts {
            let down = std::mem::replace(&mut lock(&self.0.hosts)[host].down, false);
            if down {
                self.start(host);
            }
            let play = self.clone();
            tokio::spawn(async move { play.set_free(host).await });
        }
        let healed_ms = self.world().elapsed_ms();
        loop {
            pause(LOOK_EVERY_MS).await;
            if self.wrong() {
                return;
            }
            let left = self.unfinished();
            if left.is_empty() {
                return self.look_at_racks().await;
            }
            if self.world().elapsed_ms() - healed_ms > PATIENCE_MS {
                let why = format!("{PATIENCE_MS} ms after the world healed: {}", left.join("; "));
                self.world().lock().watcher.say_wrong(why);
                return;
            }
        }
    }

    /// What has not come to its end.
    fn unfinished(&self) -> Vec<String> {
        let mut left = self.world().lock().watcher.unended();
        for host in 0..self.0.plan.hosts {
            let Some(serving) = self.serving(host) else {
                left.push(format!("{} doesn't serve", host_name(host)));
                continue;
            };
            let seen = serving.house.hosts();
            let up = seen.iter().filter(|h| h.state == HostState::Up).count();
            if up != self.0.plan.hosts {
                left.push(format!("{} sees {up} hosts", host_name(host)));
            }
        }
        left.extend(self.unaware());
        let busy = self.answering().into_iter();
        left.extend(busy.map(|process| format!("process {process} answers a client")));
        left
    }

    /// Processes that answer somebody just now.
    fn answering(&self) -> Vec<Process> {
        let mut busy = lock(&self.0.busy).clone();
        busy.retain(|process| self.world().is_alive(*process));
        busy
    }

    /// What a process does for somebody who waits.
    pub async fn busy<T>(&self, process: Process, does: impl Future<Output = T>) -> T {
        lock(&self.0.busy).push(process);
        let done = does.await;
        self.world().living(process).await;
        let mut busy = lock(&self.0.busy);
        if let Some(at) = busy.iter().position(|of| *of == process) {
            busy.remove(at);
        }
        done
    }

    /// A person takes every order back.
    async fn set_free(&self, host: usize) {
        let Ok(id) = HostId::new(&host_name(host)) else { return };
        // what was told before may arrive yet
        pause(LOOK_EVERY_MS * 2).await;
        while !self.answering().is_empty() {
            pause(LOOK_EVERY_MS).await;
        }
        loop {
            if let Some(serving) = self.serving(host)
                && serving.house.tell(id.clone(), HostOrder::Serve).await.is_ok()
            {
                return;
            }
            pause(LOOK_EVERY_MS).await;
        }
    }

    fn start_of(&self, host: usize, earlier_boot: Option<String>, own: Arc<Slow>) -> Start {
        let process = self.world().begin_process(host);
        let boot = self.world().lock().processes[process].boot.clone();
        Start {
            world: self.world().clone(),
            process,
            host,
            boot,
            earlier_boot,
            own,
            deliveries_max: self.0.plan.deliveries_max,
            jobs_kept_max: self.0.plan.jobs_kept_max,
        }
    }

    /// Starts a host's process, and again whenever it ends by itself.
    fn start(&self, host: usize) {
        let Host { disk, own, .. } = lock(&self.0.hosts)[host].clone();
        let start = self.start_of(host, disk, own);
        {
            let mut hosts = lock(&self.0.hosts);
            hosts[host].now = Some(start.process);
            hosts[host].disk = Some(start.boot.clone());
        }
        let play = self.clone();
        tokio::spawn(async move {
            let process = start.process;
            play.live(start).await;
            play.world().end_process(process);
            pause(START_AGAIN_MS).await;
            let hosts = lock(&play.0.hosts);
            let again = hosts[host].now == Some(process) && !hosts[host].down;
            drop(hosts);
            if again {
                play.start(host);
            }
        });
    }

    /// The life of a process, until it ends by itself.
    async fn live(&self, start: Start) {
        let (host, process, boot) = (start.host, start.process, start.boot.clone());
        let world = self.world().clone();
        let served = start.serve().await;
        world.living(process).await;
        let serving = match served {
            Ok(serving) => serving,
            Err(why) => return world.note(|| format!("{}/{boot} can't serve: {why}", host_name(host))),
        };
        world.note(|| format!("{}/{boot} serves", host_name(host)));
        self.check_id(host, &boot);
        let (house, schedules, rounds) = (serving.house.clone(), serving.racks.clone(), world.clone());
        tokio::spawn(async move {
            loop {
                pause(SWEEP_EVERY_MS).await;
                rounds.living(process).await;
                schedules.go_round().await;
            }
        });
        {
            let mut hosts = lock(&self.0.hosts);
            if hosts[host].now == Some(process) {
                hosts[host].serving = Some(serving);
            }
        }
        house.evicted().await;
        world.living(process).await;
        world.note(|| format!("{}/{boot} has lost its id and ends", host_name(host)));
        let mut hosts = lock(&self.0.hosts);
        if hosts[host].now == Some(process) {
            hosts[host].serving = None;
        }
    }

    fn check_id(&self, host: usize, boot: &str) {
        let now_ms = self.world().server_ms();
        let mut inner = self.world().lock();
        let lease = inner
            .server
            .now_at(&format!("$KV.windlass.hosts.leases.{}", host_name(host)));
        inner.watcher.serves(host, boot, lease.as_ref(), now_ms);
    }

    fn happens(&self, what: What) {
        let play = self.clone();
        match what {
            What::Submit {
                host,
                request_id,
                on,
                work_ms,
            } => drop(tokio::spawn(async move {
                let request_id = request_id.map(|id| format!("q{id}"));
                // one request id, one request
                let work_ms = request_id.as_ref().map_or(work_ms, |_| 700);
                let on = on.filter(|_| request_id.is_none());
                play.submit(host, request_id, on, work_ms).await;
            })),
            What::Cancel { host, nth } => self.of_job(host, nth, |serving, id| async move {
                let _whatever_becomes_of_it = serving.jobs.cancel(&id).await;
            }),
            What::Retry { host, nth } => self.of_job(host, nth, |serving, id| async move {
                let _whatever_becomes_of_it = serving.jobs.retry(&id).await;
            }),
            What::Order { by, host, order } => {
                if let (Some(serving), Ok(id)) = (self.serving(by), HostId::new(&host_name(host))) {
                    tokio::spawn(async move {
                        let told = serving.house.tell(id, order);
                        play.busy(serving.process, told).await
                    });
                }
            }
            What::Crash {
                host,
                down_ms,
                keeps_disk,
            } => {
                self.crash(host, keeps_disk);
                self.up_again(host, down_ms);
            }
            What::Restart { host, down_ms } => drop(tokio::spawn(async move {
                let Some(serving) = play.serving(host) else { return };
                lock(&play.0.hosts)[host].down = true;
                serving.house.drain(Duration::from_secs(1)).await;
                if lock(&play.0.hosts)[host].now == Some(serving.process) {
                    play.crash(host, true);
                    play.up_again(host, down_ms);
                }
            })),
            What::Twin { host } => self.twin(host),
            What::Rack { host, wish } => drop(tokio::spawn(async move { play.wish(host, wish).await })),
            What::CutOff { host, for_ms } => self.world().cut_off(host, for_ms),
            What::Command { by, host } => self.command(by, host),
            What::Steal { host, nth, altered } => self.steal(host, nth, altered),
            What::PutOut { by, host } => drop(tokio::spawn(async move { play.put_out(by, host).await })),
            What::Leader => self.world().act(&|inner, _| inner.server.forget_deliveries()),
            What::Clock { host, by_ms } => self.world().lock().skew_ms[host] += by_ms,
        }
    }

    fn of_job<F: Future<Output = ()> + Send + 'static>(
        &self,
        host: usize,
        nth: u64,
        act: impl FnOnce(Serving, JobId) -> F,
    ) {
        let asked = lock(&self.0.asked).get(nth as usize).cloned();
        if let (Some(id), Some(serving)) = (asked, self.serving(host)) {
            tokio::spawn(act(serving, id));
        }
    }

    fn crash(&self, host: usize, keeps_disk: bool) {
        let mut hosts = lock(&self.0.hosts);
        let of = &mut hosts[host];
        of.serving = None;
        of.down = true;
        if !keeps_disk {
            of.disk = None;
            of.own = Arc::default();
        }
        if let Some(process) = of.now.take() {
            self.world().end_process(process);
        }
    }

    fn up_again(&self, host: usize, down_ms: u64) {
        let play = self.clone();
        tokio::spawn(async move {
            pause(down_ms).await;
            let down = std::mem::replace(&mut lock(&play.0.hosts)[host].down, false);
            if down {
                play.start(host);
            }
        });
    }

    /// Somebody copied a host's configuration.
    fn twin(&self, host: usize) {
        let start = self.start_of(host, None, Arc::default());
        lock(&self.0.hosts)[host].twins.push(start.process);
        let play = self.clone();
        tokio::spawn(async move {
            let process = start.process;
            play.live(start).await;
            play.world().end_process(process);
        });
    }
}
