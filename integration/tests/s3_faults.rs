//! The real binary on a Garage behind a proxy that lies, refuses, stalls and cuts. Whatever happens: nothing acknowledged is
//! lost, no snapshot is visible before it is whole, an error names what failed, and the same command finishes afterwards.
//!
//! `WINDLASS_SEED` replays; `WINDLASS_KILLS` sets how many rounds of random faults (one for each 50), `WINDLASS_CUT_S` how
//! long the network is away.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code; what was tried belongs to the report of a run"
)]

mod fixture;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fixture::on_s3::setting;
use fixture::{Stage, create, create_args, fails, list, restore_args, text, try_create, try_restore, verify};
use windlass_integration::fault_proxy::{Fate, HttpProxy, Seen};
use windlass_integration::process::{Ended, Windlass};
use windlass_integration::s3_server::Garage;
use windlass_integration::{Random, disk};
use wire::Code;

/// A disk, a Garage, a proxy before it, and who uses which way.
struct Scene {
    stage: Stage,
    proxy: HttpProxy,
    disk: PathBuf,
    garage: Garage,
}

impl Scene {
    fn new(name: &str) -> Self {
        let stage = fixture::small_stage(name);
        let garage = Garage::start().unwrap();
        let proxy = HttpProxy::start(garage.account.address()).unwrap();
        let disk = stage.scratch.join("disk.raw");
        stage.put(&stage.good, &disk);
        let scene = Self {
            stage,
            proxy,
            disk,
            garage,
        };
        scene.direct("init").run(&["repo", "init", "--json"]).unwrap().success();
        scene
    }

    fn state(&self, name: &str) -> Windlass {
        Windlass::new(&self.stage.scratch.dir(name).unwrap().join("state")).unwrap()
    }

    /// A windlass that reaches the server past the proxy.
    fn direct(&self, name: &str) -> Windlass {
        self.garage.account.windlass(self.state(name), "r")
    }

    /// A windlass behind the proxy, with more keys in its URL.
    fn behind(&self, name: &str, keys: &str) -> Windlass {
        let account = self.garage.account.through(self.proxy.address());
        let url = format!("{}&stall_timeout_s=1{keys}", account.url("r"));
        account.windlass(self.state(name), "r").env("WINDLASS_REPO", url)
    }

    fn reset(&self, to: &std::path::Path) {
        std::fs::write(&self.disk, std::fs::read(to).unwrap()).unwrap();
    }
}

fn is_pack(seen: &Seen, method: &str) -> bool {
    seen.method == method && seen.is_of("packs/")
}

/// A random fault that heals, now and then; the same for the same seed and number.
fn now_and_then(seed: u64, seen: &Seen) -> Fate {
    let mut random = Random::new(seed ^ seen.number.wrapping_mul(0x9e37_79b9));
    if random.below(100) >= 12 {
        return Fate::Pass;
    }
    match random.below(9) {
        0 => Fate::Answer(500, "InternalError"),
        1 => Fate::Answer(503, "SlowDown"),
        2 => Fate::DoneButAnswer(500, "InternalError"),
        3 => Fate::DoneButClosed,
        4 => Fate::CloseInBody,
        5 => Fate::StallInBody,
        6 => Fate::Stall,
        7 => Fate::Delay(Duration::from_millis(random.below(300))),
        _ => Fate::Answer(502, ""),
    }
}

#[test]
fn faults_that_heal_are_not_noticed() {
    let rounds = (setting("WINDLASS_KILLS", 50) / 50).max(1);
    for seed in (setting("WINDLASS_SEED", 1)..).take(usize::try_from(rounds).unwrap()) {
        let scene = Scene::new("s3-heals");
        scene.proxy.rule(move |seen| now_and_then(seed, seen));
        let windlass = scene.behind("w", "");
        let good = create(&windlass, &scene.disk);
        scene.reset(&scene.stage.bad);
        windlass.run(&restore_args(&good, &scene.disk)).unwrap().success();
        disk::assert_same(&scene.stage.good, &scene.disk);
        let hits = scene
            .proxy
            .seen()
            .iter()
            .filter(|s| now_and_then(seed, s) != Fate::Pass)
            .count();
        println!("seed {seed}: {hits} faults in {} requests", scene.proxy.seen().len());
        assert!(hits > 0, "seed {seed}: no fault was met");
        verify(&scene.direct("reader"));
        assert_eq!(list(&scene.direct("reader")).len(), 2);
    }
}

#[test]
fn a_create_that_is_refused_leaves_nothing_visible_and_goes_on_later() {
    for (fate, code) in [
        (Fate::Answer(403, "AccessDenied"), Code::Denied),
        (Fate::Answer(500, "InternalError"), Code::Unavailable),
        (Fate::Answer(403, "RequestTimeTooSkewed"), Code::Denied),
        (Fate::Stall, Code::Unavailable),
    ] {
        let scene = Scene::new("s3-refused");
        let refuse = fate.clone();
        scene.proxy.rule(move |seen| {
            if is_pack(seen, "PUT") {
                refuse.clone()
            } else {
                Fate::Pass
            }
        });
        let windlass = scene.behind("w", "&retry_for_s=1");
        let ended = try_create(&windlass, &scene.disk);
        let hint = ended.json()["error"]["hint"].clone();
        let said = fails(ended, code);
        for word in [
            "packs/",
            "s3://windlass-tests/r",
            &format!("http://{}", scene.proxy.address()),
        ] {
            assert!(said.contains(word), "{fate:?}: no {word} in {said}");
        }
        assert!(hint.is_string(), "{fate:?}: no next step: {said}");
        assert!(list(&scene.direct("reader")).is_empty(), "{fate:?}");
        scene.proxy.behave();
        create(&windlass, &scene.disk);
        verify(&scene.direct("reader"));
    }
}

#[test]
fn a_snapshot_whose_acknowledgement_is_lost_is_whole_or_not_there() {
    let scene = Scene::new("s3-unheard");
    let unheard = |seen: &Seen| seen.method == "PUT" && seen.is_of("snapshots/");
    scene.proxy.rule(move |seen| match unheard(seen) {
        true => Fate::DoneButAnswer(500, "InternalError"),
        false => Fate::Pass,
    });
    fails(
        try_create(&scene.behind("w", "&retry_for_s=1"), &scene.disk),
        Code::Unavailable,
    );
    // the server did it, so it may be seen; then it is whole
    let reader = scene.direct("reader");
    let seen = list(&reader);
    assert_eq!(seen.len(), 1);
    verify(&reader);
    let out = scene.stage.scratch.join("out.raw");
    let id = text(&seen[0], "id");
    let output = fixture::show(&out);
    reader
        .run(&["snapshot", "export", "--json", &id, "--output", &output])
        .unwrap()
        .success();
    disk::assert_same(&scene.stage.good, &out);
}

#[test]
fn packs_that_are_lost_or_changed_are_told_and_nothing_wrong_is_written() {
    let scene = Scene::new("s3-changed");
    let windlass = scene.behind("w", "&retry_for_s=1");
    let good = create(&windlass, &scene.disk);
    for fate in [
        Fate::DoneButAnswer(404, "NoSuchKey"),
        Fate::AnotherBody,
        Fate::TurnBit,
        Fate::Truncate,
    ] {
        scene.reset(&scene.stage.bad);
        let change = fate.clone();
        scene.proxy.rule(move |seen| {
            if is_pack(seen, "GET") {
                change.clone()
            } else {
                Fate::Pass
            }
        });
        let said = fails(try_restore(&windlass, &good, &scene.disk), Code::Corrupt);
        assert!(said.contains("packs/") || said.contains("blob"), "{fate:?}: {said}");
        scene.proxy.behave();
        windlass.run(&restore_args(&good, &scene.disk)).unwrap().success();
        disk::assert_same(&scene.stage.good, &scene.disk);
    }
    verify(&windlass);
}

#[test]
fn an_object_that_is_really_gone_is_found_by_verify() {
    let scene = Scene::new("s3-gone");
    let windlass = scene.behind("w", "");
    create(&windlass, &scene.disk);
    scene.proxy.rule(|seen| match is_pack(seen, "GET") {
        true => Fate::Answer(404, "NoSuchKey"),
        false => Fate::Pass,
    });
    let said = fails(windlass.run(&["snapshot", "verify", "--json"]).unwrap(), Code::Corrupt);
    assert!(said.contains("1") || said.contains("packs/"), "{said}");
}

/// Runs `arguments` behind the proxy and cuts the line for so long once a request that `when` accepts has been seen.
fn cut_in(scene: &Scene, windlass: &Windlass, arguments: &[String], for_: Duration, when: fn(&Seen) -> bool) -> Ended {
    scene.proxy.forget();
    let met = std::sync::Arc::new(AtomicU64::new(0));
    let count = met.clone();
    scene.proxy.rule(move |seen| match when(seen) {
        // the first of them waits for the cut, so that the command can't be through before it
        true if count.fetch_add(1, Ordering::SeqCst) == 0 => Fate::Delay(Duration::from_secs(2)),
        _ => Fate::Pass,
    });
    let running = windlass.spawn(arguments).unwrap();
    let mut looks = 0;
    while met.load(Ordering::SeqCst) == 0 {
        std::thread::sleep(Duration::from_millis(2));
        looks += 1;
        assert!(looks < 60_000, "no such request came: {:?}", scene.proxy.seen());
    }
    scene.proxy.cut(for_);
    running.wait(Duration::from_secs(280)).unwrap()
}

#[test]
fn a_cut_of_the_network_is_outlived_by_create_and_restore() {
    let scene = Scene::new("s3-cut");
    let away = Duration::from_secs(setting("WINDLASS_CUT_S", 3));
    // slow enough that the cut falls into the work
    let windlass = scene.behind("w", "&upload_bytes_per_s_max=4000000&download_bytes_per_s_max=2000000");
    let created = cut_in(&scene, &windlass, &create_args(&scene.disk), away, |s| {
        is_pack(s, "PUT")
    });
    let good = text(&created.success().json(), "id");
    scene.reset(&scene.stage.bad);
    let restored = cut_in(&scene, &windlass, &restore_args(&good, &scene.disk), away, |s| {
        is_pack(s, "GET")
    });
    restored.success();
    disk::assert_same(&scene.stage.good, &scene.disk);
    scene.proxy.behave();
    verify(&windlass);
}

#[test]
fn a_cut_that_lasts_too_long_ends_the_command_and_the_same_one_goes_on() {
    let scene = Scene::new("s3-long-cut");
    let windlass = scene.behind(
        "w",
        "&retry_for_s=1&upload_bytes_per_s_max=4000000&download_bytes_per_s_max=2000000",
    );
    let away = Duration::from_secs(3600);
    let created = cut_in(&scene, &windlass, &create_args(&scene.disk), away, |s| {
        is_pack(s, "PUT")
    });
    fails(created, Code::Unavailable);
    assert!(list(&scene.direct("reader")).is_empty());
    scene.proxy.mend();
    let good = create(&windlass, &scene.disk);
    scene.reset(&scene.stage.bad);
    let restored = cut_in(&scene, &windlass, &restore_args(&good, &scene.disk), away, |s| {
        is_pack(s, "GET")
    });
    fails(restored, Code::Unavailable);
    scene.proxy.mend();
    windlass.run(&restore_args(&good, &scene.disk)).unwrap().success();
    disk::assert_same(&scene.stage.good, &scene.disk);
}
