//! The house with its gateway and clients, as the verbs use them.

use std::path::Path;
use std::time::Duration;

use config::{Config, Flags, Surroundings};
use tokio::sync::watch;
use wire::job::JobList;
use wire::{Code, HostId, Request};

use crate::client::Client;
use crate::gateway::{server, socket};
use crate::house::{House, Role};

/// A configuration whose everything is below `dir`.
pub(crate) fn config_in(dir: &Path) -> Config {
    let around = Surroundings {
        host_name: "h1".into(),
        working_dir: dir.to_owned(),
        ..Surroundings::default()
    };
    let flags = Flags {
        state_dir: Some(dir.join("s").display().to_string()),
        ..Flags::default()
    };
    let mut config = config::load(None, &around, &flags).unwrap().config;
    config.runtime.drain_timeout_s = 5;
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_the_house_is_in_this_process() {
    let dir = tempfile::tempdir().unwrap();
    let config = config_in(dir.path());
    assert!(Client::daemon(&config).await.unwrap().is_none());
    let client = Client::here(&config).await.unwrap();
    assert!(!client.is_daemon());
    assert_eq!(client.call(&JobList::default()).await.unwrap().jobs, vec![]);
    let host = HostId::new("h1").unwrap();
    let subject = wire::house::Status::subject(&host).unwrap();
    let status = client
        .call_json(&subject, &serde_json::json!({}), client.headers())
        .await
        .unwrap();
    assert_eq!(status["host"], "h1");
    client.close().await;
    // and the state is free again
    Client::here(&config).await.unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_state_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let config = config_in(dir.path());
    let first = House::start(&config, Role::Daemon).await.unwrap();
    // a second daemon, and a single command that finds no socket
    let second = House::start(&config, Role::Daemon).await.unwrap_err();
    assert_eq!(second.code, Code::Conflict, "{second:?}");
    let command = Client::here(&config).await.map(|_| ()).unwrap_err();
    assert_eq!(command.code, Code::Conflict, "{command:?}");
    first.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_daemon_verbs_go_through_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let config = config_in(dir.path());
    let house = House::start(&config, Role::Daemon).await.unwrap();
    let (listener, bound) = socket::bind(&config.gateway.socket).await.unwrap();
    let (stop, stopping) = watch::channel(false);
    let served = tokio::spawn({
        let (house, config) = (house.clone(), config.clone());
        async move { server::serve(listener, house, &config, stopping).await }
    });
    // the command's own host id doesn't matter: the daemon's does
    let mut elsewhere = config.clone();
    elsewhere.host_id = HostId::new("other").unwrap();
    let client = Client::daemon(&elsewhere).await.unwrap().unwrap();
    assert!(client.is_daemon());
    assert_eq!(client.host().as_str(), "h1");
    assert_eq!(client.call(&JobList::default()).await.unwrap().jobs, vec![]);
    client.close().await;
    house.drain().await;
    stop.send(true).unwrap();
    drop(bound);
    tokio::time::timeout(Duration::from_secs(10), served)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(!config.gateway.socket.exists());
}
