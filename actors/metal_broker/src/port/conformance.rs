//! What every provider has to pass: adapters and the fake alike.

use super::Provider;
use crate::Kind;
use crate::core::machine::{flaw, sound};

/// What a provider is to be held against.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Every machine that it has, and no other.
    pub machines: &'a [&'a str],
    /// It knows itself who has a machine: a second cluster is refused.
    pub reserves: bool,
    /// What must not be printed.
    pub secret: &'a str,
}

/// Runs the whole suite. Ends with every machine given back.
pub async fn all(provider: &dyn Provider, expected: Expected<'_>) {
    stock_is_whole_and_sound(provider, expected).await;
    a_look_shows_what_the_stock_shows(provider, expected).await;
    what_is_not_there_is_not_found(provider).await;
    taking_twice_is_taking_once(provider, expected).await;
    no_secret_is_printed(provider, expected);
}

async fn stock_is_whole_and_sound(provider: &dyn Provider, expected: Expected<'_>) {
    let stock = provider.stock().await.expect("a stock");
    let (machines, troubles) = sound(stock.machines);
    assert!(troubles.is_empty(), "{troubles:?}");
    let ids: Vec<&str> = machines.iter().map(|m| m.id.as_str()).collect();
    let mut wanted = expected.machines.to_vec();
    wanted.sort_unstable();
    assert_eq!(ids, wanted, "machines of {}", provider.name());
    assert!(stock.unread.is_empty(), "{:?}", stock.unread);
    assert!(crate::core::name::is_name(provider.tenant()) && crate::core::name::is_name(provider.name()));
    assert!(!provider.kind().is_empty());
}

async fn a_look_shows_what_the_stock_shows(provider: &dyn Provider, expected: Expected<'_>) {
    let stock = provider.stock().await.expect("a stock");
    for id in expected.machines {
        let mut seen = provider.look(id).await.expect(id);
        assert_eq!(flaw(&seen), None, "{id}");
        let mut listed = stock
            .machines
            .iter()
            .find(|m| m.id == *id)
            .expect("it is listed")
            .clone();
        seen.features.sort_unstable();
        listed.features.sort_unstable();
        assert_eq!(seen, listed, "{id}");
    }
}

async fn what_is_not_there_is_not_found(provider: &dyn Provider) {
    for absent in ["no-such-machine", "x"] {
        let looked = provider.look(absent).await.expect_err("it isn't there");
        assert_eq!(looked.kind, Kind::NotFound, "{looked}");
        let taken = provider.take(absent, "C1").await.expect_err("it isn't there");
        assert_eq!(taken.kind, Kind::NotFound, "{taken}");
        provider.give_back(absent, "C1").await.expect("nothing to give back");
    }
}

async fn taking_twice_is_taking_once(provider: &dyn Provider, expected: Expected<'_>) {
    let id = expected.machines[0];
    provider.give_back(id, "C1").await.expect("nobody has it");
    let taken = provider.take(id, "C1").await.expect("it is free");
    assert_eq!(taken.id, id);
    provider.take(id, "C1").await.expect("again is no error");
    if expected.reserves {
        let refused = provider.take(id, "C2").await.expect_err("C1 has it");
        assert_eq!(refused.kind, Kind::Conflict, "{refused}");
        provider.give_back(id, "C2").await.expect("not C2's: nothing happens");
        let refused = provider.take(id, "C2").await.expect_err("C1 still has it");
        assert_eq!(refused.kind, Kind::Conflict, "{refused}");
    }
    provider.give_back(id, "C1").await.expect("given back");
    provider.give_back(id, "C1").await.expect("again is no error");
    provider.take(id, "C2").await.expect("it is free again");
    provider.give_back(id, "C2").await.expect("given back");
}

fn no_secret_is_printed(provider: &dyn Provider, expected: Expected<'_>) {
    if !expected.secret.is_empty() {
        let printed = format!("{provider:?}");
        assert!(!printed.contains(expected.secret), "{printed}");
    }
}
