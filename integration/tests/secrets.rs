//! Secrets everywhere that windlass takes them, everything that it says at the loudest, and none of them in it.
#![expect(clippy::unwrap_used, reason = "test code; its helpers are no #[test]")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use windlass_integration::nats::{Server, ServerOptions};
use windlass_integration::process::{Ended, Windlass, free_port};
use windlass_integration::s3_server::Rclone;
use windlass_integration::scratch::Scratch;
use windlass_integration::secrets::{contains, found_in, planted};

const PATIENCE: Duration = Duration::from_secs(60);

/// A file with a secret, whose name says so.
fn secret(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(format!("{name}.secret"));
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn clean(what: &str, ended: &Ended) {
    for (stream, text) in [("stdout", &ended.stdout), ("stderr", &ended.stderr)] {
        assert!(!contains(text.as_bytes()), "{what} said a secret on {stream}:\n{text}");
    }
}

#[test]
fn no_secret_is_said_or_left_behind() {
    let scratch = Scratch::new("secrets").unwrap();
    let store = Rclone::start().unwrap();
    assert!(
        contains(store.account.secret.as_bytes()),
        "the store's key is a planted one"
    );
    let password = planted("nats");
    let options = ServerOptions {
        lines: format!("authorization {{ users: [ {{ user: h1, password: \"{password}\" }} ] }}"),
        ..ServerOptions::default()
    };
    let server = Server::start_with(&scratch.join("nats"), options).unwrap();
    let user = secret(scratch.path(), "user", &format!("h1\n{password}\n"));
    let token = planted("token");
    let token_file = secret(scratch.path(), "token", &token);
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let windlass = store
        .account
        .windlass(Windlass::new(&scratch.join("state")).unwrap(), "p");
    let windlass = windlass
        .env("WINDLASS_LOG__LEVEL", "trace")
        .env("WINDLASS_HOST_ID", "h1")
        .env("WINDLASS_NATS", server.url())
        .env("WINDLASS_NATS__USER_FILE", &user)
        .env("WINDLASS_GATEWAY__LISTEN", &address)
        .env("WINDLASS_GATEWAY__TOKEN_FILE", &token_file);
    let daemon = windlass.spawn(&["serve"]).unwrap();
    let serving = daemon.wait_for_line(PATIENCE, |line| line.contains("serving"));
    assert!(serving.is_some(), "it serves");
    let disk = scratch.join("web1.raw");
    std::fs::write(&disk, vec![7; 1 << 20]).unwrap();
    let disk = disk.display().to_string();
    let url = format!("http://{address}");
    let through = ["--gateway", &url, "--gateway-token-file", token_file.to_str().unwrap()];
    let verbs: [&[&str]; 11] = [
        &["repo", "init"],
        &["snapshot", "create", "--vm", "web1", "--disk", &disk],
        &["snapshot", "ls"],
        &["jobs", "ls"],
        &["status", "--json"],
        &["config", "show", "--origin"],
        &["check-config"],
        &["audit", "--json"],
        &["hosts", "ls"],
        &["gateway", "token", "ls"],
        &["snapshot", "show", "nope"],
    ];
    for verb in verbs {
        clean(&verb.join(" "), &windlass.run(verb).unwrap());
    }
    for verb in [&["status"][..], &["snapshot", "forget", "nope"]] {
        clean(
            "over the address",
            &windlass.run(&[&through[..], verb].concat()).unwrap(),
        );
    }
    for path in ["/metrics", "/v1/host"] {
        let header = format!("Authorization: Bearer {token}");
        let out = Command::new("curl")
            .args(["-s", "-H", &header, &format!("{url}{path}")])
            .output()
            .unwrap();
        assert!(!out.stdout.is_empty() && !contains(&out.stdout), "{path}");
    }
    daemon.terminate().unwrap();
    clean("the daemon", &daemon.wait(PATIENCE).unwrap());
    // the same where a secret isn't what it should be
    let wrong = secret(scratch.path(), "wrong", &format!("h1\n{}\n", planted("wrong")));
    let torn = secret(scratch.path(), "torn", &planted("torn"));
    let bad: [&[(&str, &str)]; 6] = [
        &[("WINDLASS_NATS__USER_FILE", wrong.to_str().unwrap())],
        &[("WINDLASS_NATS__USER_FILE", torn.to_str().unwrap())],
        &[
            ("WINDLASS_NATS__USER_FILE", ""),
            ("WINDLASS_NATS__NKEY_FILE", torn.to_str().unwrap()),
        ],
        &[
            ("WINDLASS_NATS__USER_FILE", ""),
            ("WINDLASS_NATS__CREDS_FILE", torn.to_str().unwrap()),
        ],
        // the secret itself where its place should be
        &[("WINDLASS_NATS__USER_FILE", &password)],
        &[("WINDLASS_NATS", &format!("nats://h1:{password}@127.0.0.1:4222"))],
    ];
    for settings in bad {
        let windlass = settings
            .iter()
            .fold(windlass.clone(), |w, (name, value)| w.env(name, value));
        for verb in [&["status"][..], &["config", "show"], &["check-config"]] {
            clean(
                &format!("{verb:?} with {}", settings[0].0),
                &windlass.run(verb).unwrap(),
            );
        }
    }
    let keyless = windlass
        .clone()
        .env("AWS_SECRET_ACCESS_KEY", planted("other-key"))
        .env("WINDLASS_NATS", "");
    clean("a store that refuses", &keyless.run(&["snapshot", "ls"]).unwrap());
    drop(server);
    assert_eq!(found_in(scratch.path()), Vec::<PathBuf>::new(), "left in a file");
}

/// A secret may come in the environment, or from systemd; neither is said.
#[test]
fn secrets_come_from_the_environment_and_from_systemd() {
    let scratch = Scratch::new("secrets-env").unwrap();
    let password = planted("nats");
    let options = ServerOptions {
        lines: format!("authorization {{ users: [ {{ user: h1, password: \"{password}\" }} ] }}"),
        ..ServerOptions::default()
    };
    let server = Server::start_with(&scratch.join("nats"), options).unwrap();
    let credentials = scratch.dir("credentials").unwrap();
    std::fs::rename(
        secret(&credentials, "nats.user", &format!("h1\n{password}\n")),
        credentials.join("nats.user.secret"),
    )
    .unwrap();
    let windlass = Windlass::new(&scratch.join("state"))
        .unwrap()
        .env("WINDLASS_HOST_ID", "h1")
        .env("WINDLASS_NATS", server.url())
        .env("CREDENTIALS_DIRECTORY", &credentials)
        .env("NATS_USER", format!("h1\n{password}"));
    for place in ["env:NATS_USER", "credential:nats.user.secret"] {
        // nobody serves, so the servers let us in and nobody answers
        let asked = windlass.clone().env("WINDLASS_NATS__USER_FILE", place);
        let ended = asked.run(&["status", "--json"]).unwrap().failure(8);
        let said = ended.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(said.contains("nobody") || said.contains("serves"), "{place}: {said}");
        clean(place, &ended);
    }
    for place in ["env:NO_SUCH", "credential:no.such"] {
        let asked = windlass.clone().env("WINDLASS_NATS__USER_FILE", place);
        let ended = asked.run(&["status", "--json"]).unwrap().failure(5);
        assert!(ended.stdout.contains(place), "{}", ended.stdout);
    }
}
