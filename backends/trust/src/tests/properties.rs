//! Whatever is changed, wherever: it isn't heard. Whatever was heard isn't heard again, in bounded memory.

use std::collections::HashSet;

use proptest::prelude::*;
use wire::{Headers, Subject};

use super::{Turned, host, identity, row, told};
use crate::core::book::Book;
use crate::core::refusal::Refusal;
use crate::core::stamp::{Domain, Stamp};
use crate::core::window::{Bounds, Window};
use crate::fleet::Fleet;

fn fleet(now: &Turned) -> Fleet {
    let book = Book::of([told(row("h1", 1, &identity(1)))]);
    Fleet::new(Some((host("h1"), identity(1))), book, Bounds::default(), now.now())
}

fn subject(text: &str) -> Subject {
    Subject::parse(text).unwrap()
}

proptest! {
    /// One bit of the body, the subject, a header that counts, or the signature's text.
    #[test]
    fn a_request_of_which_any_bit_is_changed_is_refused(
        body in proptest::collection::vec(any::<u8>(), 1..200),
        request_id in proptest::option::of("[a-z0-9]{1,12}"),
        place in any::<proptest::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let now = Turned::at(1_000_000);
        let (signs, hears) = (fleet(&now), fleet(&now));
        let to = subject("windlass.v1.host.h1.snapshot.restore");
        let mut headers = Headers { request_id, ..Headers::default() };
        signs.sign_request(&to, &mut headers, &body).unwrap();
        let mut changed = body.clone();
        let n = place.index(body.len());
        changed[n] ^= 1 << bit;
        prop_assert_eq!(hears.hear_request(&to, &headers, &changed).unwrap_err(), Refusal::Altered);
        let other = subject("windlass.v1.host.h2.snapshot.restore");
        prop_assert_eq!(hears.hear_request(&other, &headers, &body).unwrap_err(), Refusal::Altered);
        let without = Headers { request_id: None, ..headers.clone() };
        let with = Headers { request_id: Some("another".into()), ..headers.clone() };
        if headers.request_id.is_some() {
            prop_assert_eq!(hears.hear_request(&to, &without, &body).unwrap_err(), Refusal::Altered);
        }
        prop_assert_eq!(hears.hear_request(&to, &with, &body).unwrap_err(), Refusal::Altered);
        let text = headers.authority.clone().unwrap();
        let mut bytes = text.clone().into_bytes();
        let n = place.index(bytes.len());
        bytes[n] ^= 1 << bit;
        if let Ok(forged) = String::from_utf8(bytes) {
            let forged = Headers { authority: Some(forged), ..headers.clone() };
            prop_assert!(hears.hear_request(&to, &forged, &body).is_err());
        }
        // what changes on the way is not part of it, and the untouched one is heard: once
        let on_the_way = Headers { timeout_ms: Some(7), traceparent: Some("t".into()), ..headers };
        prop_assert!(hears.hear_request(&to, &on_the_way, &body).is_ok());
        prop_assert_eq!(hears.hear_request(&to, &on_the_way, &body).unwrap_err(), Refusal::Replayed);
    }

    /// Any bytes as a signature's text: an error, or the one text of a stamp.
    #[test]
    fn any_text_is_a_stamp_or_none(text in "[v1.:a-z0-9 ]{0,260}") {
        if let Ok(stamp) = text.parse::<Stamp>() {
            prop_assert_eq!(stamp.to_string(), text);
        }
    }

    /// Whatever comes in whatever order, with whatever clock: nothing is heard twice, and no more is remembered than may be.
    #[test]
    fn a_window_hears_nothing_twice(
        messages in proptest::collection::vec((0_u8..3, 0_u64..400, any::<u8>(), 0_u64..60), 1..400),
        per_sender_max in 1_usize..20,
        total_max in 1_usize..30,
    ) {
        let bounds = Bounds { transit_ms_max: 150, per_sender_max, total_max };
        let mut window = Window::new(bounds, 1_000);
        let (mut now, mut heard) = (1_000_u64, HashSet::new());
        for (who, offset, nonce, passes) in messages {
            now += passes;
            let (sender, time) = (host(&format!("h{who}")), (now + offset).saturating_sub(200));
            match window.hear(&sender, time, [nonce; 16], now) {
                Ok(()) => {
                    prop_assert!(heard.insert((who, time, nonce)), "heard twice");
                    prop_assert!(time >= 1_000 && time.abs_diff(now) <= 150);
                }
                Err(reason) => prop_assert!(matches!(reason, Refusal::Stale | Refusal::Replayed)),
            }
            prop_assert!(window.len() <= total_max + 3);
            prop_assert!(window.len() <= 3 * per_sender_max.max(1));
        }
    }
}

#[test]
fn time_is_bounded_to_both_sides_and_by_the_start() {
    let now = Turned::at(1_000_000);
    let signs = fleet(&now);
    let to = subject("windlass.v1.hosts.drain");
    let signed = || {
        let mut headers = Headers::default();
        signs.sign_request(&to, &mut headers, b"{}").unwrap();
        headers
    };
    let early = signed();
    now.advance(120_000);
    let hears = fleet(&now);
    assert_eq!(
        hears.hear_request(&to, &early, b"{}").unwrap_err(),
        Refusal::Stale,
        "signed for an earlier process"
    );
    let late = signed();
    now.advance(120_000);
    assert!(hears.hear_request(&to, &late, b"{}").is_ok(), "two minutes on the way");
    let later = signed();
    now.advance(120_001);
    assert_eq!(hears.hear_request(&to, &later, b"{}").unwrap_err(), Refusal::Stale);
    // a signer whose clock is ahead
    let ahead = Stamp::new(
        &identity(1),
        Domain::Request,
        &host("h1"),
        1_000_000 + 600_000,
        [1; 16],
        &[],
    );
    let headers = Headers {
        authority: Some(ahead.to_string()),
        ..Headers::default()
    };
    assert_eq!(hears.hear_request(&to, &headers, b"{}").unwrap_err(), Refusal::Stale);
}

#[test]
fn who_floods_has_less_time_and_others_have_not() {
    let bounds = Bounds {
        transit_ms_max: 1_000,
        per_sender_max: 4,
        total_max: 100,
    };
    let mut window = Window::new(bounds, 10_000);
    for n in 0..10_u8 {
        assert_eq!(
            window.hear(&host("loud"), 10_000 + u64::from(n), [n; 16], 10_010),
            Ok(())
        );
    }
    assert_eq!(window.len(), 4);
    assert_eq!(
        window.hear(&host("loud"), 10_003, [99; 16], 10_010),
        Err(Refusal::Stale),
        "below the floor"
    );
    assert_eq!(
        window.hear(&host("loud"), 10_009, [9; 16], 10_010),
        Err(Refusal::Replayed)
    );
    assert_eq!(window.hear(&host("quiet"), 10_003, [99; 16], 10_010), Ok(()));
    // what is out of time needs no memory
    assert_eq!(window.hear(&host("loud"), 12_000, [1; 16], 12_000), Ok(()));
    assert_eq!(window.len(), 2);
}

/// What the fuzz target does, on its own seeds with any byte changed: in each test run, not only in `make fuzz`.
#[test]
fn seeds_of_the_fuzz_target_and_their_neighbours() {
    let seeds = crate::seeds();
    assert_eq!(seeds.len(), 5);
    // `make fuzz` begins with these
    if let Some(corpus) = std::env::var_os("WINDLASS_FUZZ_CORPUS") {
        std::fs::create_dir_all(&corpus).unwrap();
        for (name, bytes) in &seeds {
            std::fs::write(std::path::Path::new(&corpus).join(name), bytes).unwrap();
        }
    }
    for (_, seed) in seeds {
        crate::hear_anything(&seed);
        for n in 0..seed.len() {
            for change in [1, 0x20, 0x80] {
                let mut bytes = seed.clone();
                bytes[n] ^= change;
                crate::hear_anything(&bytes);
            }
            crate::hear_anything(&seed[..n]);
        }
    }
}

#[test]
fn a_process_without_a_key_signs_nothing() {
    let fleet = Fleet::new(None, Book::default(), Bounds::default(), Turned::at(1).now());
    let mut headers = Headers::default();
    let to = subject("windlass.v1.hosts.drain");
    assert_eq!(fleet.sign_request(&to, &mut headers, b""), Err(Refusal::Unsigned));
    assert_eq!(fleet.hear_request(&to, &headers, b"").unwrap_err(), Refusal::Unsigned);
}
