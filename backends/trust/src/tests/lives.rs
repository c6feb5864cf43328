//! How hosts come and go: founding, tokens, joining, exclusion; and what is left when a process dies at any of its writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use state::{Entry, State};
use wire::members::HostToken;

use super::host;
use super::world::{Death, Mortal, PATIENCE, World, copy, token, token_with, until};
use crate::core::book::Signed;
use crate::error::Kind;
use crate::grants::member_key;

#[tokio::test(flavor = "multi_thread")]
async fn hosts_join_by_a_token_once_and_leave_by_a_word() {
    let world = World::new();
    let (_home, one) = world.founder().await;
    let (h2, h3) = (world.home("h2"), world.home("h3"));
    let refused = world.open(&h2).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Denied, "{refused}");
    let good = token(&one, "h2").await;
    assert_eq!(world.join(copy(&good), &h2).await.unwrap(), 1);
    assert_eq!(
        world.join(copy(&good), &h2).await.unwrap(),
        1,
        "the same command again is no fault"
    );
    let two = world.open(&h2).await.unwrap();
    two.follow();
    assert_eq!(two.members().members.len(), 2);
    until(|| one.fleet().book().key(&host("h2")).is_ok()).await;

    // a token is for one member, once
    let thief = world.home("thief");
    let stolen = world.join(copy(&good), &thief).await.unwrap_err();
    assert_eq!(stolen.kind, Kind::Denied, "{stolen}");
    // and over when its time is over
    let late = token(&one, "h3").await;
    world.now.advance(3_600_001);
    assert_eq!(world.join(copy(&late), &h3).await.unwrap_err().kind, Kind::NotFound);
    // another granter's signature isn't this one's
    let mut foreign = token(&one, "h3").await;
    foreign.issuer = two.fleet().key().unwrap();
    assert_eq!(world.join(foreign, &h3).await.unwrap_err().kind, Kind::Denied);

    // a host that may not admit grants nothing and puts nobody out
    let error = token_with(&two, &host("h4"), |r| r).await.unwrap_err();
    assert!(error.kind == Kind::Denied && wire::ErrorBody::from(error).hint.unwrap().contains("host:h1"));
    assert_eq!(two.revoke(&host("h1")).await.unwrap_err().kind, Kind::Denied);
    // who is there already is replaced on purpose alone
    assert_eq!(
        token_with(&one, &host("h2"), |r| r).await.unwrap_err().kind,
        Kind::Conflict
    );
    assert_eq!(
        one.revoke(&host("h1")).await.unwrap_err().kind,
        Kind::Conflict,
        "the last that may admit"
    );

    one.revoke(&host("h2")).await.unwrap();
    tokio::time::timeout(PATIENCE, two.fleet().put_out())
        .await
        .expect("it hears so itself");
    assert_eq!(world.open(&h2).await.unwrap_err().kind, Kind::Denied);
    assert_eq!(one.revoke(&host("h2")).await.unwrap_err().kind, Kind::Conflict);
    // and comes back, with a new key
    let before = h2.place.identity().unwrap().unwrap().0.public();
    assert_eq!(world.join(token(&one, "h2").await, &h2).await.unwrap(), 3);
    assert_ne!(h2.place.identity().unwrap().unwrap().0.public(), before);
    world.open(&h2).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_lost_its_key_is_let_in_again() {
    let world = World::new();
    let (_home, one) = world.founder().await;
    let h2 = world.home("h2");
    world.join(token(&one, "h2").await, &h2).await.unwrap();
    let two = world.open(&h2).await.unwrap();
    two.follow();
    std::fs::remove_dir_all(world.scratch.join("h2")).unwrap();
    let h2 = world.home("h2");
    assert_eq!(world.open(&h2).await.unwrap_err().kind, Kind::Denied);
    let who = host("h2");
    let again = token_with(&one, &who, |r| HostToken { replace: true, ..r });
    assert_eq!(world.join(again.await.unwrap(), &h2).await.unwrap(), 2);
    world.open(&h2).await.unwrap();
    tokio::time::timeout(PATIENCE, two.fleet().put_out())
        .await
        .expect("who has the old key is out");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_that_may_admit_does_so_when_the_first_is_away() {
    let world = World::new();
    let (_home, one) = world.founder().await;
    let (h2, h3) = (world.home("h2"), world.home("h3"));
    let who = host("h2");
    let may = token_with(&one, &who, |r| HostToken { may_admit: true, ..r });
    world.join(may.await.unwrap(), &h2).await.unwrap();
    let two = world.open(&h2).await.unwrap();
    two.follow();
    let by_one = token(&one, "h3").await;
    // the first one can't hear of the joiner: another clock of ours stops its part
    one.revoke(&host("h2")).await.unwrap();
    tokio::time::timeout(PATIENCE, two.fleet().put_out()).await.unwrap();
    let who = host("h2");
    let back = token_with(&one, &who, |r| HostToken { may_admit: true, ..r });
    world.join(back.await.unwrap(), &h2).await.unwrap();
    let two = world.open(&h2).await.unwrap();
    two.follow();
    // put out itself, it lets nobody in any more; what it granted is over with it
    two.revoke(&host("h1")).await.unwrap();
    tokio::time::timeout(PATIENCE, one.fleet().put_out()).await.unwrap();
    let short = crate::join(by_one, h3.place.clone(), world.shared.clone(), Duration::from_secs(2)).await;
    assert_eq!(short.unwrap_err().kind, Kind::Deadline);
    assert_eq!(world.join(token(&two, "h3").await, &h3).await.unwrap(), 1);
    let three = world.open(&h3).await.unwrap();
    assert_eq!(
        three.fleet().book().key(&host("h1")),
        Err(crate::Refusal::Revoked),
        "a joiner is told who is out"
    );
}

/// Whoever writes to the servers can't make members forget, nor be a member.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_in_is_written_again() {
    let world = World::new();
    let (_home, one) = world.founder().await;
    let h2 = world.home("h2");
    world.join(token(&one, "h2").await, &h2).await.unwrap();
    let admitted = world
        .shared
        .get(&member_key(&host("h2")).unwrap())
        .await
        .unwrap()
        .unwrap()
        .value;
    one.revoke(&host("h2")).await.unwrap();
    let standing = |entry: Option<Entry>| entry.and_then(|e| serde_json::from_slice::<Signed>(&e.value).ok());
    let key = member_key(&host("h2")).unwrap();
    let out = standing(world.shared.get(&key).await.unwrap());
    // removed, replaced by the older one, replaced by nonsense
    for theft in [None, Some(admitted.clone()), Some(Bytes::from_static(b"{}"))] {
        match theft {
            None => world.shared.delete(&key, None).await.map(|_| ()).unwrap(),
            Some(text) => world.shared.put(&key, text).await.map(|_| ()).unwrap(),
        }
        let mut back = None;
        for _ in 0..400 {
            back = standing(world.shared.get(&key).await.unwrap());
            if back == out {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(back, out);
        assert_eq!(one.fleet().book().key(&host("h2")), Err(crate::Refusal::Revoked));
    }
    assert!(
        one.fleet().refused().iter().map(|(_, n)| n).sum::<u64>() >= 3,
        "and it is told"
    );
}

/// The founder dies at each of its writes: the next start founds it, or goes on with it, and there is one fleet.
#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_is_killed_at_any_write_founds_one_fleet() {
    let mut deaths = 0;
    for n in 0..64 {
        let world = World::new();
        let home = world.home("h1");
        let death = Death::at(n);
        let mortal = |inner: &Arc<dyn State>| -> Arc<dyn State> {
            Arc::new(Mortal {
                inner: inner.clone(),
                death: death.clone(),
            })
        };
        let opened = world.open_with(&home, mortal(&world.shared), mortal(&home.own));
        let lived = death.of(opened).await.map(Result::unwrap).is_some();
        let again = world.open(&home).await.unwrap_or_else(|e| panic!("killed at {n}: {e}"));
        assert_eq!(again.members().members.len(), 1, "killed at {n}");
        let other = world.home("h2");
        assert_eq!(
            world.open(&other).await.unwrap_err().kind,
            Kind::Denied,
            "killed at {n}"
        );
        if lived {
            break;
        }
        deaths += 1;
    }
    assert!((4..60).contains(&deaths), "{deaths} writes and half-writes");
}

/// A joiner, and the member that lets it in, each die at each of their writes: the same command again ends as a member.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_at_any_write_of_a_join_joins_all_the_same() {
    let (mut joiner_died, mut member_died) = (0, 0);
    for n in 0..64 {
        let world = World::new();
        let (_home, one) = world.founder().await;
        let h2 = world.home("h2");
        let good = token(&one, "h2").await;
        let death = Death::at(n);
        let shared: Arc<dyn State> = Arc::new(Mortal {
            inner: world.shared.clone(),
            death: death.clone(),
        });
        let joins = crate::join(copy(&good), h2.place.clone(), shared, PATIENCE);
        let lived = death.of(joins).await.map(Result::unwrap).is_some();
        assert_eq!(world.join(copy(&good), &h2).await.unwrap(), 1, "killed at {n}");
        world.open(&h2).await.unwrap();
        if lived {
            break;
        }
        joiner_died += 1;
    }
    for n in 0..64 {
        let world = World::new();
        let home = world.home("h1");
        let first = world.open(&home).await.unwrap();
        let h2 = world.home("h2");
        let good = token(&first, "h2").await;
        drop(first);
        // its process lets in, and dies
        let death = Death::at(n);
        let mortal = |inner: &Arc<dyn State>| -> Arc<dyn State> {
            Arc::new(Mortal {
                inner: inner.clone(),
                death: death.clone(),
            })
        };
        let opened = world.open_with(&home, mortal(&world.shared), mortal(&home.own));
        let Some(opened) = death.of(opened).await else {
            member_died += 1;
            continue;
        };
        opened.unwrap().follow();
        let place = h2.place.clone();
        let joins = crate::join(copy(&good), place, world.shared.clone(), PATIENCE);
        let joined = death.of(joins).await.is_some();
        // the next process of that host
        let again = world.open(&home).await.unwrap_or_else(|e| panic!("killed at {n}: {e}"));
        again.follow();
        assert_eq!(world.join(copy(&good), &h2).await.unwrap(), 1, "killed at {n}");
        assert_eq!(
            again
                .members()
                .members
                .iter()
                .filter(|m| m.member == host("h2"))
                .count(),
            1
        );
        if joined && death.left.load(Ordering::SeqCst) > 0 {
            break;
        }
        member_died += 1;
    }
    assert!(joiner_died >= 2 && member_died >= 4, "{joiner_died} and {member_died}");
}

/// A place with half of what a join writes, as `kill -9` leaves it.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_place_is_no_obstacle() {
    let world = World::new();
    let (_home, one) = world.founder().await;
    let h2 = world.home("h2");
    let good = token(&one, "h2").await;
    let key = h2.place.identity_of(1).unwrap().public();
    std::fs::write(world.scratch.join("h2").join("fleet.json.4711.new"), b"{\"me\":").unwrap();
    assert_eq!(world.join(copy(&good), &h2).await.unwrap(), 1);
    assert_eq!(
        h2.place.identity().unwrap().unwrap().0.public(),
        key,
        "the key that was made is taken up"
    );
}
