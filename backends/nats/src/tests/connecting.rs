use super::*;

#[tokio::test]
async fn connects_and_comes_back_after_the_server_did() {
    let scratch = Scratch::new("lattice").unwrap();
    let mut server = Server::start(&scratch.join("n1")).unwrap();
    let lattice = Lattice::connect(settings(&server.url()), PATIENCE).await.unwrap();
    assert_eq!(
        (lattice.is_connected(), lattice.replicas(), lattice.connects()),
        (true, 1, 1)
    );
    server.kill().unwrap();
    until(|| !lattice.is_connected()).await;
    server.restart().unwrap();
    until(|| lattice.is_connected()).await;
    assert_eq!(lattice.connects(), 2);
}

#[tokio::test]
async fn a_server_that_comes_late_is_waited_for_and_one_that_does_not_is_named() {
    let scratch = Scratch::new("lattice").unwrap();
    let mut server = Server::start(&scratch.join("n1")).unwrap();
    server.kill().unwrap();
    let absent = settings(&server.url());
    let error = Lattice::connect(absent.clone(), Some(Duration::from_millis(300)))
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.to_string().contains(&server.url()), "{error}");
    assert!(!error.is_permanent());
    let waiting = tokio::spawn(Lattice::connect(absent, None));
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.restart().unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_is_not_let_in_hears_denied() {
    let scratch = Scratch::new("lattice").unwrap();
    let options = ServerOptions {
        lines: "authorization { user: web1, password: \"s3cret\" }".into(),
        ..ServerOptions::default()
    };
    let server = Server::start_with(&scratch.join("n1"), options).unwrap();
    let with = |text: &str| {
        let file = scratch.join("user");
        std::fs::write(&file, text).unwrap();
        let mut settings = settings(&server.url());
        settings.credentials = Credentials::UserFile(file.into());
        settings
    };
    let wrong = Lattice::connect(with("web1\nnever\n"), Some(Duration::from_secs(1)))
        .await
        .unwrap_err();
    assert_eq!(wrong.kind, Kind::Denied);
    assert!(!format!("{wrong:?}").contains("never"), "no secret in an error");
    Lattice::connect(with("web1\ns3cret\n"), PATIENCE).await.unwrap();
    let short = Lattice::connect(with("web1"), PATIENCE).await.unwrap_err();
    assert_eq!(short.kind, Kind::Invalid);
}

#[tokio::test]
async fn settings_that_can_not_be_used_are_refused() {
    let kind = |servers: &'static [&'static str]| async {
        let settings = Settings {
            servers: servers.iter().map(|s| (*s).to_owned()).collect(),
            ..Settings::default()
        };
        let error = Lattice::connect(settings, PATIENCE).await.unwrap_err();
        assert!(!error.to_string().contains("pw"), "{error}");
        error.kind
    };
    assert_eq!(kind(&[]).await, Kind::Invalid);
    assert_eq!(kind(&["nats://u:pw@127.0.0.1:1"]).await, Kind::Invalid);
    assert_eq!(kind(&["ftp://127.0.0.1"]).await, Kind::Invalid);
    let mut missing = settings("nats://127.0.0.1:1");
    missing.credentials = Credentials::CredsFile(secret::Reference::File("/no/such/file".into()));
    assert_eq!(
        Lattice::connect(missing, PATIENCE).await.unwrap_err().kind,
        Kind::Denied
    );
}

#[tokio::test]
async fn a_server_without_jetstream_is_unfit() {
    let scratch = Scratch::new("lattice").unwrap();
    let options = ServerOptions {
        core_only: true,
        ..ServerOptions::default()
    };
    let server = Server::start_with(&scratch.join("n1"), options).unwrap();
    let error = Lattice::connect(settings(&server.url()), PATIENCE).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unfit);
}

pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(40), async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("in time");
}
