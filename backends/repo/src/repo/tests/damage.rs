//! Damaged objects: noticed, named, and what can be made anew is.

use super::*;

/// Everything that a person may do with a repository of two snapshots.
async fn use_all(store: Arc<dyn Store>, disks: &[Disk]) -> Result<(), RepoError> {
    let repo = Repo::open(store).await?;
    let found = repo.snapshots().await?;
    if let Some(error) = found.damaged.into_iter().next() {
        return Err(error);
    }
    let report = repo.verify(&found.docs, false, &|_, _| {}).await?;
    if let Some(error) = report.findings.into_iter().next() {
        return Err(error);
    }
    for (doc, disk) in found.docs.iter().zip(disks) {
        assert_disk(&repo, doc, disk).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_changed_byte_anywhere_is_corrupt_and_named() {
    let (memory, repo) = memory_repo().await;
    let disks = [spread(0, 12), spread(6, 12)];
    for disk in &disks {
        take(&repo, SessionLimits::default(), SIZE, disk).await.unwrap();
    }
    use_all(memory.clone(), &disks).await.unwrap();
    for (object, bytes) in objects(&*memory).await {
        let key = Key::new(object.as_str()).unwrap();
        let step = (bytes.len() / 90).max(1);
        let spots = (0..bytes.len())
            .step_by(step)
            .chain([bytes.len() - 1, bytes.len().saturating_sub(60)]);
        for at in spots {
            memory.corrupt(&key, |b| b[at] ^= 0x41);
            let error = use_all(memory.clone(), &disks)
                .await
                .expect_err(&format!("{object} byte {at}"));
            assert_eq!(error.kind, Kind::Corrupt, "{object} byte {at}: {error}");
            let named = error.object == object || error.message.contains(&object) || !error.snapshots.is_empty();
            assert!(named, "{object} byte {at}: {error}");
            assert!(error.hint.is_some());
            memory.corrupt(&key, |b| b[at] ^= 0x41);
        }
        for keep in [0, 1, 20, bytes.len() / 2, bytes.len() - 1] {
            let mut lost = Vec::new();
            memory.corrupt(&key, |b| lost = b.split_off(keep));
            let error = use_all(memory.clone(), &disks)
                .await
                .expect_err(&format!("{object} cut to {keep}"));
            assert_eq!(error.kind, Kind::Corrupt, "{object} cut to {keep}: {error}");
            memory.corrupt(&key, |b| b.append(&mut lost));
        }
    }
    use_all(memory.clone(), &disks).await.unwrap();
}

#[tokio::test]
async fn verify_names_the_snapshots_that_a_damaged_pack_concerns() {
    let (memory, repo) = memory_repo().await;
    let one = take(&repo, SessionLimits::default(), SIZE, &spread(0, 12))
        .await
        .unwrap();
    let before: Vec<String> = objects(&*memory).await.into_keys().collect();
    let two = take(&repo, SessionLimits::default(), SIZE, &spread(100, 12))
        .await
        .unwrap();
    let (object, _) = objects(&*memory)
        .await
        .into_iter()
        .filter(|(k, _)| k.starts_with("packs/") && !before.contains(k))
        .max_by_key(|(_, b)| b.len())
        .unwrap();
    memory.corrupt(&Key::new(object.as_str()).unwrap(), |b| b[100] ^= 1);
    let report = repo
        .verify(&[one.clone(), two.clone()], false, &|_, _| {})
        .await
        .unwrap();
    assert_eq!(report.findings_total, 1);
    let finding = &report.findings[0];
    assert_eq!(finding.object, object);
    assert!(finding.offset.is_some_and(|at| at <= 100), "{finding}");
    assert_eq!(finding.snapshots, [two.id.to_string()]);
    assert_eq!(
        repo.verify(&[one.clone(), two.clone()], true, &|_, _| {})
            .await
            .unwrap()
            .findings_total,
        0
    );
    memory.delete(&[Key::new(object.as_str()).unwrap()]).await.unwrap();
    let quick = repo.verify(&[one, two.clone()], true, &|_, _| {}).await.unwrap();
    assert_eq!(quick.findings_total, 1);
    assert_eq!(
        (&quick.findings[0].object, &quick.findings[0].snapshots),
        (&object, &vec![two.id.to_string()])
    );
}

#[tokio::test]
async fn a_damaged_index_is_told_and_made_anew() {
    let (memory, repo) = memory_repo().await;
    let disk = spread(0, 30);
    let doc = take(&repo, small(), SIZE, &disk).await.unwrap();
    for (object, bytes) in objects(&*memory)
        .await
        .into_iter()
        .filter(|(k, _)| k.starts_with("index/"))
    {
        // one in the header, the others in a page
        let at = if bytes.len() % 2 == 0 { 20 } else { bytes.len() - 5 };
        memory.corrupt(&Key::new(object.as_str()).unwrap(), |b| b[at] ^= 8);
    }
    let repo = Repo::open(memory.clone()).await.unwrap();
    assert!(
        !repo.damaged_indexes().is_empty()
            || repo
                .verify(std::slice::from_ref(&doc), true, &|_, _| {})
                .await
                .unwrap()
                .findings_total
                > 0
    );
    let id = repo.id_of(&content(disk[0].1));
    let error = repo.read(&id).await.expect_err("no index knows it");
    assert!(
        error.kind == Kind::Corrupt && error.object.starts_with("index/"),
        "{error}"
    );
    let found = repo.rebuild_index().await.unwrap();
    assert!(found > 30);
    assert!(repo.damaged_indexes().is_empty());
    assert_disk(&Repo::open(memory).await.unwrap(), &doc, &disk).await;
}
