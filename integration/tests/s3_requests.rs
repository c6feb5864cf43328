//! How many requests things cost, counted by a proxy before a real server: listings aside, since their number grows with what
//! is there.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code; the figures belong to the report of a run"
)]

mod fixture;

use fixture::create;
use windlass_integration::fault_proxy::{HttpProxy, Seen};
use windlass_integration::process::Windlass;
use windlass_integration::s3_server::Garage;
use windlass_integration::scratch::Scratch;
use windlass_integration::{Random, disk};

const PACK_BYTES: u64 = 16 << 20;

fn is_list(seen: &Seen) -> bool {
    seen.query.contains("list-type=2")
}

fn shown(seen: &[Seen]) -> String {
    let line = |s: &Seen| format!("{} {} {} {}\n", s.status, s.method, s.path, s.body_bytes);
    seen.iter().filter(|s| !is_list(s)).map(line).collect()
}

#[test]
fn requests_of_a_snapshot_are_few() {
    let scratch = Scratch::new("s3-requests").unwrap();
    let garage = Garage::start().unwrap();
    let proxy = HttpProxy::start(garage.account.address()).unwrap();
    let state = scratch.dir("w").unwrap().join("state");
    let windlass = garage
        .account
        .through(proxy.address())
        .windlass(Windlass::new(&state).unwrap(), "r");
    windlass.run(&["repo", "init", "--json"]).unwrap().success();
    let path = scratch.join("disk.raw");
    disk::sparse(&path, 256 << 20).unwrap();
    for (at, length) in [(0, 37 << 20), (100 << 20, 5 << 20)] {
        disk::overwrite(&path, at, &disk::random_bytes(&mut Random::new(at + 1), length)).unwrap();
    }

    proxy.forget();
    create(&windlass, &path);
    let first = proxy.seen();
    let puts: Vec<_> = first.iter().filter(|s| s.method == "PUT").collect();
    let new_bytes: u64 = 42 << 20;
    let most = new_bytes.div_ceil(PACK_BYTES) + 4;
    println!(
        "{} PUTs for {} MiB of new data, at most {most}",
        puts.len(),
        new_bytes >> 20
    );
    assert!(puts.len() as u64 <= most, "{}", shown(&first));

    proxy.forget();
    create(&windlass, &path);
    let second = proxy.seen();
    let beyond = second.iter().filter(|s| !is_list(s)).count();
    println!(
        "{beyond} requests beyond {} of listing for a snapshot without change",
        second.len() - beyond
    );
    assert!(beyond <= 6, "{}", shown(&second));

    // and the tenth costs no more than the second
    for _ in 0..8 {
        create(&windlass, &path);
    }
    proxy.forget();
    create(&windlass, &path);
    let tenth = proxy.seen();
    let beyond = tenth.iter().filter(|s| !is_list(s)).count();
    assert!(beyond <= 6, "{}", shown(&tenth));
}
