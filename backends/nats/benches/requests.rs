//! A request through NATS, inlet, mailbox, actor and back, beside a bare async-nats echo that decodes the same message, in one run,
//! alternated: `cargo bench -p windlass-nats --bench requests`.
//!
//! Both ends of both are in this process, each with a connection of its own; one lone nats-server passes the messages on. Logs are
//! filtered as a daemon's are (level info). What is not equal: windlass's answers are looked into for errors. Then the same requests
//! signed beside unsigned (`signed` behind `--`: that alone). With `bare`, `ours` or `inside` (the in-process bus) behind `--` that way
//! alone is asked, 64 at once, for a profiler to look at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Bus, Delivery, Endpoint, InProcess, Registration, Service};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use integration::nats::Server;
use integration::scratch::Scratch;
use runtime::{Call, Clock, Concern, Effect, House, HouseOptions, Limits, Recover, Routes, SystemClock, job_source};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trust::{Book, Bounds, Fleet, Row, SignedBus};
use windlass_nats::{Identity, Lattice, NatsBus, Settings};
use wire::{Address, ConcernName, Headers, HostId, Request, Sender, Subject};

const ROUNDS: usize = 7;
/// Requests of a round that is asked one after the other.
const IN_TURN: usize = 4_000;
/// Requests of a round that is asked at once, and how many are under way.
const AT_ONCE: usize = 30_000;
const WINDOW: usize = 64;
/// So many times as many when one way alone is asked.
const ALONE: usize = 5;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// What is asked, and answered.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Echo {
    n: u64,
    vm: String,
    disks: Vec<String>,
}

impl Request for Echo {
    type Reply = Echo;
    const CONCERN: &'static str = "mill";
    const VERB: &'static str = "echo";
    const ADDRESS: Address = Address::Host;
    const ABOUT: &'static str = "Echoes";
    fn sample() -> Self {
        Self {
            n: 7,
            vm: "web1".into(),
            disks: vec!["/srv/web1.raw".into(), "/srv/web1-data.raw".into()],
        }
    }
    fn sample_reply() -> Echo {
        Self::sample()
    }
}

struct Mill;

impl Concern for Mill {
    const NAME: &'static str = "mill";
    fn routes() -> Routes<Self> {
        Routes::new().on(Self::echo)
    }
    fn observed(&self) -> Value {
        Value::Null
    }
}

impl Mill {
    fn echo(&mut self, request: Echo, _: &Call) -> Effect<Self, Echo> {
        Effect::answer(Ok(request))
    }
}

fn host() -> Result<HostId, Failure> {
    Ok(HostId::new("h1")?)
}

/// Who signs, and whose signature is known: a fleet of one.
fn fleet(name: &HostId) -> Result<Fleet, Failure> {
    let identity = trust::make_token()?;
    let row = Row {
        member: Sender::Host(name.clone()),
        epoch: 1,
        key: identity.public(),
        revoked: false,
        may_admit: true,
        role: None,
    };
    let mut book = Book::default();
    book.pin(trust::core::book::Entry {
        row,
        signed: None,
        confirms: Vec::new(),
    });
    let clock = SystemClock::new();
    let now = Arc::new(move || clock.now_ms());
    Ok(Fleet::new(
        Some((Sender::Host(name.clone()), identity)),
        book,
        Bounds::default(),
        now,
    ))
}

/// Microseconds that signing a request takes, and hearing it: without a server.
fn signing(fleet: &Fleet) -> Result<(f64, f64), Failure> {
    let subject = Echo::subject(&host()?)?;
    let body = serde_json::to_vec(&Echo::sample())?;
    let (mut signed, mut heard) = (Vec::new(), Vec::new());
    for _ in 0..IN_TURN {
        let mut headers = Headers::default();
        let began = now();
        fleet.sign_request(&subject, &mut headers, &body)?;
        signed.push(began.elapsed().as_secs_f64() * 1e6);
        let began = now();
        fleet.hear_request(&subject, &headers, &body)?;
        heard.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok((median(signed).0, median(heard).0))
}

async fn house(bus: Arc<dyn Bus>) -> Result<House, Failure> {
    house_of(bus, host()?).await
}

async fn house_of(bus: Arc<dyn Bus>, host: HostId) -> Result<House, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let database = state::Database::in_memory()?;
    let house = House::open(HouseOptions {
        host,
        version: "bench".into(),
        mode: "bench".into(),
        state_dir: "(none)".into(),
        bus,
        jobs: Arc::new(jobs::Redb::new(
            database.clone(),
            job_source(&clock),
            jobs::Limits::default(),
        )),
        state: Arc::new(state::Redb::new(database, runtime::state_clock(&clock))),
        boot: runtime::ulid(&*clock),
        clock,
        recover: Recover::Resume,
        hosts: None,
    })
    .await?;
    house.start(Limits::default(), || Mill).await?;
    Ok(house)
}

async fn bus(url: &str) -> Result<NatsBus, Failure> {
    let settings = Settings {
        servers: vec![url.to_owned()],
        ..Settings::default()
    };
    let lattice = Lattice::connect(settings, Some(Duration::from_secs(20))).await?;
    let identity = Identity {
        version: "0.0.0".into(),
        started_at: "2026-11-25T00:00:00Z".into(),
    };
    Ok(NatsBus::open(&lattice, identity).await?)
}

/// One way to ask.
#[derive(Clone)]
enum Way {
    Bare(async_nats::Client),
    Windlass(Arc<dyn Bus>, HostId),
    /// The bus without inlet, mailbox and actor behind it.
    Bus(Arc<dyn Bus>, Subject),
    /// The same, and nobody looks into the bytes that it carries.
    Bytes(Arc<dyn Bus>, Subject, Bytes),
}

impl Way {
    async fn ask(&self, request: &Echo) -> Result<Echo, Failure> {
        match self {
            Way::Bare(client) => {
                let payload = Bytes::from(serde_json::to_vec(request)?);
                let message = client.request("bare.echo", payload).await?;
                Ok(serde_json::from_slice(&message.payload)?)
            }
            Way::Windlass(bus, host) => Ok(bus::call(&**bus, host, request, Headers::default()).await?),
            Way::Bus(bus, subject) => {
                let payload = Bytes::from(serde_json::to_vec(request)?);
                let answer = bus.request(subject, Headers::default(), payload).await?;
                Ok(serde_json::from_slice(&answer)?)
            }
            Way::Bytes(bus, subject, payload) => {
                let answer = bus.request(subject, Headers::default(), payload.clone()).await?;
                match answer.len() == payload.len() {
                    true => Ok(request.clone()),
                    false => Err("other bytes came back".into()),
                }
            }
        }
    }

    /// Microseconds of each, one after the other.
    async fn in_turn(&self, count: usize) -> Result<Vec<f64>, Failure> {
        let request = Echo::sample();
        let mut took = Vec::with_capacity(count);
        for _ in 0..count {
            let began = now();
            self.ask(&request).await?;
            took.push(began.elapsed().as_secs_f64() * 1e6);
        }
        took.sort_by(f64::total_cmp);
        Ok(took)
    }

    /// Requests a second.
    async fn at_once(&self, count: usize) -> Result<f64, Failure> {
        let request = Echo::sample();
        let began = now();
        futures::stream::iter(0..count)
            .map(|_| self.ask(&request))
            .buffer_unordered(WINDOW)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        Ok(count as f64 / began.elapsed().as_secs_f64())
    }
}

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn spread(name: &str, ours: Vec<f64>, theirs: Vec<f64>, unit: &str) -> String {
    let ratios = ours.iter().zip(&theirs).map(|(o, t)| o / t).collect();
    let ((ratio, least, most), (ours, ..), (theirs, ..)) = (median(ratios), median(ours), median(theirs));
    format!("{name}: {ours:.0} {unit} beside {theirs:.0} {unit}, ratio {ratio:.2} ({least:.2} to {most:.2})")
}

/// An echo on a port, which decodes (`echo`) or doesn't (`bytes`): what of a request's cost is the bus's own. Serves as long as the
/// registration is kept.
async fn bus_echo(served_by: &dyn Bus) -> Result<(Registration, Subject, Subject), Failure> {
    let endpoint = |verb| Endpoint {
        verb,
        address: Address::Host,
    };
    let service = Service {
        concern: ConcernName::new("pond")?,
        host: host()?,
        endpoints: vec![endpoint("echo"), endpoint("bytes")],
        queue_requests_max: 1024,
    };
    let subject = |verb| Subject::host(&host()?, "pond", verb).map_err(Failure::from);
    let incoming = served_by.serve(service).await?;
    let echo = |delivery: Delivery| {
        if delivery.subject.verb() == "bytes" {
            return delivery.responder.answer(delivery.payload);
        }
        let request = serde_json::from_slice::<Echo>(&delivery.payload);
        if let Some(answer) = request.ok().and_then(|request| serde_json::to_vec(&request).ok()) {
            delivery.responder.answer(answer.into());
        }
    };
    Ok((incoming.forward(echo).await, subject("echo")?, subject("bytes")?))
}

/// The echo that a person would write with async-nats.
async fn echo(client: async_nats::Client) -> Result<(), Failure> {
    let mut asked = client.subscribe("bare.echo").await?;
    client.flush().await?;
    tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            let Ok(request) = serde_json::from_slice::<Echo>(&message.payload) else {
                continue;
            };
            let (Some(reply), Ok(answer)) = (message.reply, serde_json::to_vec(&request)) else {
                continue;
            };
            let _asker_waits_in_vain = client.publish(reply, answer.into()).await;
        }
    });
    Ok(())
}

/// The same house asked with a signature on each request and without one, alternated.
#[expect(clippy::print_stdout, reason = "a benchmark's report")]
async fn signed_beside_unsigned(url: &str, unsigned: &Way) -> Result<(), Failure> {
    let name = HostId::new("h2")?;
    let fleet = fleet(&name)?;
    let state = state::Redb::new(state::Database::in_memory()?, Arc::new(|| 1));
    let serves = SignedBus::serving(
        Arc::new(bus(url).await?),
        fleet.clone(),
        Arc::new(state),
        "bench".into(),
    );
    let _house = house_of(Arc::new(serves), name.clone()).await?;
    let asks = SignedBus::asking(Arc::new(bus(url).await?), fleet.clone());
    let signed = Way::Windlass(Arc::new(asks), name);
    for way in [&signed, unsigned] {
        way.in_turn(IN_TURN / 4).await?;
    }
    let (mut p50, mut rates, mut added) = ([vec![], vec![]], [vec![], vec![]], vec![]);
    for round in 0..ROUNDS {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for n in order {
            let way = [&signed, unsigned][n];
            let took = way.in_turn(IN_TURN).await?;
            p50[n].push(took[took.len() / 2]);
            rates[n].push(way.at_once(AT_ONCE).await?);
        }
        added.push(p50[0][round] - p50[1][round]);
    }
    let ([signed_p50, bare_p50], [signed_rates, bare_rates]) = (p50, rates);
    println!("signed beside unsigned, both windlass over NATS, {ROUNDS} rounds:");
    println!("  {}", spread("p50, one at a time", signed_p50, bare_p50, "µs"));
    let (added, least, most) = median(added);
    println!("  added p50: {added:.0} µs ({least:.0} to {most:.0})");
    println!(
        "  {}",
        spread(&format!("{WINDOW} at once"), signed_rates, bare_rates, "/s")
    );
    let (sign, hear) = signing(&fleet)?;
    println!("  of that, without a server: signing {sign:.1} µs, hearing {hear:.1} µs");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark's report")]
#[tokio::main]
async fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_env_filter("info")
        .with_writer(std::io::sink)
        .init();
    let scratch = Scratch::new("requests")?;
    let server = Server::start(&scratch.join("n1"))?;
    let url = server.url();
    echo(async_nats::connect(&url).await?).await?;
    let _house = house(Arc::new(bus(&url).await?)).await?;
    let bare = Way::Bare(async_nats::connect(&url).await?);
    let ours = Way::Windlass(Arc::new(bus(&url).await?), host()?);
    let bus: Arc<dyn Bus> = Arc::new(InProcess::new());
    let _house_inside = house(bus.clone()).await?;
    let inside = Way::Windlass(bus, host()?);
    if std::env::args().any(|arg| arg == "signed") {
        return signed_beside_unsigned(&url, &ours).await;
    }
    let wanted = std::env::args().find_map(|arg| {
        let names = [("bare", &bare), ("ours", &ours), ("inside", &inside)];
        names.into_iter().find(|(name, _)| *name == arg)
    });
    if let Some((name, way)) = wanted {
        for _ in 0..ROUNDS {
            println!("{name}: {:.0}/s", way.at_once(AT_ONCE * ALONE).await?);
        }
        return Ok(());
    }
    for way in [&bare, &ours] {
        way.at_once(AT_ONCE / 4).await?;
        way.in_turn(IN_TURN / 4).await?;
    }
    let (mut p50, mut p99, mut rates) = ([vec![], vec![]], [vec![], vec![]], [vec![], vec![]]);
    for round in 0..ROUNDS {
        // which one comes first changes with each round
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for n in order {
            let way = [&ours, &bare][n];
            let took = way.in_turn(IN_TURN).await?;
            p50[n].push(took[took.len() / 2]);
            p99[n].push(took[took.len() * 99 / 100]);
            rates[n].push(way.at_once(AT_ONCE).await?);
        }
    }
    let ([our_p50, bare_p50], [our_p99, bare_p99], [our_rates, bare_rates]) = (p50, p99, rates);
    println!("requests, one lone nats-server, {ROUNDS} rounds, windlass beside a bare echo:");
    println!("  {}", spread("p50, one at a time", our_p50, bare_p50, "µs"));
    println!("  {}", spread("p99, one at a time", our_p99, bare_p99, "µs"));
    let over_nats = our_rates.clone();
    println!(
        "  {}",
        spread(&format!("{WINDOW} at once"), our_rates, bare_rates, "/s")
    );

    signed_beside_unsigned(&url, &ours).await?;

    inside.at_once(AT_ONCE).await?;
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        rates.push(inside.at_once(AT_ONCE).await?);
    }
    let (p50, ..) = median(inside.in_turn(IN_TURN).await?);
    println!(
        "  {}",
        spread(
            &format!("in-process, {WINDOW} at once, beside windlass over NATS"),
            rates,
            over_nats,
            "/s"
        )
    );
    println!("  in-process, one at a time: p50 {p50:.0} µs");
    bus_alone(&url).await
}

/// Both buses with nothing behind them.
#[expect(clippy::print_stdout, reason = "a benchmark's report")]
async fn bus_alone(url: &str) -> Result<(), Failure> {
    let (served, over_nats): (Arc<dyn Bus>, Arc<dyn Bus>) = (Arc::new(bus(url).await?), Arc::new(bus(url).await?));
    let (_served, echo, bytes) = bus_echo(&*served).await?;
    let inside: Arc<dyn Bus> = Arc::new(InProcess::new());
    let (_served_inside, ..) = bus_echo(&*inside).await?;
    let payload = Bytes::from(serde_json::to_vec(&Echo::sample())?);
    let json = |bus: &Arc<dyn Bus>| Way::Bus(bus.clone(), echo.clone());
    let carried = |bus: &Arc<dyn Bus>| Way::Bytes(bus.clone(), bytes.clone(), payload.clone());
    for (what, [inside, over_nats]) in [
        ("JSON on both sides", [json(&inside), json(&over_nats)]),
        ("bytes as they are", [carried(&inside), carried(&over_nats)]),
    ] {
        let (mut inside_rates, mut nats_rates) = (Vec::new(), Vec::new());
        for way in [&inside, &over_nats] {
            way.at_once(AT_ONCE / 4).await?;
        }
        for _ in 0..ROUNDS {
            inside_rates.push(inside.at_once(AT_ONCE * ALONE).await?);
            nats_rates.push(over_nats.at_once(AT_ONCE).await?);
        }
        let name = format!("the bus alone, {what}, {WINDOW} at once, in-process beside over NATS");
        println!("  {}", spread(&name, inside_rates, nats_rates, "/s"));
    }
    Ok(())
}
