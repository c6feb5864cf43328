//! Measures local files: range GETs and PUTs of packs through this crate, through `object_store`'s `LocalFileSystem`, and
//! by bare system calls. `cargo run --release -p windlass-object --example local_io [DIR]`.
#![expect(clippy::print_stdout, reason = "a measuring tool")]
#![expect(clippy::disallowed_methods, reason = "a measuring tool")]
#![expect(clippy::unwrap_used, reason = "a measuring tool")]

use std::future::Future;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, stream};
use object_store::ObjectStoreExt;
use store::{Key, Store};
use windlass_object as object;

const PACK_BYTES: u64 = 16 << 20;
const PACKS: u64 = 16;
const RANGE_BYTES: u64 = 64 << 10;
const RANGES: u64 = 20_000;

fn name(i: u64) -> String {
    format!("packs/{i}")
}

/// The `i`th range, scattered over all packs.
fn range(i: u64) -> (u64, u64) {
    let x = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    (x % PACKS, (x / PACKS) % (PACK_BYTES - RANGE_BYTES))
}

async fn timed<F: Future<Output = ()>>(n: u64, in_flight: usize, work: impl Fn(u64) -> F) -> Duration {
    let start = Instant::now();
    stream::iter((0..n).map(work))
        .buffer_unordered(in_flight)
        .collect::<Vec<_>>()
        .await;
    start.elapsed()
}

fn report(what: &str, took: Duration, n: u64, bytes: u64) {
    let seconds = took.as_secs_f64();
    let rate = (n * bytes) as f64 / 1e6 / seconds;
    println!("{what:<44} {:>8.1} us each {rate:>8.0} MB/s", seconds * 1e6 / n as f64);
}

async fn puts(body: &Bytes, ours: &Arc<dyn Store>, theirs: &object_store::local::LocalFileSystem, dir: &Path) {
    let bare = timed(PACKS, 1, |i| async move {
        let path = dir.join(format!("bare-{i}"));
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(body).unwrap();
        file.sync_data().unwrap();
        std::fs::rename(&path, dir.join(format!("bare-done-{i}"))).unwrap();
        std::fs::File::open(dir).unwrap().sync_all().unwrap();
    });
    report("put 16 MiB, bare system calls", bare.await, PACKS, PACK_BYTES);
    for in_flight in [1, 4] {
        let took = timed(PACKS, in_flight, |i| async move {
            ours.put(&Key::new(name(i)).unwrap(), body.clone()).await.unwrap();
        });
        report(
            &format!("put 16 MiB, ours, {in_flight} in flight"),
            took.await,
            PACKS,
            PACK_BYTES,
        );
        let took = timed(PACKS, in_flight, |i| async move {
            theirs
                .put(&format!("theirs/{i}").into(), body.clone().into())
                .await
                .unwrap();
        });
        report(
            &format!("put 16 MiB, object_store, {in_flight} in flight"),
            took.await,
            PACKS,
            PACK_BYTES,
        );
    }
}

async fn ranges(ours: &Arc<dyn Store>, theirs: &object_store::local::LocalFileSystem, dir: &Path) {
    let files: Vec<_> = (0..PACKS)
        .map(|i| std::fs::File::open(dir.join(name(i))).unwrap())
        .collect();
    let files = &files;
    let bare = timed(RANGES, 1, |i| async move {
        let (pack, at) = range(i);
        let mut body = vec![0; RANGE_BYTES as usize];
        files[pack as usize].read_exact_at(&mut body, at).unwrap();
    });
    report("range 64 KiB, bare pread, one thread", bare.await, RANGES, RANGE_BYTES);
    for in_flight in [1, 16] {
        let took = timed(RANGES, in_flight, |i| async move {
            let (pack, at) = range(i);
            ours.get_range(&Key::new(name(pack)).unwrap(), at..at + RANGE_BYTES)
                .await
                .unwrap();
        });
        report(
            &format!("range 64 KiB, ours, {in_flight} in flight"),
            took.await,
            RANGES,
            RANGE_BYTES,
        );
        let took = timed(RANGES, in_flight, |i| async move {
            let (pack, at) = range(i);
            theirs
                .get_range(&name(pack).into(), at..at + RANGE_BYTES)
                .await
                .unwrap();
        });
        report(
            &format!("range 64 KiB, object_store, {in_flight} in flight"),
            took.await,
            RANGES,
            RANGE_BYTES,
        );
    }
}

#[tokio::main]
async fn main() {
    let parent = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(parent).unwrap();
    let ours = object::open(&format!("file://{}", dir.path().display())).unwrap();
    let theirs = object_store::local::LocalFileSystem::new_with_prefix(dir.path())
        .unwrap()
        .with_fsync(true);
    let body: Bytes = store::conformance::body(1, PACK_BYTES as usize);
    for _ in 0..2 {
        puts(&body, &ours, &theirs, dir.path()).await;
        ranges(&ours, &theirs, dir.path()).await;
    }
}
