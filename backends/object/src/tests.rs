//! Stores by URL: what all of them share; `files` and `http` have what is theirs.

mod files;
mod http;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::str::FromStr;

use integration::azurite::{Azurite, CONTAINER};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use store::{Counting, Faults, Flaky, Throttled, conformance};

use super::fake_gcs::FakeGcs;
use super::*;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn file_url(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn local() -> (tempfile::TempDir, Arc<dyn Store>) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&file_url(directory.path())).unwrap();
    (directory, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn local_files_conform() {
    let (_directory, store) = local();
    conformance::run(&*store).await;
    assert!(store.local_path(&key("a/b")).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixed_local_files_conform() {
    let (_directory, store) = local();
    conformance::run(&*Prefixed::new(store, key("part/of"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_files_conform_through_every_decorator() {
    let part = |name| {
        let (directory, store) = local();
        (directory, Prefixed::new(store, key(name)))
    };
    let (_a, flaky) = part("flaky");
    conformance::run(&*Flaky::new(flaky, Faults::default())).await;
    let (_b, throttled) = part("throttled");
    conformance::run(&*Throttled::new(throttled, Duration::from_millis(1), 200 << 20)).await;
    let (_c, counting) = part("counting");
    conformance::run(&*Counting::new(counting)).await;
}

#[tokio::test]
async fn memory_conforms() {
    let store = open("memory://object-tests").unwrap();
    conformance::run(&*store).await;
    assert!(
        open("memory://object-tests")
            .unwrap()
            .head(&key("c-head/1"))
            .await
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn google_cloud_storage_conforms() {
    let server = FakeGcs::start().await;
    conformance::run(&*server.store(Timeouts::default())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_in_google_cloud_storage_conforms() {
    let server = FakeGcs::start().await;
    conformance::run(&*Prefixed::new(server.store(Timeouts::default()), key("deep/in"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_conforms() {
    let server = Azurite::start().unwrap();
    let builder = || {
        server
            .environment()
            .into_iter()
            .filter_map(|(name, value)| Some((AzureConfigKey::from_str(&name.to_lowercase()).ok()?, value)))
            .fold(MicrosoftAzureBuilder::new(), |b, (key, value)| {
                b.with_config(key, value)
            })
    };
    let store = || cloud::azure_from(builder(), CONTAINER, Timeouts::default()).unwrap();
    conformance::run(&*store()).await;
    conformance::run(&*Prefixed::new(store(), key("deep/in"))).await;
}

#[test]
fn urls() {
    let directory = tempfile::tempdir().unwrap();
    let url = file_url(&directory.path().canonicalize().unwrap());
    for asked in [
        url.clone(),
        format!("{url}/"),
        url.replacen("file://", "file://localhost", 1),
    ] {
        assert_eq!(open(&asked).unwrap().url(), url, "{asked}");
    }
    let spaced = directory.path().join("with space#and%");
    std::fs::create_dir(&spaced).unwrap();
    assert_eq!(
        open(&format!("{url}/with%20space%23and%25")).unwrap().url(),
        format!("{url}/with%20space%23and%25")
    );

    assert_eq!(open(&format!("{url}/none")).unwrap_err().kind, Kind::NotFound);
    std::fs::write(directory.path().join("file"), b"").unwrap();
    assert_eq!(open(&format!("{url}/file")).unwrap_err().kind, Kind::Invalid);
    assert_eq!(open(&format!("{url}/file/x")).unwrap_err().kind, Kind::Invalid);
    for (bad, said) in [
        ("ftp://host/x", "unknown scheme ftp"),
        ("s3://bucket/x", "unknown scheme s3"),
        ("/srv/repo", "file:///srv/repo"),
        ("repo", "file:///dir"),
        ("file:repo", "file:///absolute"),
        ("file://repo/x", "file:///absolute"),
        ("file:///srv/a?b", "%3F"),
        ("file:///srv/a#b", "%23"),
        ("memory://", "memory://name"),
        ("memory://a/b", "memory://name"),
        ("gs://", "no bucket"),
        ("gs:///x", "no bucket"),
        ("gs://bucket/a b", "prefix"),
        ("gs://bucket/a//b", "prefix"),
        ("", "known are"),
    ] {
        let e = open(bad).unwrap_err();
        assert_eq!(e.kind, Kind::Invalid, "{bad}");
        assert!(e.to_string().contains(said), "{bad}: {e}");
    }
    for secret in [
        "gs://user:hunter2@bucket/p",
        "az://hunter2@c/p",
        "az://c/p?sig=hunter2",
        "s3://k:hunter2@b/p",
    ] {
        let e = open(secret).unwrap_err();
        assert_eq!(e.kind, Kind::Invalid);
        assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
    }
}

#[test]
fn create_makes_directories_for_their_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/c");
    for _ in 0..2 {
        create(&file_url(&path)).unwrap();
    }
    for made in [&path, path.parent().unwrap()] {
        assert_eq!(std::fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o700);
    }
    assert_eq!(create("gs:///x").unwrap_err().kind, Kind::Invalid);
}

#[test]
fn system_errors_have_kinds() {
    for (errno, kind) in [
        (libc_errno::ENOSPC, Kind::Full),
        (libc_errno::EDQUOT, Kind::Full),
        (libc_errno::EACCES, Kind::Denied),
        (libc_errno::EPERM, Kind::Denied),
        (libc_errno::EROFS, Kind::Denied),
        (libc_errno::ENOENT, Kind::NotFound),
        (libc_errno::ENAMETOOLONG, Kind::Invalid),
        (libc_errno::EIO, Kind::Unavailable),
        (libc_errno::EMFILE, Kind::Unavailable),
        (libc_errno::ESTALE, Kind::Unavailable),
        (libc_errno::ETIMEDOUT, Kind::Timeout),
    ] {
        let e = std::io::Error::from_raw_os_error(errno);
        assert_eq!(error::kind_of_io(&e), kind, "{e}");
    }
    let wrapped = object_store::Error::Generic {
        store: "x",
        source: Box::new(std::io::Error::other(std::io::Error::from_raw_os_error(
            libc_errno::EIO,
        ))),
    };
    assert_eq!(error::kind_of_object_store(&wrapped), Kind::Unavailable);
}

mod libc_errno {
    use rustix::io::Errno;
    pub(super) const ENOSPC: i32 = Errno::NOSPC.raw_os_error();
    pub(super) const EDQUOT: i32 = Errno::DQUOT.raw_os_error();
    pub(super) const EACCES: i32 = Errno::ACCESS.raw_os_error();
    pub(super) const EPERM: i32 = Errno::PERM.raw_os_error();
    pub(super) const EROFS: i32 = Errno::ROFS.raw_os_error();
    pub(super) const ENOENT: i32 = Errno::NOENT.raw_os_error();
    pub(super) const ENAMETOOLONG: i32 = Errno::NAMETOOLONG.raw_os_error();
    pub(super) const EIO: i32 = Errno::IO.raw_os_error();
    pub(super) const EMFILE: i32 = Errno::MFILE.raw_os_error();
    pub(super) const ESTALE: i32 = Errno::STALE.raw_os_error();
    pub(super) const ETIMEDOUT: i32 = Errno::TIMEDOUT.raw_os_error();
}
