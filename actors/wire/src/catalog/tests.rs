use super::*;

/// Compares with a golden file; `UPDATE_GOLDEN=1` writes it.
fn golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == text,
        "{} differs from what the types say now; if that is meant, run the test with UPDATE_GOLDEN=1 and say so in CHANGELOG",
        path.display()
    );
}

#[test]
fn the_samples_are_golden() {
    let mut text = String::new();
    for e in endpoints() {
        text += &format!("{}.{} request {}\n", e.concern, e.verb, e.samples.0);
        text += &format!("{}.{} reply {}\n", e.concern, e.verb, e.samples.1);
    }
    for e in events() {
        text += &format!("{}.{} event {}\n", e.concern, e.what, e.sample);
    }
    golden("samples.txt", &text);
}

#[test]
fn the_asyncapi_document_is_golden() {
    golden(
        "asyncapi.json",
        &(serde_json::to_string_pretty(&asyncapi("golden")).unwrap() + "\n"),
    );
}

#[test]
fn every_row_stands_once_and_its_subject_parses() {
    let host = HostId::new("h1").unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for e in endpoints() {
        let subject = match e.address {
            Address::Cluster => Subject::cluster(e.concern, e.verb).unwrap(),
            Address::Host => Subject::host(&host, e.concern, e.verb).unwrap(),
        };
        assert_eq!(Subject::parse(&subject.to_string()).unwrap(), subject);
        assert!(seen.insert(subject.to_string()), "{subject} stands twice");
        assert!(
            !e.samples.0.is_null() && !e.samples.1.is_null(),
            "{subject} has no sample"
        );
    }
    for e in events() {
        assert!(seen.insert(Subject::event(e.concern, e.what).unwrap().to_string()));
    }
}

/// A request that names a path, a device, a pid or a NIC means one host's.
#[test]
fn what_names_a_path_is_addressed_to_a_host() {
    for e in endpoints() {
        let text = e.samples.0.to_string();
        if ["\"path\"", "\"output\"", "\"pid\"", "\"nic\"", "\"device\"", "file:///"]
            .iter()
            .any(|k| text.contains(k))
        {
            assert_eq!(e.address, Address::Host, "{}.{}", e.concern, e.verb);
        }
    }
}

/// Verbs that may go unsigned are those that look, by the word that they begin with; and what becomes a job is never one of them.
#[test]
fn whatever_changes_something_is_signed() {
    const LOOKS: [&str; 14] = [
        "ls",
        "show",
        "status",
        "diff",
        "plan",
        "explain",
        "whatif",
        "inventory",
        "members",
        "stats",
        "select",
        "forecast",
        "policy_check",
        "policy_test",
    ];
    let mut signed = String::new();
    for e in endpoints() {
        let verb = e.verb.strip_prefix("repo_").unwrap_or(e.verb);
        let becomes_a_job = e.samples.1.get("job").is_some() && e.samples.1.get("duplicate").is_some();
        if e.intent == Intent::Reads {
            assert!(
                LOOKS.contains(&verb),
                "{}.{} says that it only looks",
                e.concern,
                e.verb
            );
            assert!(!becomes_a_job, "{}.{} becomes a job", e.concern, e.verb);
        }
        signed += &format!("{}.{} {:?}\n", e.concern, e.verb, e.intent);
    }
    golden("intents.txt", &signed);
}

/// Who writes a message by hand and says nothing of what it does has said that it changes something.
#[test]
fn what_says_nothing_is_taken_to_change_something() {
    #[derive(serde::Serialize, serde::Deserialize, JsonSchema)]
    struct Silent {}
    impl Request for Silent {
        type Reply = ();
        const CONCERN: &'static str = "mill";
        const VERB: &'static str = "ls";
        const ADDRESS: Address = Address::Cluster;
        const ABOUT: &'static str = "Says nothing";
        fn sample() -> Self {
            Self {}
        }
        fn sample_reply() {}
    }
    assert!(Silent::INTENT.is_signed());
}
