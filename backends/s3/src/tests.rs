//! The port on real servers, through every decorator; `forms` has what needs none.

mod faults;
mod forms;

use std::time::Duration;

use integration::s3_server::{Account, Garage, Rclone};
use store::{Counting, Faults, Flaky, Key, Kind, Prefixed, Throttled, conformance};

use super::*;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// A store with an account's keys in a file, so that tests don't share the environment.
async fn store_at(
    account: &Account,
    prefix: &str,
    dir: &std::path::Path,
    change: impl FnOnce(&mut Settings),
) -> Arc<dyn Store> {
    let file = dir.join("credentials");
    account.credentials_file(&file).unwrap();
    let mut settings = Settings {
        credentials_file: Some(file),
        ..Settings::default()
    };
    change(&mut settings);
    open(&account.url(prefix), &settings).await.unwrap()
}

/// The suite on a bare store and through all decorators, one around the other, each in a part of its own. (One by one they
/// stand in the tests of `windlass-store` and `windlass-object`; thousands of requests more would show no more.)
async fn conforms(account: &Account, replaces: bool) {
    let dir = tempfile::tempdir().unwrap();
    let at = |prefix: &'static str| store_at(account, prefix, dir.path(), |_| ());
    let flaky = Flaky::new(at("decorated").await, Faults::default());
    let throttled = Throttled::new(flaky, Duration::from_millis(1), 200 << 20);
    let decorated = Prefixed::new(Counting::new(throttled), key("deep/in"));
    let stores: [Arc<dyn Store>; 2] = [at("bare").await, decorated];
    let suite = |store: Arc<dyn Store>| async move {
        conformance::run_for_a_repository(&*store).await;
        if replaces {
            conformance::replaced_whole(&*store).await;
        }
    };
    futures::future::join_all(stores.map(suite)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garage_conforms() {
    let garage = Garage::start().unwrap();
    conforms(&garage.account, true).await;
}

/// `rclone serve s3` shows a mixture while a key's body is replaced by another, whatever its settings: a repository never does.
#[tokio::test(flavor = "multi_thread")]
async fn rclone_conforms() {
    let rclone = Rclone::start().unwrap();
    conforms(&rclone.account, false).await;
}
