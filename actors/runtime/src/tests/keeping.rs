use std::sync::atomic::Ordering;
use std::time::Duration;

use bus::{EVENTS_QUEUED_DEFAULT, Received};
use bytes::Bytes;
use futures::future::join_all;
use wire::house::{ConcernFailed, ConcernState, Status};
use wire::subject::EventFilter;
use wire::{Code, Headers, Subject};

use super::{Bell, How, Ring, Rung, Site, eventually, host, limits};
use crate::{Kind, Limits, Restart};

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_costs_one_message_and_the_successor_serves_the_ten_behind_it() {
    let (site, tower) = Site::with_bell(limits()).await;
    let go = tower.holds();
    let ring_all = async {
        let bad = site.ring(0, How::HoldAndPanic);
        let ten = join_all((1..=10).map(|n| site.ring(n, How::Well)));
        futures::join!(bad, ten)
    };
    let release = async {
        eventually(|| async { site.waiting() == 10 }).await;
        let before = site.ask_neighbour().await;
        go.send(()).unwrap();
        before
    };
    let ((bad, ten), asked_before) = futures::join!(ring_all, release);

    let bad = bad.unwrap_err();
    assert_eq!(bad.code, Code::Internal);
    assert!(bad.message.contains("the bell cracks"), "{}", bad.message);
    let successors: Vec<_> = ten.into_iter().map(Result::unwrap).collect();
    let expected: Vec<_> = (1..=10).map(|n| Rung { n, built: 2 }).collect();
    assert_eq!(successors, expected, "all ten by the one successor");
    assert_eq!(tower.rung(), (1..=10).collect::<Vec<_>>(), "in their order");
    assert_eq!(
        site.ask_neighbour().await,
        asked_before + 1,
        "the neighbour kept its state"
    );

    let bell = site.bell().await;
    assert_eq!(bell.state, ConcernState::Up);
    assert_eq!(bell.deaths.get("panic"), Some(&1));
    assert_eq!(bell.answered.get("ok"), Some(&10));
    assert_eq!(bell.answered.get("internal"), Some(&1));
    assert_eq!(bell.observed, serde_json::json!({"built": 2}));
    assert_eq!(bell.mailbox_messages, 0);
}

/// Here the ten wait in the keeper's own queue, not on their way to it: the bad effect leaves the keeper's thread free,
/// which takes every letter in, and one message at a time is under way.
#[tokio::test(flavor = "multi_thread")]
async fn the_keepers_own_queue_survives_a_panic_of_the_effect_before_it() {
    let one_at_a_time = Limits {
        in_flight_max: 1,
        ..limits()
    };
    let (site, tower) = Site::with_bell(one_at_a_time).await;
    let ring_all = async {
        let bad = site.ring(0, How::HoldAndPanicInEffect);
        let ten = async {
            eventually(|| async { tower.rung() == [0] }).await;
            join_all((1..=10).map(|n| site.ring(n, How::Well))).await
        };
        futures::join!(bad, ten)
    };
    let release = async {
        eventually(|| async { site.waiting() == 10 }).await;
        // The keeper answers this after it took in what came before, and it does so while the effect is under way.
        let bell = site.bell().await;
        assert_eq!(
            bell.observed,
            serde_json::json!({"built": 1}),
            "the first bell still hangs"
        );
        assert_eq!(bell.mailbox_messages, 10, "taken in, not taken up");
        assert_eq!(tower.rung(), [0], "one at a time");
        tower.effect_go.notify_one();
    };
    let ((bad, ten), ()) = futures::join!(ring_all, release);

    let bad = bad.unwrap_err();
    assert_eq!(bad.code, Code::Internal);
    assert!(bad.message.contains("the clapper falls off"), "{}", bad.message);
    let answered: Vec<_> = ten.into_iter().map(Result::unwrap).collect();
    let expected: Vec<_> = (1..=10).map(|n| Rung { n, built: 2 }).collect();
    assert_eq!(answered, expected, "all ten by the one successor");
    assert_eq!(tower.rung(), (0..=10).collect::<Vec<_>>(), "in their order");
    let bell = site.bell().await;
    assert_eq!(
        (bell.deaths.get("panic"), bell.answered.get("ok")),
        (Some(&1), Some(&10))
    );
    assert_eq!(bell.mailbox_messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concern_that_spends_its_budget_is_failed_and_the_rest_go_on() {
    let (site, tower) = Site::with_bell(limits()).await;
    let mut events = site
        .bus
        .subscribe(EventFilter::All, EVENTS_QUEUED_DEFAULT)
        .await
        .unwrap();
    for n in 0..3 {
        assert_eq!(
            site.ring(n, How::PanicInHandler).await.unwrap_err().code,
            Code::Internal
        );
    }
    assert_eq!(
        site.ring(3, How::Well).await.unwrap().built,
        4,
        "three deaths are made good"
    );
    // the fourth death is one too many, also for those that wait behind it
    let go = tower.holds();
    let ring_all = async { futures::join!(site.ring(4, How::HoldAndPanic), site.ring(5, How::Well)) };
    let release = async {
        eventually(|| async { site.waiting() == 1 }).await;
        drop(go);
    };
    let ((bad, behind), ()) = futures::join!(ring_all, release);
    assert_eq!(bad.unwrap_err().code, Code::Internal);
    assert_eq!(behind.unwrap_err().code, Code::Unavailable);

    let later = site.ring(6, How::Well).await.unwrap_err();
    assert_eq!(later.code, Code::Unavailable);
    assert!(later.message.contains("died 4 times"), "{}", later.message);
    assert_eq!(site.bell().await.state, ConcernState::Failed);
    assert_eq!(tower.rung(), [3], "nothing was rung after the failure");
    assert_eq!(site.ask_neighbour().await, 1);

    let told = loop {
        match events.next().await.unwrap() {
            Received::Event { subject, payload } if subject.verb() == "concern_failed" => break payload,
            _ => {}
        }
    };
    let event: wire::event::CloudEvent<ConcernFailed> = serde_json::from_slice(&told).unwrap();
    assert_eq!((event.data.concern.as_str(), event.data.deaths), ("bell", 4));
    assert_eq!(
        site.house.drain(Duration::from_secs(5)).await,
        0,
        "a failed concern does not hold up the drain"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn panics_after_the_handler_are_answered_too() {
    let (site, _) = Site::with_bell(limits()).await;
    for (n, how) in [
        (1, How::PanicInEffect),
        (2, How::PanicInDecision),
        (3, How::PanicInDropOfEffect),
    ] {
        let error = site.ring(n, how).await.unwrap_err();
        assert_eq!(error.code, Code::Internal, "{how:?}");
        assert!(error.message.contains("bell.ring panicked"), "{}", error.message);
        assert_eq!(site.ring(9, How::Well).await.unwrap().built, n + 1, "{how:?}");
    }
    assert_eq!(site.bell().await.deaths.get("panic"), Some(&3));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_outlives_the_death_of_its_concern_but_decides_nothing_for_the_successor() {
    let (site, _) = Site::with_bell(limits()).await;
    let slow = site.ring(1, How::Slowly);
    let die = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        site.ring(2, How::PanicInHandler).await
    };
    let (slow, died) = futures::join!(slow, die);
    assert_eq!(died.unwrap_err().code, Code::Internal);
    let slow = slow.unwrap_err();
    assert_eq!(slow.code, Code::Internal);
    assert!(
        slow.message.contains("died while it carried out ring"),
        "{}",
        slow.message
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_factory_that_panics_counts_and_may_recover() {
    let (site, tower) = Site::with_bell(limits()).await;
    tower.bad_builds.store(2, Ordering::SeqCst);
    assert_eq!(
        site.ring(1, How::PanicInHandler).await.unwrap_err().code,
        Code::Internal
    );
    assert_eq!(
        site.ring(2, How::Well).await.unwrap().built,
        2,
        "the third try is cast well"
    );
    let deaths = site.bell().await.deaths;
    assert_eq!((deaths.get("panic"), deaths.get("factory_panic")), (Some(&1), Some(&2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_factory_that_never_succeeds_fails_the_concern_from_the_start() {
    let (site, tower) = (Site::new().await, std::sync::Arc::new(super::Tower::default()));
    tower.bad_builds.store(u64::MAX, Ordering::SeqCst);
    site.add_bell(limits(), &tower).await;
    site.bell_is(ConcernState::Failed).await;
    assert_eq!(site.ring(1, How::Well).await.unwrap_err().code, Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concern_that_panics_when_looked_at_is_built_again() {
    let (site, tower) = Site::with_bell(limits()).await;
    tower.observe_panics.store(1, Ordering::SeqCst);
    assert_eq!(site.bell().await.observed, serde_json::Value::Null);
    eventually(|| async { site.bell().await.observed == serde_json::json!({"built": 2}) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_is_busy_and_says_when_to_try_again() {
    let small = Limits {
        mailbox_messages_max: 4,
        retry_after_ms: 77,
        ..limits()
    };
    let (site, tower) = Site::with_bell(small).await;
    let go = tower.holds();
    let held = site.ring(0, How::Hold);
    let rest = async {
        eventually(|| async { tower.hold.lock().unwrap().is_none() }).await;
        let four = join_all((1..=4).map(|n| site.ring(n, How::Well)));
        let fifth = async {
            eventually(|| async { site.waiting() == 4 }).await;
            let fifth = site.ring(5, How::Well).await;
            go.send(()).unwrap();
            fifth
        };
        futures::join!(four, fifth)
    };
    let (held, (four, fifth)) = futures::join!(held, rest);
    let fifth = fifth.unwrap_err();
    assert_eq!((fifth.code, fifth.retry_after_ms), (Code::Busy, Some(77)));
    assert_eq!(held.unwrap().n, 0);
    assert!(four.iter().all(Result::is_ok), "{four:?}");
    assert_eq!(tower.rung(), [0, 1, 2, 3, 4], "the one that heard busy was not rung");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_late_is_not_done() {
    let (site, tower) = Site::with_bell(limits()).await;
    let go = tower.holds();
    let held = site.ring(0, How::Hold);
    let late = async {
        eventually(|| async { tower.hold.lock().unwrap().is_none() }).await;
        let headers = Headers {
            timeout_ms: Some(30),
            ..Headers::default()
        };
        let late = bus::call(&*site.bus, &host(), &Ring { n: 1, how: How::Well }, headers).await;
        go.send(()).unwrap();
        late
    };
    let (held, late) = futures::join!(held, late);
    assert_eq!(held.unwrap().n, 0);
    assert_eq!(late.unwrap_err().code, Code::Deadline);
    assert_eq!(site.ring(2, How::Well).await.unwrap().n, 2);
    assert_eq!(tower.rung(), [0, 2], "the late one was not rung");
    assert_eq!(
        site.bell().await.answered.get("deadline"),
        Some(&1),
        "and it was counted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_what_is_in_hand_and_refuses_the_new() {
    let (site, tower) = Site::with_bell(limits()).await;
    let in_hand = join_all((1..=3).map(|n| site.ring(n, How::Slowly)));
    let drain = async {
        eventually(|| async { tower.rung().len() == 3 }).await;
        let refused = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let status = bus::call(&*site.bus, &host(), &Status {}, Headers::default())
                .await
                .unwrap();
            let bell = status.concerns.iter().find(|c| c.concern == "bell").unwrap();
            assert_eq!(
                bell.state,
                ConcernState::Draining,
                "a draining house still tells how it is"
            );
            site.ring(4, How::Well).await
        };
        futures::join!(site.house.drain(Duration::from_secs(5)), refused)
    };
    let (in_hand, (left, refused)) = futures::join!(in_hand, drain);
    assert!(in_hand.iter().all(Result::is_ok), "{in_hand:?}");
    assert_eq!(left, 0);
    assert_eq!(refused.unwrap_err().code, Code::Unavailable);
    assert_eq!(tower.rung().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_in_time_and_answers_what_it_could_not_finish() {
    let one_at_a_time = Limits {
        in_flight_max: 1,
        ..limits()
    };
    let (site, tower) = Site::with_bell(one_at_a_time).await;
    let rings = join_all((1..=3).map(|n| site.ring(n, How::Slowly)));
    let drain = async {
        eventually(|| async { tower.rung().len() == 1 }).await;
        site.house.drain(Duration::from_millis(20)).await
    };
    let (rings, left) = futures::join!(rings, drain);
    assert_eq!(left, 1, "one concern was not finished");
    for ring in rings {
        assert_eq!(ring.unwrap_err().code, Code::Unavailable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_input_ends_a_concern() {
    let (site, _) = Site::with_bell(limits()).await;
    let subject = Subject::host(&host(), "bell", "ring").unwrap();
    let deep = "[".repeat(100_000);
    for bad in [
        "",
        "{",
        "null",
        "[]",
        "{\"n\":-1}",
        "{\"n\":1,\"x\":2}",
        "\u{0}",
        deep.as_str(),
        "{\"n\":1e999}",
    ] {
        let answer = site
            .bus
            .request(&subject, Headers::default(), Bytes::copy_from_slice(bad.as_bytes()))
            .await
            .unwrap();
        let answer: wire::Answer<Rung> = serde_json::from_slice(&answer).unwrap();
        assert_eq!(
            answer.into_result().unwrap_err().code,
            Code::Invalid,
            "{}",
            &bad[..bad.len().min(40)]
        );
    }
    let not_text = site
        .bus
        .request(&subject, Headers::default(), Bytes::from_static(b"\xff\xfe"))
        .await
        .unwrap();
    assert!(not_text.starts_with(b"{\"error\":{\"code\":\"invalid\""));
    let large = Bytes::from(vec![b' '; bus::PAYLOAD_BYTES_MAX + 1]);
    let refused = site.bus.request(&subject, Headers::default(), large).await.unwrap_err();
    assert_eq!(refused.kind, bus::Kind::Invalid);
    let nobody = Subject::host(&host(), "bell", "melt").unwrap();
    let nobody = site
        .bus
        .request(&nobody, Headers::default(), Bytes::from_static(b"{}"))
        .await
        .unwrap_err();
    assert_eq!(nobody.kind, bus::Kind::Unavailable);
    assert_eq!(
        site.ring(1, How::Well).await.unwrap().built,
        1,
        "the first bell still hangs"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flood_is_answered_to_the_last_message() {
    let (site, tower) = Site::with_bell(limits()).await;
    let go = tower.holds();
    let flood = async {
        let held = site.ring(0, How::Hold);
        let rest = async {
            eventually(|| async { tower.hold.lock().unwrap().is_none() }).await;
            join_all((1..10_000).map(|n| site.ring(n, How::Well))).await
        };
        let (held, mut rest) = futures::join!(held, rest);
        rest.push(held);
        rest
    };
    let release = async {
        eventually(|| async { site.waiting() == 1_000 }).await;
        drop(go);
    };
    let (answers, ()) = futures::join!(flood, release);
    let (mut ok, mut busy) = (0, 0);
    for answer in answers {
        match answer {
            Ok(_) => ok += 1,
            Err(e) if e.code == Code::Busy && e.retry_after_ms.is_some() => busy += 1,
            Err(e) => panic!("neither rung nor busy: {e:?}"),
        }
    }
    assert_eq!(ok + busy, 10_000);
    assert_eq!(
        tower.rung().len(),
        ok,
        "what heard busy was not rung, what heard ok was"
    );
    assert!(ok >= 1_000, "a mailbox of 1,000 takes at least as many: {ok}");
    assert!(busy > 0, "the flood was larger than the mailbox");
    assert_eq!(site.bell().await.mailbox_messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_t_be_served_is_refused_at_the_start() {
    let (site, tower) = Site::with_bell(limits()).await;
    let again = {
        let tower = tower.clone();
        site.house
            .start(limits(), move || Bell::new(tower.clone()))
            .await
            .unwrap_err()
    };
    assert_eq!(again.kind, Kind::Invalid);
    struct Stranger;
    impl crate::Concern for Stranger {
        const NAME: &'static str = "stranger";
        fn routes() -> crate::Routes<Self> {
            crate::Routes::new().on(|_, _: Ring, _| crate::Effect::answer(Ok(Rung { n: 0, built: 0 })))
        }
        fn observed(&self) -> serde_json::Value {
            serde_json::Value::Null
        }
    }
    let error = site.house.start(limits(), || Stranger).await.unwrap_err();
    assert!(
        error.to_string().contains("bell.ring is no verb of stranger"),
        "{error}"
    );
    assert!(error.is_permanent());
}

#[test]
fn the_default_budget_is_what_the_documents_say() {
    let Restart {
        deaths_max, window_s, ..
    } = Restart::default();
    assert_eq!((deaths_max, window_s), (5, 60));
}

/// A reload: other limits, and a successor that the factory builds; what is under way ends first, and the queue stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_concern_ends_what_it_has_and_lives_by_the_new_limits() {
    let (site, tower) = Site::with_bell(limits()).await;
    let slow = tokio::spawn({
        let bus = site.bus.clone();
        async move {
            let ring = Ring { n: 1, how: How::Slowly };
            bus::call(&*bus, &host(), &ring, Headers::default()).await
        }
    });
    eventually(|| async { site.bell().await.observed["built"] == 1 && site.waiting() == 0 }).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let fewer = Limits {
        mailbox_messages_max: 3,
        ..limits()
    };
    site.house.renew(fewer, Duration::from_secs(1)).await;
    let next = site.ring(2, How::Well).await.unwrap();
    assert_eq!(next.built, 2, "a successor answers");
    assert_eq!(slow.await.unwrap().unwrap().built, 1, "what was under way ended first");
    let bell = site.bell().await;
    assert_eq!((bell.mailbox_messages_max, bell.state), (3, ConcernState::Up));
    assert!(bell.deaths.is_empty(), "{:?}", bell.deaths);
    // a factory that panics then is a death like another
    tower.bad_builds.store(1, Ordering::SeqCst);
    site.house.renew(limits(), Duration::from_secs(1)).await;
    eventually(|| async { site.bell().await.state == ConcernState::Up }).await;
    assert_eq!(site.ring(3, How::Well).await.unwrap().n, 3);
}
