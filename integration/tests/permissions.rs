//! A real server with what `windlass nats-permissions` prints: two hosts work under it as ever, and who steals the credentials of
//! one can't act for the other. Every refusal is in the audit.
#![expect(clippy::unwrap_used, reason = "test code; its helpers are no #[test]")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use windlass_integration::fleet;
use windlass_integration::nats::{Server, ServerOptions, python};
use windlass_integration::process::{Ended, Running, Windlass};
use windlass_integration::scratch::Scratch;

const PATIENCE: Duration = Duration::from_secs(60);

/// A fleet whose server lets each do what it needs, and its people.
struct Fleet {
    scratch: Scratch,
    server: Server,
}

/// Who has a password at the server: nobody's is another's.
fn password(name: &str) -> String {
    format!("a-password-of-{name}")
}

impl Fleet {
    fn start() -> Self {
        let scratch = Scratch::new("permissions").unwrap();
        let printed = |words: &[&str]| {
            let nowhere = Windlass::new(&scratch.join("nowhere")).unwrap();
            let all: Vec<&str> = ["nats-permissions"].iter().chain(words).copied().collect();
            nowhere.run(&all).unwrap().success().stdout
        };
        let mut users = vec![format!("{{ user: root, password: {} }}", password("root"))];
        for host in ["h1", "h2"] {
            let user = printed(&["--host", host]);
            let variable = format!("$WINDLASS_HOST_{}_PASSWORD", host.to_uppercase());
            users.push(user.replace(&variable, &password(host)));
        }
        for (person, role) in [("ada", "operator"), ("eve", "viewer")] {
            let user = printed(&["--person", person, "--role", role]);
            let variable = format!("$WINDLASS_PERSON_{}_PASSWORD", person.to_uppercase());
            users.push(user.replace(&variable, &password(person)));
        }
        let options = ServerOptions {
            lines: format!("authorization {{ users: [\n{}\n] }}", users.join("\n")),
            ..ServerOptions::default()
        };
        let server = Server::start_with(&scratch.join("nats"), options).unwrap();
        Self { scratch, server }
    }

    fn user_file(&self, name: &str, user: &str) -> PathBuf {
        let path = self.scratch.join(format!("{name}.user"));
        std::fs::write(&path, format!("{user}\n{}\n", password(name))).unwrap();
        path
    }

    fn host(&self, id: &str) -> Windlass {
        Windlass::new(&self.scratch.join(id))
            .unwrap()
            .env("WINDLASS_HOST_ID", id)
            .env("WINDLASS_HOST__BEAT_MS", "400")
            .env("WINDLASS_REPO", self.scratch.join("repo"))
            .env("WINDLASS_NATS__SERVERS", self.server.url())
            .env("WINDLASS_NATS__USER_FILE", self.user_file(id, id))
    }

    /// The daemon of a host; h2 is where the server's log is.
    fn daemon(&self, id: &str) -> Running {
        let mut windlass = self.host(id).env("WINDLASS_NATS", self.server.url());
        if id == "h2" {
            windlass = windlass.env(
                "WINDLASS_NATS__SERVER_LOG",
                self.scratch.join("nats").join("nats-server.log"),
            );
        }
        let daemon = windlass.spawn(&["serve"]).unwrap();
        let line = daemon.wait_for_line(PATIENCE, |line| line.contains("serving"));
        assert!(line.is_some(), "the daemon of {id} serves");
        daemon
    }

    /// Whoever founds the fleet, the other host, and its people; each with their own key, under their own permissions.
    fn all(&self) -> (Running, Running) {
        let h1 = self.daemon("h1");
        let urls = self.server.url();
        let member = self.host("h1");
        fleet::join(&member, &self.host("h2").env("WINDLASS_NATS", &urls), "h2");
        for (name, role) in [("ada", "operator"), ("eve", "viewer")] {
            let place = self.place_of(name).env("WINDLASS_NATS", &urls);
            fleet::join_with(&member, &place, &["--person", name, "--role", role]);
        }
        (h1, self.daemon("h2"))
    }

    /// A person's own state directory, and credentials.
    fn place_of(&self, name: &str) -> Windlass {
        Windlass::new(&self.scratch.join(name))
            .unwrap()
            .env("WINDLASS_NATS__PERSON", name)
            .env("WINDLASS_NATS__USER_FILE", self.user_file(name, &format!("@{name}")))
    }

    /// A verb of a person, over the servers, for a host.
    fn person(&self, name: &str, host: &str, words: &[&str]) -> Ended {
        let nowhere = self.place_of(name);
        let url = self.server.url();
        let mut all = vec!["--nats", &url, "--host-id", host, "--json"];
        all.extend(words);
        nowhere.run(&all).unwrap()
    }

    /// A verb through a host's own socket.
    fn through(&self, id: &str, words: &[&str]) -> Ended {
        let all: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let windlass = Windlass::new(&self.scratch.join(id)).unwrap();
        windlass.env("WINDLASS_HOST_ID", id).run(&all).unwrap()
    }

    fn denied(&self) -> Value {
        // the server's log is read twice a second
        std::thread::sleep(Duration::from_secs(3));
        let listing = self.through("h2", &["audit", "--denied", "--count", "1000"]);
        listing.success().json()
    }

    /// What the server says to each try of somebody who has these credentials.
    fn tries(&self, user: &str, inbox: &str, tries: &[Value]) -> Vec<Value> {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/thief.py");
        let told =
            json!({"url": self.server.url(), "user": user, "password": password(user), "inbox": inbox, "tries": tries});
        let mut child = Command::new(python().unwrap())
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(told.to_string().as_bytes())
            .unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }
}

fn publish(subject: &str, payload: &Value) -> Value {
    json!({"op": "pub", "subject": subject, "payload": payload.to_string()})
}

fn subscribe(subject: &str) -> Value {
    json!({"op": "sub", "subject": subject})
}

/// What h1 must not get at, whatever it says.
fn thefts() -> Vec<Value> {
    let api = |what: &str| publish(&format!("$JS.API.{what}"), &json!({}));
    let event =
        json!({"specversion": "1.0", "id": "1", "source": "windlass://h2", "type": "windlass.hosts.lost", "data": {}});
    let mut tries = vec![
        // act as h2: answer for it, hear what it is asked, order it about, beat for it
        subscribe("windlass.v1.host.h2.>"),
        subscribe("windlass.v1.host.h2.snapshot.restore"),
        publish("windlass.v1.host.h2.snapshot.restore", &json!({"vm": "web1"})),
        publish("windlass.v1.host.h2.snapshot.ls", &json!({})),
        // its inbox, everybody's, and what is asked of any host without taking turns
        subscribe("_INBOX.h2.>"),
        subscribe("_INBOX.@ada.>"),
        subscribe("_INBOX.>"),
        subscribe(">"),
        subscribe("windlass.v1.jobs.cancel"),
        subscribe("windlass.v1.event.>"),
        subscribe("$KV.>"),
        subscribe("$SYS.>"),
        publish("_INBOX.h2.abc.1", &json!({"ok": {}})),
        publish("_INBOX.@ada.abc.1", &json!({"ok": {}})),
        // its keys
        publish("$KV.windlass.hosts.beats.h2", &json!({})),
        publish("$KV.windlass.hosts.leases.h2", &json!("me")),
        publish("$KV.windlass.anything.else", &json!({})),
        publish("$KV.windlass_jobs.job.h2.01J", &json!({})),
        publish("$KV.windlass_jobs.request.h2.0", &json!({})),
        // its jobs: into its queue, out of it, and acknowledged in its name
        publish("windlass.v1.job.snapshot.h2.01J", &json!({})),
        api("CONSUMER.MSG.NEXT.WINDLASS_JOBS.snapshot-on-h2"),
        api("CONSUMER.CREATE.WINDLASS_JOBS.snapshot-on-h2.windlass.v1.job.snapshot.h2.*"),
        api("CONSUMER.CREATE.WINDLASS_JOBS.snapshot-on-h1.windlass.v1.job.snapshot.h2.*"),
        api("CONSUMER.CREATE.WINDLASS_JOBS"),
        api("CONSUMER.DURABLE.CREATE.WINDLASS_JOBS.mine"),
        api("CONSUMER.DELETE.WINDLASS_JOBS.snapshot-on-h2"),
        api("CONSUMER.NAMES.WINDLASS_JOBS"),
        publish("$JS.ACK.WINDLASS_JOBS.snapshot-on-h2.1.1.1.1.0", &json!("+ACK")),
        // events in its name
        publish("windlass.v1.event.hosts.lost.h2", &event),
        publish("windlass.v1.event.hosts.lost", &event),
        // streams that are none of its own
        api("STREAM.NAMES"),
        api("STREAM.INFO.PAYROLL"),
        api("STREAM.MSG.GET.PAYROLL"),
        api("DIRECT.GET.PAYROLL"),
        api("CONSUMER.CREATE.PAYROLL"),
        api("STREAM.PURGE.PAYROLL"),
        api("STREAM.CREATE.MINE"),
        publish("payroll.1", &json!(0)),
    ];
    for stream in ["KV_windlass", "WINDLASS_EVENTS", "WINDLASS_JOBS", "KV_windlass_jobs"] {
        for what in ["PURGE", "DELETE", "UPDATE", "MSG.DELETE", "RESTORE", "SNAPSHOT"] {
            tries.push(api(&format!("STREAM.{what}.{stream}")));
        }
    }
    tries
}

#[test]
fn who_has_one_hosts_credentials_acts_for_no_other() {
    let fleet = Fleet::start();
    let (h1, h2) = fleet.all();
    work_goes_on(&fleet);
    let calm = fleet.denied();
    assert_eq!(
        calm["denied_total"], 0,
        "honest hosts and people are refused nothing: {calm}"
    );

    let root = [
        json!({"op": "pub", "subject": "$JS.API.STREAM.CREATE.PAYROLL",
            "payload": json!({"name": "PAYROLL", "subjects": ["payroll.>"]}).to_string()}),
        publish("payroll.1", &json!(100)),
    ];
    for said in fleet.tries("root", "_INBOX.root", &root) {
        assert_eq!(said["refused"], false, "{said}");
    }
    let before = fleet.through("h2", &["hosts", "show", "h2"]).success().json();
    let thefts = thefts();
    for (theft, said) in thefts.iter().zip(fleet.tries("h1", "_INBOX.h1", &thefts)) {
        assert_eq!(said["refused"], true, "{theft}: {said}");
    }

    // all are in the audit, by the server's own words
    let listing = fleet.denied();
    let entries = listing["entries"].as_array().unwrap();
    for theft in &thefts {
        let subject = theft["subject"].as_str().unwrap();
        let kind = if theft["op"] == "sub" { "subscribe" } else { "publish" };
        let noted = entries.iter().find(|e| e["what"] == format!("nats.{kind} {subject}"));
        let noted = noted.unwrap_or_else(|| panic!("{kind} {subject} isn't in the audit: {listing:#}"));
        assert_eq!(
            (&noted["who"], &noted["refused"]),
            (&json!("$G/user:h1"), &json!("denied"))
        );
    }
    assert_eq!(listing["denied_total"], thefts.len());

    what_passes_the_server(&fleet);
    let after = fleet.through("h2", &["hosts", "show", "h2"]).success().json();
    assert_eq!((&after["boot"], &after["state"]), (&before["boot"], &json!("up")));
    people(&fleet);
    work_goes_on(&fleet);
    for daemon in [h1, h2] {
        daemon.terminate().unwrap();
        let ended = daemon.wait(PATIENCE).unwrap();
        assert!(ended.status.success(), "{}", ended.stderr);
    }
}

/// What fleets do: beats, jobs across hosts, placements, orders, events.
fn work_goes_on(fleet: &Fleet) {
    for host in ["h1", "h2"] {
        let mut seen = Value::Null;
        let is_up = (0..300).any(|_| {
            seen = fleet.through("h1", &["hosts", "ls"]).success().json();
            std::thread::sleep(Duration::from_millis(100));
            let hosts = seen["hosts"].as_array().unwrap();
            hosts.iter().any(|h| h["host"] == host && h["state"] == "up")
        });
        assert!(is_up, "{host}: {seen}");
    }
    let repo = format!("file://{}", fleet.scratch.join("repo").display());
    let disk = fleet.scratch.join("web1.raw");
    if !disk.exists() {
        std::fs::write(&disk, vec![7; 4 << 20]).unwrap();
        fleet.through("h1", &["--repo", &repo, "repo", "init"]).success();
    }
    // a person asks h2 for a snapshot and follows the job to its end
    let disk = disk.display().to_string();
    let made = fleet.person(
        "ada",
        "h2",
        &["--repo", &repo, "snapshot", "create", "--vm", "web1", "--disk", &disk],
    );
    assert_eq!(made.success().json()["host"], "h2");
    // a job of h2's own queue, told through h1: h1 asks h2
    fleet.through("h1", &["hosts", "drain", "h2"]).success();
    let job = fleet
        .person("ada", "h2", &["send", "snapshot.verify", "{}"])
        .success()
        .json();
    let id = job["job"].as_str().unwrap();
    for (verb, state) in [("cancel", "cancelled"), ("retry", "queued"), ("cancel", "cancelled")] {
        let told = fleet.through("h1", &["jobs", verb, id]).success().json();
        assert_eq!(told["state"], state, "{verb}");
    }
    fleet.through("h1", &["hosts", "uncordon", "h2"]).success();
    let inventory = fleet.scratch.join("inventory.json");
    let hosts = json!([{"id": "r0-h0", "rack": "r0", "capacity": {"vcpus": 64, "memory_mib": 65_536}}]);
    std::fs::write(&inventory, json!({ "hosts": hosts }).to_string()).unwrap();
    fleet
        .through("h1", &["rack", "load", &inventory.display().to_string()])
        .success();
    let placed = fleet.person(
        "ada",
        "h1",
        &["rack", "place", "--vms", "2", "--vcpus", "1", "--memory-mib", "64"],
    );
    let placed = placed.success().json();
    let id = placed["id"].as_str().unwrap();
    fleet.through("h2", &["rack", "release", id]).success();
}

/// What h1 may say to the server, and windlass or JetStream doesn't take.
fn what_passes_the_server(fleet: &Fleet) {
    let forged = json!({"specversion": "1.0", "id": "1", "source": "windlass://h2", "type": "windlass.jobs.changed", "time": "now",
        "datacontenttype": "application/json", "data": {}});
    let tries = [
        publish("windlass.v1.event.jobs.changed.h1", &forged),
        // a message that rolls up a whole stream would be a purge
        json!({"op": "pub", "subject": "$KV.windlass.hosts.lost.nobody", "payload": "{}", "headers": {"Nats-Rollup": "all"}}),
    ];
    let said = fleet.tries("h1", "_INBOX.h1", &tries);
    assert!(
        said[0]["answer"].as_str().unwrap().contains("WINDLASS_EVENTS"),
        "{said:?}"
    );
    assert!(said[1]["answer"].as_str().unwrap().contains("rollup"), "{said:?}");
    let listing = fleet.denied();
    let entries = listing["entries"].as_array().unwrap();
    let noted = entries
        .iter()
        .find(|e| e["what"] == "nats.forged_event windlass.v1.event.jobs.changed.h1");
    assert!(noted.is_some(), "{listing:#}");
}

/// A viewer looks and does nothing else; the answer comes at once and names what is missing.
fn people(fleet: &Fleet) {
    assert_eq!(fleet.person("eve", "h2", &["status"]).success().json()["host"], "h2");
    let refused = fleet.person("eve", "h2", &["hosts", "drain", "h1"]).failure(5);
    assert_eq!(refused.json()["error"]["code"], "denied");
    fleet
        .person("ada", "h2", &["snapshot", "forget", "01JCXQ6Y9D3W6V3S1W8Y5Z4K2M"])
        .failure(5);
    let listing = fleet.denied();
    let entries = listing["entries"].as_array().unwrap();
    let who: Vec<&Value> = entries.iter().map(|e| &e["who"]).collect();
    for person in ["$G/user:@eve", "$G/user:@ada"] {
        assert!(who.contains(&&json!(person)), "{who:?}");
    }
}
