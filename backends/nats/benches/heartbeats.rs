//! What membership costs one host of a large fleet: a whole house in this process, over a real server, while another process beats
//! for so many hosts: `cargo bench -p windlass-nats --bench heartbeats [-- HOSTS BEAT_MS SECONDS]` (10000, 5000, 30).
//!
//! Each of the simulated hosts does what a host does: it renews the lease on its id, then puts its beat. What is counted is this
//! process alone: its connection, the watch, the book of hosts, its own beats, its queues of jobs.

#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use integration::nats::Server;
use integration::scratch::Scratch;
use runtime::{Clock, HostsOptions, House, HouseOptions, Recover, SystemClock, job_source, state_clock};
use state::{Key, State};
use windlass_nats::{Identity, JetstreamJobs, JobsOptions, Lattice, NatsBus, NatsState, Settings};
use wire::HostId;
use wire::hosts::{HostBeat, HostCapacity, HostFacts, HostState};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Beats of the other process that are under way at once.
const WINDOW: usize = 128;

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

async fn lattice(url: &str, name: &str) -> Result<Lattice, Failure> {
    let settings = Settings {
        servers: vec![url.to_owned()],
        name: name.to_owned(),
        ..Settings::default()
    };
    Ok(Lattice::connect(settings, Some(Duration::from_secs(20))).await?)
}

fn facts(n: u64) -> HostFacts {
    HostFacts {
        rack: Some(format!("rack{:04}", n / 20)),
        row: Some(format!("row{:03}", n / 400)),
        zone: Some(format!("zone{}", n % 3)),
        labels: BTreeMap::from([("pool".to_owned(), "general".to_owned())]),
        capacity: HostCapacity::default(),
        concerns: vec!["snapshot".into(), "rack_scheduler".into()],
        version: "0.1.0".into(),
    }
}

/// The other process: beats for everyone, evenly, for ever.
async fn beat_for_all(url: &str, hosts: u64, beat_ms: u64) -> Result<(), Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let state = NatsState::open(&lattice(url, "everyone").await?, state_clock(&clock)).await?;
    let began = now();
    let beat = |turn: u64| {
        let state = state.clone();
        async move {
            let (n, count) = (turn % hosts, turn / hosts + 1);
            let due = Duration::from_micros(turn * beat_ms * 1_000 / hosts);
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
            let host = format!("host{n:05}");
            let beat = HostBeat {
                host: HostId::new(&host)?,
                boot: "01JBOOT0000000000000000000".into(),
                count,
                beat_every_ms: beat_ms,
                state: HostState::Up,
                jobs_running: n % 4,
                facts: facts(n),
            };
            state
                .lease(&Key::new(format!("hosts/leases/{host}"))?, &beat.boot, beat_ms * 3)
                .await?;
            let value = Bytes::from(serde_json::to_vec(&beat)?);
            state.put(&Key::new(format!("hosts/beats/{host}"))?, value).await?;
            Ok::<_, Failure>(())
        }
    };
    let mut beats = futures::stream::iter(0..).map(beat).buffer_unordered(WINDOW);
    while let Some(beaten) = beats.next().await {
        if let Err(e) = beaten {
            eprintln!("a beat was not kept: {e}");
        }
    }
    Ok(())
}

async fn house(url: &str) -> Result<(House, NatsState), Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let lattice = lattice(url, "measured").await?;
    let state = NatsState::open(&lattice, state_clock(&clock)).await?;
    let identity = Identity {
        version: "0.1.0".into(),
        started_at: "2026-11-25T03:00:00Z".into(),
    };
    let jobs = JetstreamJobs::open(&lattice, job_source(&clock), JobsOptions::default()).await?;
    let house = House::open(HouseOptions {
        host: HostId::new("measured")?,
        version: "0.1.0".into(),
        mode: "lattice".into(),
        state_dir: "(none)".into(),
        bus: Arc::new(NatsBus::open(&lattice, identity).await?),
        jobs: Arc::new(jobs),
        state: Arc::new(state.clone()),
        boot: runtime::ulid(&*clock),
        clock,
        recover: Recover::Resume,
        hosts: Some(HostsOptions {
            facts: facts(0),
            beat_every_ms: 5_000,
            drain_timeout: Duration::from_secs(1),
            earlier_boot: None,
            membership: None,
        }),
    });
    Ok((house.await?, state))
}

/// Seconds of CPU that this process took so far.
fn cpu_s() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Memory of this process, in MiB: now, and at most so far.
fn memory_mib() -> Result<(u64, u64), Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let of = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("0");
        line.split_whitespace()
            .next()
            .and_then(|kib| kib.parse::<u64>().ok())
            .unwrap_or(0)
            / 1_024
    };
    Ok((of("VmRSS:"), of("VmHWM:")))
}

async fn known(house: &House) -> Result<u64, Failure> {
    let status = house.status().await?;
    let hosts = status.concerns.iter().find(|c| c.concern == "hosts");
    Ok(hosts.and_then(|c| c.observed["hosts"].as_u64()).unwrap_or(0))
}

async fn measure(hosts: u64, beat_ms: u64, seconds: u64) -> Result<(), Failure> {
    let scratch = Scratch::new("heartbeats")?;
    let server = Server::start(&scratch.join("n1"))?;
    let (house, state) = house(&server.url()).await?;
    let (idle_mib, _) = memory_mib()?;
    let (began, cpu) = (now(), cpu_s()?);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let idle = (cpu_s()? - cpu) * 100.0 / began.elapsed().as_secs_f64();
    println!("alone: {idle:.2} % of one core, {idle_mib} MiB");
    let mut others = Command::new(std::env::current_exe()?)
        .args(["beats", &server.url(), &hosts.to_string(), &beat_ms.to_string()])
        .stdin(Stdio::null())
        .spawn()?;
    let patience = now() + Duration::from_secs(120);
    while known(&house).await? < hosts && now() < patience {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // everybody has beaten once: from here on it is as it stays
    let mark = Key::new("bench/mark")?;
    let first = state.put(&mark, Bytes::from_static(b"first")).await?;
    let (began, cpu) = (now(), cpu_s()?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (took, used) = (began.elapsed().as_secs_f64(), cpu_s()? - cpu);
    let last = state.put(&mark, Bytes::from_static(b"last")).await?;
    let (mib, most_mib) = memory_mib()?;
    println!(
        "{} hosts known, each beats every {beat_ms} ms; {:.0} writes/s (leases and beats) for {took:.0} s:\n\
         {:.2} % of one core, {mib} MiB ({most_mib} MiB at most)",
        known(&house).await?,
        (last - first) as f64 / took,
        used * 100.0 / took
    );
    others.kill()?;
    others.wait()?;
    house.drain(Duration::from_secs(1)).await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let number = |at: usize, otherwise: u64| words.get(at).map_or(Ok(otherwise), |text| text.parse());
    match words.first().map(String::as_str) {
        Some("beats") => beat_for_all(&words[1], number(2, 10_000)?, number(3, 5_000)?).await,
        _ => measure(number(0, 10_000)?, number(1, 5_000)?, number(2, 30)?).await,
    }
}
