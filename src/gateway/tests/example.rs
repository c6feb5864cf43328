//! CONTRIBUTING's example of a concern, `echo`, with all that its row, its messages and its section make of it.

use bus::Received;
use wire::echo::{EchoRepeat, EchoSaid, EchoSay};
use wire::job::{JobShow, JobState};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn echo_has_a_request_an_event_a_job_a_setting_a_metric_and_an_observed_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_in(dir.path());
    assert_eq!(config.echo.times, 3, "the default of its section");
    config.echo.times = 2;
    let daemon = Daemon::with(config).await;
    let (bus, host) = (daemon.bus(), HostId::new("h1").unwrap());

    let filter = EventFilter::parse("windlass.v1.event.echo.said").unwrap();
    let mut events = bus.subscribe(filter, 8).await.unwrap();
    let say = EchoSay { text: "hi".into() };
    let said = bus::call(&*bus, &host, &say, Headers::default()).await.unwrap();
    assert_eq!(said.text, "hi");
    let heard = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
    let Some(Received::Event { payload, .. }) = heard.unwrap() else {
        panic!("no event")
    };
    let event: CloudEvent<EchoSaid> = serde_json::from_slice(&payload).unwrap();
    assert_eq!((event.data, event.kind.as_str()), (said, "windlass.echo.said"));

    let long = EchoSay { text: "x".repeat(2000) };
    let refused = bus::call(&*bus, &host, &long, Headers::default()).await.unwrap_err();
    assert_eq!(refused.code, Code::Invalid);

    let repeat = EchoRepeat { text: "ho".into() };
    let accepted = bus::call(&*bus, &host, &repeat, Headers::default()).await.unwrap();
    let mut job = bus::call(
        &*bus,
        &host,
        &JobShow {
            job: accepted.job.clone(),
        },
        Headers::default(),
    )
    .await
    .unwrap();
    while !job.state.is_final() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        job = bus::call(&*bus, &host, &JobShow { job: job.id }, Headers::default())
            .await
            .unwrap();
    }
    let result = serde_json::to_value(EchoSaid { text: "ho ho".into() }).unwrap();
    assert_eq!((job.state, job.result), (JobState::Done, Some(result)));

    let status = daemon.house.status().await.unwrap();
    let echo = status.concerns.iter().find(|c| c.concern == "echo").unwrap();
    assert_eq!(echo.observed, serde_json::json!({"asked_total": 2}));
    let page = daemon.get("/metrics").await;
    for line in [
        "# TYPE windlass_echo_asked_total counter",
        "windlass_echo_asked_total 2",
        "windlass_echo_requests_total{verb=\"repeat\",code=\"ok\"} 1",
        "windlass_echo_requests_total{verb=\"say\",code=\"invalid\"} 1",
    ] {
        assert!(page.lines().any(|l| l == line), "no {line} in\n{page}");
    }
    daemon.end().await;
}

#[test]
fn its_noun_is_made_of_its_messages() {
    let noun = crate::cli::command().find_subcommand("echo").unwrap().clone();
    let verbs: Vec<&str> = noun.get_subcommands().map(clap::Command::get_name).collect();
    assert_eq!(verbs, ["say", "repeat"]);
    let reference = config::reference();
    assert!(
        reference
            .contains("[echo]\n\n# How often a job says a text. From 1 to 1000. SIGHUP takes it up.\n#times = 3\n")
    );
}
