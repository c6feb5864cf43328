//! Roles at the TCP door, with real clients; what is denied says which role is missing, and is in the audit.

use serde_json::Value;
use wire::audit::AuditList;
use wire::{PersonId, Role as People};

use super::*;
use crate::gateway::tokens;

fn person(name: &str) -> PersonId {
    PersonId::new(name).unwrap()
}

async fn said(url: &str, token: &str, body: Option<&str>) -> (u16, Value) {
    let header = format!("Authorization: Bearer {token}");
    let mut given = vec!["-H", header.as_str(), url];
    if let Some(body) = body {
        given.extend(["--data-binary", body]);
    }
    let (status, body) = curl(&given).await;
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_token_does_what_its_role_may_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_in(dir.path());
    config.gateway.listen = "127.0.0.1:0".into();
    config.gateway.token_file = dir.path().join("none");
    config.gateway.tokens_file = dir.path().join("tokens");
    let file = config.gateway.tokens_file.clone();
    let [eve, ada, root] = [
        ("eve", People::Viewer),
        ("ada", People::Operator),
        ("root", People::Admin),
    ]
    .map(|(name, role)| tokens::add(&file, person(name), role).unwrap());
    let daemon = Daemon::with(config).await;
    let base = format!("http://{}", daemon.address.unwrap());
    let ask = |verb: &str| format!("{base}/v1/request/windlass.v1.{verb}");
    let (forget, drain, ls) = (ask("host.h1.snapshot.forget"), ask("hosts.drain"), ask("jobs.ls"));
    let (forget_body, drain_body) = (r#"{"snapshot": "nope"}"#, r#"{"host": "nope"}"#);
    // 403: the role is too little; anything else: it was passed on
    let table = [
        (&eve, &ls, "{}", false, ""),
        (
            &eve,
            &drain,
            drain_body,
            true,
            "hosts.drain needs the role operator; 'eve' has viewer",
        ),
        (
            &eve,
            &forget,
            forget_body,
            true,
            "snapshot.forget needs the role admin; 'eve' has viewer",
        ),
        (&ada, &drain, drain_body, false, ""),
        (
            &ada,
            &forget,
            forget_body,
            true,
            "snapshot.forget needs the role admin; 'ada' has operator",
        ),
        (&root, &forget, forget_body, false, ""),
    ];
    for (token, url, body, denied, why) in table {
        let (status, answer) = said(url, token, Some(body)).await;
        assert_eq!(status == 403, denied, "{url}: {answer}");
        if denied {
            assert!(answer["error"]["message"].as_str().unwrap().contains(why), "{answer}");
            assert_eq!(answer["error"]["code"], "denied");
        }
    }
    let blob = format!("{base}/v1/blob/x");
    assert_eq!(said(&blob, &eve, None).await.0, 403, "no bytes of disks for a viewer");
    assert_ne!(said(&blob, &ada, None).await.0, 403);
    // a token that was removed is worth nothing from the next request on
    assert_eq!(said(&format!("{base}/v1/host"), &eve, None).await.0, 200);
    tokens::remove(&file, &person("eve")).unwrap();
    assert_eq!(said(&format!("{base}/v1/host"), &eve, None).await.0, 403);
    tokens::add(&file, person("bob"), People::Viewer).unwrap();

    let listing = bus::call(
        &*daemon.bus(),
        &HostId::new("h1").unwrap(),
        &AuditList::default(),
        Headers::default(),
    )
    .await
    .unwrap();
    let noted = |who: &str, what: &str, refused: Option<Code>| {
        listing
            .entries
            .iter()
            .any(|e| (e.who.as_str(), e.what.as_str(), e.refused) == (who, what, refused))
    };
    assert!(noted("eve", "snapshot.forget", Some(Code::Denied)) && noted("ada", "snapshot.forget", Some(Code::Denied)));
    assert!(noted("eve", "gateway.blob", Some(Code::Denied)) && noted("unknown", "gateway", Some(Code::Denied)));
    assert!(
        listing.entries.iter().all(|e| e.what != "jobs.ls"),
        "looks are not noted: {listing:?}"
    );
    let done = listing
        .entries
        .iter()
        .find(|e| (e.who.as_str(), e.what.as_str()) == ("root", "snapshot.forget"))
        .unwrap();
    assert_eq!(
        (done.role, done.about.as_str(), done.from.as_str()),
        (Some(People::Admin), "snapshot=nope", "127.0.0.1")
    );
    assert_eq!(listing.denied_total, 5, "{listing:?}");
    daemon.end().await;
}
