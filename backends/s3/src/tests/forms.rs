//! URLs and settings: no server is asked.

use super::*;

async fn refused(url: &str) -> store::StoreError {
    open(url, &Settings::default()).await.map(|s| s.url()).unwrap_err()
}

#[tokio::test]
async fn urls_are_taken_apart() {
    for (url, bucket, prefix) in [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://my.bucket-1/a/b.c/", "my.bucket-1", "a/b.c/"),
        ("S3://bucket/x?region=eu", "bucket", "x/"),
    ] {
        let address = address::parse(url, &Settings::default()).unwrap();
        assert_eq!(
            (address.bucket.as_str(), address.prefix.as_str()),
            (bucket, prefix),
            "{url}"
        );
    }
    assert!(is_s3("s3://b/x") && is_s3("S3://b") && !is_s3("gs://b") && !is_s3("s3:/x"));
}

#[tokio::test]
async fn keys_of_the_url_win_over_settings() {
    let settings = Settings {
        region: Some("one".into()),
        stall_timeout_s: 7,
        ..Settings::default()
    };
    let url = "s3://bucket/p?region=two&style=virtual&checksums=off&sse=aws:kms&sse_kms_key_id=k&storage_class=STANDARD_IA\
               &upload_bytes_per_s_max=1000&part_bytes=5242880&ca_file=/etc/x.pem&endpoint=https://h:9/";
    let merged = address::parse(url, &settings).unwrap().settings;
    assert_eq!(merged.region.as_deref(), Some("two"));
    assert_eq!((merged.style, merged.checksums), (Some(Style::Virtual), Checksums::Off));
    assert_eq!((merged.stall_timeout_s, merged.part_bytes), (7, 5 << 20));
    assert_eq!(merged.endpoint.as_deref(), Some("https://h:9"));
    assert_eq!(
        (merged.sse.as_deref(), merged.upload_bytes_per_s_max),
        (Some("aws:kms"), 1000)
    );
    for key in KEYS {
        assert!(Settings::default().set(key, "").is_ok(), "{key}: empty sets nothing");
    }
}

#[tokio::test]
async fn wrong_urls_are_refused_and_say_what_is_wrong() {
    for (url, said) in [
        ("s3://", "bucket"),
        ("s3:///x", "bucket"),
        ("s3://ab/x", "bucket"),
        ("s3://Bucket_x/x", "bucket"),
        ("s3://bucket:9000/x", "endpoint=…"),
        ("s3://bucket/a b", "prefix"),
        ("s3://bucket/a//b", "prefix"),
        ("s3://bucket/../b?regoin=x", "regoin"),
        ("s3://bucket/x#y", "no #"),
        ("s3://bucket/x?style=host", "path or virtual"),
        ("s3://bucket/x?part_bytes=1", "5242880"),
        ("s3://bucket/x?stall_timeout_s=0", "from 1"),
        ("s3://bucket/x?endpoint=host:9000", "https://"),
        ("s3://bucket/x?ca_file=relative.pem", "absolute"),
        ("s3://bucket/x?sse=C", "AES256"),
        (
            "s3://bucket/x?endpoint=http://h&ca_file=/none/such.pem",
            "/none/such.pem",
        ),
        (
            "s3://bucket/x?endpoint=http://h&credentials_file=/none/such",
            "/none/such",
        ),
    ] {
        let e = refused(url).await;
        assert_eq!(e.kind, Kind::Invalid, "{url}: {e}");
        assert!(e.to_string().contains(said), "{url}: {e}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    for junk in [
        "",
        "nothing",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&file, junk).unwrap();
        let e = refused(&format!("s3://bucket/x?endpoint=http://h&ca_file={}", file.display())).await;
        assert!(e.to_string().contains("ca.pem"), "{e}");
    }
}

#[tokio::test]
async fn no_secret_comes_out() {
    for url in [
        "s3://key:hunter2@bucket/p",
        "s3://hunter2@bucket/p",
        "s3://bucket/p?secret=hunter2",
        "s3://bucket/p?endpoint=https://u:hunter2@host",
    ] {
        let e = refused(url).await;
        assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let account = Account {
        endpoint: "http://127.0.0.1:1".into(),
        region: "x",
        key_id: "AKIAHUNTER".into(),
        secret: "hunter2hunter2".into(),
    };
    let store = store_at(&account, "p", dir.path(), |s| s.retry_for_s = 0).await;
    let e = store.head(&key("k")).await.unwrap_err();
    let all = format!("{store:?} {e} {e:?} {}", store.url());
    assert!(!all.contains("hunter2") && !all.contains("AKIAHUNTER"), "{all}");
    assert_eq!(e.kind, Kind::Unavailable, "{e}");
    assert!(e.to_string().contains("http://127.0.0.1:1") && e.hint.is_some(), "{e}");
}
