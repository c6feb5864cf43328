//! One server of three is cut from the other two by the network, and healed: what either side acknowledged is there afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use integration::nats::Cluster;
use state::{Key, State};

use super::faults::{caught_up, from_environment};
use super::*;
use crate::NatsState;

/// Keys with the values that were acknowledged for them.
type Ledger = BTreeMap<String, u64>;

/// Writes two sorts of key, new ones and one that is written over and over by compare-and-set, as fast as they are acknowledged.
async fn write_until(
    stop: Arc<AtomicBool>,
    state: NatsState,
    name: &'static str,
    kept: Arc<AtomicU64>,
) -> (Ledger, u64) {
    let (mut ledger, mut unknown) = (Ledger::new(), 0);
    let counter = Key::new(format!("{name}/counter")).unwrap();
    for n in 0_u64.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let key = format!("{name}/{n}");
        match state
            .create(&Key::new(key.clone()).unwrap(), Bytes::from(n.to_string()))
            .await
        {
            Ok(_) => {
                ledger.insert(key, n);
                kept.fetch_add(1, Ordering::SeqCst);
            }
            Err(e) => {
                assert_eq!(e.kind, state::Kind::Unavailable, "{e}");
                unknown += 1;
            }
        }
        if state.put(&counter, Bytes::from(n.to_string())).await.is_ok() {
            ledger.insert(counter.to_string(), n);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (ledger, unknown)
}

async fn holds(state: &NatsState, ledger: &Ledger, name: &str) {
    let counter = format!("{name}/counter");
    for (key, value) in ledger {
        let entry = state.get(&Key::new(key.clone()).unwrap()).await.unwrap();
        let found: u64 = String::from_utf8_lossy(&entry.expect("acknowledged").value)
            .parse()
            .unwrap();
        match *key == counter {
            // a later write, whose acknowledgement was lost, may stand there
            true => assert!(found >= *value, "{key}: {found} after {value} was acknowledged"),
            false => assert_eq!(found, *value, "{key}"),
        }
    }
}

async fn state_at(url: &str) -> NatsState {
    let settings = Settings {
        ack_timeout_ms: 1_000,
        ..settings(url)
    };
    let lattice = Lattice::connect(settings, PATIENCE).await.unwrap();
    NatsState::open(&lattice, Arc::new(|| 1)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_cut_from_two_acknowledges_nothing_that_is_lost() {
    let scratch = Scratch::new("partition").unwrap();
    let (cluster, links) = Cluster::start_linked(scratch.path()).unwrap();
    let _made = bus_at(&cluster.urls()).await;
    let _made_too = state_at(&cluster.urls()).await;
    // the leader is cut off: the worst, for it has to notice that it is none any more
    let victim = cluster.leader_of("KV_windlass").expect("a leader");
    let others: Vec<String> = (0..3)
        .filter(|n| *n != victim)
        .map(|n| cluster.servers[n].url())
        .collect();
    let (many, lone) = (
        state_at(&others.join(",")).await,
        state_at(&cluster.servers[victim].url()).await,
    );
    // one that happens to be connected to the victim, and knows the others
    let mover = loop {
        let state = state_at(&cluster.urls()).await;
        if state.lattice().server() == cluster.servers[victim].name() {
            break state;
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    let (kept_by_many, kept_by_lone) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let kept_by_mover = Arc::new(AtomicU64::new(0));
    let moves = tokio::spawn(write_until(stop.clone(), mover.clone(), "mover", kept_by_mover.clone()));
    let writers = [
        tokio::spawn(write_until(stop.clone(), many.clone(), "many", kept_by_many.clone())),
        tokio::spawn(write_until(stop.clone(), lone.clone(), "lone", kept_by_lone.clone())),
    ];
    connecting::until(|| kept_by_many.load(Ordering::SeqCst) > 20 && kept_by_lone.load(Ordering::SeqCst) > 20).await;
    links.cut(victim);
    eprintln!("{} is cut off", cluster.servers[victim].name());
    let began = tokio::time::Instant::now();
    let (before, lone_before) = (kept_by_many.load(Ordering::SeqCst), kept_by_lone.load(Ordering::SeqCst));
    // the two choose a leader and go on, while the cut lasts
    connecting::until(|| kept_by_many.load(Ordering::SeqCst) > before + 20).await;
    eprintln!("the two go on after {} ms", began.elapsed().as_millis());
    let mover_before = kept_by_mover.load(Ordering::SeqCst);
    connecting::until(|| kept_by_mover.load(Ordering::SeqCst) > mover_before + 20).await;
    assert_ne!(mover.lattice().server(), cluster.servers[victim].name());
    eprintln!(
        "who was connected to it goes on elsewhere after {} ms",
        began.elapsed().as_millis()
    );
    let cut = Duration::from_secs(from_environment("WINDLASS_CUT_S", 6));
    tokio::time::sleep_until(began + cut).await;
    let during = kept_by_lone.load(Ordering::SeqCst) - lone_before;
    links.heal(victim);
    cluster.wait_whole().unwrap();
    caught_up(&cluster, &["KV_windlass"]).await;
    let again = kept_by_lone.load(Ordering::SeqCst);
    connecting::until(|| kept_by_lone.load(Ordering::SeqCst) > again + 20).await;
    stop.store(true, Ordering::SeqCst);
    let [many_wrote, lone_wrote] = writers;
    let ((many_ledger, many_unknown), (lone_ledger, lone_unknown)) =
        (many_wrote.await.unwrap(), lone_wrote.await.unwrap());
    let (mover_ledger, _) = moves.await.unwrap();
    eprintln!(
        "the two: {} acknowledged, {many_unknown} unknown; the one: {} acknowledged ({during} just as it was cut), {lone_unknown} unknown",
        many_ledger.len(),
        lone_ledger.len()
    );
    assert!(lone_unknown > 0, "nothing was cut");
    for state in [&many, &lone] {
        holds(state, &many_ledger, "many").await;
        holds(state, &lone_ledger, "lone").await;
        holds(state, &mover_ledger, "mover").await;
    }
}
