//! Who belongs to the fleet: by table, and whatever a thief writes.

use super::{host, identity, row, stated, told};
use crate::core::book::{Book, Row, Taken};
use crate::core::refusal::Refusal;

fn revoked(row: Row) -> Row {
    Row {
        epoch: row.epoch + 1,
        revoked: true,
        ..row
    }
}

fn plain(row: Row) -> Row {
    Row {
        may_admit: false,
        ..row
    }
}

#[test]
fn members_let_others_in_and_put_them_out() {
    let (a, b, c) = (identity(1), identity(2), identity(3));
    let mut book = Book::of([told(row("a", 1, &a))]);
    let lets_b_in = stated("a", &a, row("b", 1, &b), vec![]);
    assert_eq!(book.key(&host("b")), Err(Refusal::Unknown));
    assert_eq!(book.hear(&lets_b_in), Ok(Taken::New));
    assert_eq!(book.hear(&lets_b_in), Ok(Taken::Known));
    assert_eq!(book.key(&host("b")), Ok(&b.public()));
    // b lets c in, and is put out: c stays
    assert_eq!(
        book.hear(&stated("b", &b, plain(row("c", 1, &c)), vec![])),
        Ok(Taken::New)
    );
    let puts_b_out = stated("a", &a, revoked(row("b", 1, &b)), book.signed_by(&host("b")));
    assert_eq!(book.hear(&puts_b_out), Ok(Taken::New));
    assert_eq!(book.key(&host("b")), Err(Refusal::Revoked));
    assert_eq!(book.key(&host("c")), Ok(&c.public()));
    // and is let in anew, with another key
    let anew = row("b", 3, &identity(4));
    assert_eq!(book.hear(&stated("a", &a, anew, vec![])), Ok(Taken::New));
    assert_eq!(book.key(&host("b")), Ok(&identity(4).public()));
    assert_eq!(book.hear(&lets_b_in), Ok(Taken::Older), "what is over stays over");
    assert_eq!(book.hear(&puts_b_out), Ok(Taken::Older));
}

#[test]
fn a_thief_who_writes_to_the_state_gets_nowhere() {
    let (a, b, thief) = (identity(1), identity(2), identity(66));
    let mut book = Book::of([told(row("a", 1, &a)), told(plain(row("b", 1, &b)))]);
    let before = book.clone();
    let good = stated("a", &a, row("c", 1, &identity(3)), vec![]);
    let mut altered = good.clone();
    altered.text = altered.text.replace("\"c\"", "\"d\"").replace("host:c", "host:d");
    let table = [
        // of a stranger; in a member's name; in his own name
        (stated("x", &thief, row("x", 1, &thief), vec![]), Err(Refusal::Unknown)),
        (stated("a", &thief, row("x", 1, &thief), vec![]), Err(Refusal::Altered)),
        (stated("a", &thief, row("a", 2, &thief), vec![]), Err(Refusal::Altered)),
        // with a stolen key that may not admit: not even itself, nor others
        (stated("b", &b, row("x", 1, &thief), vec![]), Err(Refusal::Unauthorised)),
        (stated("b", &b, row("b", 2, &b), vec![]), Err(Refusal::Unauthorised)),
        (
            stated("b", &b, revoked(row("a", 1, &a)), vec![]),
            Err(Refusal::Unauthorised),
        ),
        // what he changed
        (altered, Err(Refusal::Altered)),
        // another key under the epoch that is known
        (stated("a", &thief, row("b", 1, &thief), vec![]), Ok(Taken::Contradicts)),
        (stated("a", &a, row("b", 0, &thief), vec![]), Ok(Taken::Older)),
    ];
    for (n, (signed, expected)) in table.into_iter().enumerate() {
        assert_eq!(book.hear(&signed), expected, "row {n}");
    }
    assert_eq!(book, before);
    assert_eq!(book.hear(&good), Ok(Taken::New));
}

/// One who was away hears that b was put out before what b had signed until then: what was confirmed counts, what b's thief made
/// up behind it doesn't.
#[test]
fn who_was_away_knows_what_counts() {
    let (a, b, c) = (identity(1), identity(2), identity(3));
    let begin = [told(row("a", 1, &a)), told(row("b", 1, &b))];
    let mut present = Book::of(begin.clone());
    let lets_c_in = stated("b", &b, row("c", 1, &c), vec![]);
    present.hear(&lets_c_in).unwrap();
    let puts_b_out = stated("a", &a, revoked(row("b", 1, &b)), present.signed_by(&host("b")));
    present.hear(&puts_b_out).unwrap();
    let forged = stated("b", &b, row("x", 1, &identity(66)), vec![]);
    assert_eq!(present.hear(&forged), Err(Refusal::Revoked));
    let mut away = Book::of(begin);
    assert_eq!(away.hear(&puts_b_out), Ok(Taken::New));
    assert_eq!(away.hear(&forged), Err(Refusal::Revoked));
    assert_eq!(away.hear(&lets_c_in), Ok(Taken::New));
    let standing = |book: &Book| book.entries().map(|e| e.row.clone()).collect::<Vec<_>>();
    assert_eq!(standing(&present), standing(&away));
}

/// A joiner begins with rows; the statements that it meets prove them, and others don't.
#[test]
fn what_a_joiner_was_told_gets_its_proof() {
    let (a, b) = (identity(1), identity(2));
    let founds = stated("a", &a, row("a", 1, &a), vec![]);
    let lets_b_in = stated("a", &a, row("b", 1, &b), vec![]);
    let mut book = Book::of([told(row("a", 1, &a)), told(row("b", 1, &b))]);
    let forged = stated("a", &identity(66), row("a", 1, &a), vec![]);
    assert_eq!(book.hear(&forged), Ok(Taken::Known));
    assert!(book.entry(&host("a")).unwrap().signed.is_none(), "it proves nothing");
    assert_eq!(book.hear(&founds), Ok(Taken::Known));
    assert_eq!(book.hear(&lets_b_in), Ok(Taken::Known));
    assert_eq!(book.entry(&host("a")).unwrap().signed.as_ref(), Some(&founds));
    assert_eq!(book.entry(&host("b")).unwrap().by(), Some(host("a")));
    let kept = serde_json::to_string(book.entry(&host("b")).unwrap()).unwrap();
    assert_eq!(
        &serde_json::from_str::<crate::core::book::Entry>(&kept).unwrap(),
        book.entry(&host("b")).unwrap()
    );
}
