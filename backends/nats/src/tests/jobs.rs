//! Jobs over JetStream: the suite of the port, on one server and on a cluster of three.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use integration::nats::{Cluster, Server};
use integration::scratch::Scratch;
use jobs::Limits;
use jobs::conformance::{self, Bench, Hand, hand, source};

use super::{PATIENCE, settings};
use crate::jobs::{JobsOptions, STREAMS};
use crate::{JetstreamJobs, Lattice};

/// A fleet of its own for each store: the streams are made anew.
struct Fleet {
    urls: String,
    hand: Hand,
    replicas: usize,
}

fn options(limits: Limits) -> JobsOptions {
    JobsOptions {
        limits,
        // so short that a duplicate comes after it
        duplicate_window_ms: 100,
    }
}

impl Fleet {
    async fn connect(&self) -> Lattice {
        Lattice::connect(settings(&self.urls), PATIENCE).await.unwrap()
    }
}

#[async_trait]
impl Bench for Fleet {
    type Store = JetstreamJobs;
    async fn fresh(&self, limits: Limits) -> JetstreamJobs {
        let lattice = self.connect().await;
        for name in STREAMS {
            let _not_there_at_first = lattice.jetstream().delete_stream(name).await;
        }
        assert_eq!(lattice.replicas(), self.replicas);
        JetstreamJobs::open(&lattice, source(&self.hand), options(limits))
            .await
            .unwrap()
    }
    async fn elsewhere(&self, _: &JetstreamJobs) -> JetstreamJobs {
        let lattice = self.connect().await;
        JetstreamJobs::open(&lattice, source(&self.hand), options(conformance::LIMITS))
            .await
            .unwrap()
    }
    fn hand(&self) -> &Hand {
        &self.hand
    }
    async fn pass(&self, ms: u64) {
        self.hand.fetch_add(ms, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_on_one_server_conform() {
    let scratch = Scratch::new("jobs-one").unwrap();
    let server = Server::start(&scratch.join("n1")).unwrap();
    let fleet = Fleet {
        urls: server.url(),
        hand: hand(),
        replicas: 1,
    };
    conformance::all(&fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_on_a_cluster_of_three_conform() {
    let scratch = Scratch::new("jobs-three").unwrap();
    let cluster = Cluster::start(scratch.path()).unwrap();
    let fleet = Fleet {
        urls: cluster.urls(),
        hand: hand(),
        replicas: 3,
    };
    conformance::all(&fleet).await;
}
