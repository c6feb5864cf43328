//! TLS, nkeys and `.creds` files against a real server. Certificates are made for these tests and good for a hundred years; keys
//! and JWTs are made anew by each run, as `nsc` makes them.

use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use integration::nats::ServerOptions;
use nkeys::KeyPair;
use serde_json::{Value, json};
use state::{Key, State};

use super::*;
use crate::{NatsState, Tls};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/tls").join(name)
}

fn server_with(scratch: &Scratch, lines: String) -> Server {
    let options = ServerOptions {
        lines,
        ..ServerOptions::default()
    };
    Server::start_with(&scratch.join("n1"), options).unwrap()
}

/// Connects, and has a value kept and read: what a host does.
async fn lets_in(settings: Settings) {
    let lattice = Lattice::connect(settings, PATIENCE).await.unwrap();
    let state = NatsState::open(&lattice, std::sync::Arc::new(|| 1)).await.unwrap();
    let key = Key::new("a").unwrap();
    state.put(&key, bytes::Bytes::from_static(b"1")).await.unwrap();
    assert_eq!(state.get(&key).await.unwrap().unwrap().value, "1");
}

async fn keeps_out(settings: Settings, kind: Kind) -> String {
    let error = Lattice::connect(settings, Some(Duration::from_secs(2)))
        .await
        .unwrap_err();
    assert_eq!(error.kind, kind, "{error}");
    error.to_string()
}

fn tls_of(verify: bool) -> String {
    format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: {verify}, timeout: 5 }}",
        file("server.pem").display(),
        file("server.key").display(),
        file("ca.pem").display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_trusted_by_their_authority_alone() {
    let scratch = Scratch::new("tls").unwrap();
    let server = server_with(&scratch, tls_of(false));
    let with = |ca: &str| Settings {
        tls: Tls {
            ca_file: Some(file(ca)),
            ..Tls::default()
        },
        ..settings(&server.url())
    };
    lets_in(with("ca.pem")).await;
    let over_tls = server.url().replace("nats://", "tls://");
    lets_in(Settings {
        servers: vec![over_tls],
        ..with("ca.pem")
    })
    .await;
    // signed by somebody else, or by nobody whom the system knows
    keeps_out(with("other-ca.pem"), Kind::Unavailable).await;
    keeps_out(settings(&server.url()), Kind::Unavailable).await;
    keeps_out(with("no-such.pem"), Kind::Unavailable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_certificates_gets_ours() {
    let scratch = Scratch::new("tls").unwrap();
    let server = server_with(&scratch, tls_of(true));
    let with = |own: bool| Settings {
        tls: Tls {
            ca_file: Some(file("ca.pem")),
            cert_file: own.then(|| file("client.pem")),
            key_file: own.then(|| file("client.key")),
        },
        ..settings(&server.url())
    };
    lets_in(with(true)).await;
    keeps_out(with(false), Kind::Unavailable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nkey_is_who_its_seed_is() {
    let (ours, other) = (KeyPair::new_user(), KeyPair::new_user());
    let scratch = Scratch::new("nkey").unwrap();
    let server = server_with(
        &scratch,
        format!("authorization {{ users: [ {{ nkey: {} }} ] }}", ours.public_key()),
    );
    let with = |pair: &KeyPair| {
        let place = scratch.join(pair.public_key());
        let seed = pair.seed().unwrap();
        std::fs::write(&place, format!("{seed}\n")).unwrap();
        let settings = Settings {
            credentials: Credentials::NkeyFile(place.into()),
            ..settings(&server.url())
        };
        (settings, seed)
    };
    lets_in(with(&ours).0).await;
    let (stranger, seed) = with(&other);
    let why = keeps_out(stranger, Kind::Denied).await;
    assert!(!why.contains(&seed), "no secret in an error");
    keeps_out(settings(&server.url()), Kind::Denied).await;
}

/// A JWT as NATS wants it: signed by `by`.
fn jwt(by: &KeyPair, subject: &KeyPair, name: &str, nats: Value) -> String {
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let head = encode(&json!({"typ": "JWT", "alg": "ed25519-nkey"}));
    let claims = encode(&json!({
        "jti": name, "iat": 1_760_000_000, "iss": by.public_key(), "name": name, "sub": subject.public_key(), "nats": nats,
    }));
    let signed = by.sign(format!("{head}.{claims}").as_bytes()).unwrap();
    format!("{head}.{claims}.{}", BASE64URL_NOPAD.encode(&signed))
}

fn account(with_jetstream: bool) -> Value {
    let kept = if with_jetstream { -1 } else { 0 };
    json!({
        "type": "account", "version": 2,
        "limits": {
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
            "mem_storage": kept, "disk_storage": kept, "streams": kept, "consumer": kept,
        },
    })
}

fn user(by: &KeyPair, user: &KeyPair) -> String {
    let free = json!({"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1});
    jwt(by, user, "windlass", free)
}

fn creds(scratch: &Scratch, name: &str, jwt: &str, pair: &KeyPair) -> Credentials {
    let place = scratch.join(name);
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        pair.seed().unwrap()
    );
    std::fs::write(&place, text).unwrap();
    Credentials::CredsFile(place.into())
}

/// A server in operator mode: who has credentials of an account that the operator signed is let in.
#[tokio::test(flavor = "multi_thread")]
async fn a_creds_file_is_who_its_account_says() {
    let (operator, system, fleet) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let (ours, stray) = (KeyPair::new_user(), KeyPair::new_account());
    let scratch = Scratch::new("creds").unwrap();
    let lines = format!(
        "operator: {}\nsystem_account: {system}\nresolver: MEMORY\nresolver_preload: {{ {system}: {}, {fleet}: {} }}",
        jwt(
            &operator,
            &operator,
            "operator",
            json!({"type": "operator", "version": 2})
        ),
        jwt(&operator, &system, "SYS", account(false)),
        jwt(&operator, &fleet, "FLEET", account(true)),
        system = system.public_key(),
        fleet = fleet.public_key(),
    );
    let server = server_with(&scratch, lines);
    let with = |credentials| Settings {
        credentials,
        ..settings(&server.url())
    };
    lets_in(with(creds(&scratch, "fleet.creds", &user(&fleet, &ours), &ours))).await;
    // of an account that the operator doesn't know, and with another's seed
    let foreign = creds(&scratch, "foreign.creds", &user(&stray, &ours), &ours);
    keeps_out(with(foreign), Kind::Denied).await;
    let stolen = creds(&scratch, "stolen.creds", &user(&fleet, &ours), &KeyPair::new_user());
    keeps_out(with(stolen), Kind::Denied).await;
    keeps_out(settings(&server.url()), Kind::Denied).await;
    std::fs::write(scratch.join("torn.creds"), "-----BEGIN NATS USER JWT-----\n").unwrap();
    keeps_out(
        with(Credentials::CredsFile(scratch.join("torn.creds").into())),
        Kind::Invalid,
    )
    .await;
}
