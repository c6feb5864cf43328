//! What the S3 client reaches with bare requests: 16 MiB objects PUT as many at once as a session uploads, and read back in ranges
//! as a restore reads them. `make bench` computes its ceilings on S3 from this.
//!
//! `WINDLASS_BENCH_S3=s3://… cargo bench -p windlass-s3 --bench rates` prints one JSON object of bytes a second: the best of
//! several rounds. What it wrote is removed.
#![expect(clippy::print_stdout, reason = "the report of a benchmark")]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use store::{Key, Store};

const ROUNDS: u64 = 3;
const OBJECTS: u64 = 12;
const OBJECT_BYTES: u64 = 16 << 20;
const PUTS_IN_FLIGHT: usize = 4;
const RANGE_BYTES: u64 = 4 << 20;
const GETS_IN_FLIGHT: usize = 16;

/// Bytes that no server can fold or compress.
fn noise(number: u64) -> Bytes {
    let mut bytes = vec![0; OBJECT_BYTES as usize];
    let mut x = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for word in bytes.chunks_exact_mut(8) {
        // xorshift64, Marsaglia 2003
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        word.copy_from_slice(&x.to_le_bytes());
    }
    bytes.into()
}

async fn put_all(store: &Arc<dyn Store>, objects: &[(Key, Bytes)]) {
    stream::iter(objects)
        .map(|(key, body)| store.put(key, body.clone()))
        .buffer_unordered(PUTS_IN_FLIGHT)
        .for_each(|put| async { put.expect("the server takes an object") })
        .await;
}

async fn get_all(store: &Arc<dyn Store>, objects: &[(Key, Bytes)]) {
    let ranges = objects
        .iter()
        .flat_map(|(key, _)| (0..OBJECT_BYTES / RANGE_BYTES).map(move |n| (key, n * RANGE_BYTES)));
    stream::iter(ranges)
        .map(|(key, at)| store.get_range(key, at..at + RANGE_BYTES))
        .buffer_unordered(GETS_IN_FLIGHT)
        .for_each(|got| async { assert_eq!(got.expect("the server gives a range").len() as u64, RANGE_BYTES) })
        .await;
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn main() {
    // `cargo test` runs benches too, without a server: nothing to do then
    let Ok(url) = std::env::var("WINDLASS_BENCH_S3") else {
        println!("WINDLASS_BENCH_S3 names no bucket; nothing was measured");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let store = windlass_s3::open(&url, &windlass_s3::Settings::default())
            .await
            .expect("the bucket opens");
        let bytes = (OBJECTS * OBJECT_BYTES) as f64;
        let (mut put, mut get) = (0_f64, 0_f64);
        for round in 0..ROUNDS {
            let named = |n| {
                (
                    Key::new(format!("rates/{round}-{n}")).expect("a key"),
                    noise(round * OBJECTS + n + 1),
                )
            };
            let objects: Vec<(Key, Bytes)> = (0..OBJECTS).map(named).collect();
            let began = Instant::now();
            put_all(&store, &objects).await;
            put = put.max(bytes / began.elapsed().as_secs_f64());
            let began = Instant::now();
            get_all(&store, &objects).await;
            get = get.max(bytes / began.elapsed().as_secs_f64());
            let keys: Vec<Key> = objects.into_iter().map(|(key, _)| key).collect();
            store.delete(&keys).await.expect("the server removes objects");
        }
        println!(
            "{}",
            serde_json::json!({"put_bytes_per_s": put, "get_bytes_per_s": get})
        );
    });
}
