//! The joiner's side. Each step can be repeated: who was killed in between gives the same command again.
//!
//! 1. The grant of the token is read, and its signature checked against the key that the token names: now it is known whom to trust.
//! 2. `identity.key` and then `fleet.json` are written, each durable before the next step.
//! 3. The joiner asks, and says again and again that it does; a member that may admit answers with a statement.
//! 4. The statement is checked against those whom the grant named. A member is who has one, so nothing is left to write.

use std::sync::Arc;
use std::time::Duration;

use state::State;
use tokio::time::Instant;

use crate::core::book::{Book, Entry, Signed};
use crate::core::keys::PublicKey;
use crate::core::refusal::Refusal;
use crate::core::token::{Grant, Join, Token, granted};
use crate::error::{Kind, TrustError};
use crate::grants::{encoded, member_key, token_key};
use crate::membership::{MEMBERS, below, blocking, join_key};
use crate::place::{Belonging, Place};

/// How long a joiner's asking stands, in milliseconds: who is killed and comes with another key waits so long.
const ASKS_MS: u64 = 15_000;
/// How often it asks again.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// How often it looks for the answer.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Joins the fleet by a token; returns as which epoch.
///
/// # Errors
/// `NotFound` for a token whose time is over; `Denied` for one that isn't what its granter signed, or was used by another;
/// `Conflict` for a place that belongs to another member; `Deadline` when nobody answers within `patience`.
pub async fn join(
    token: Token,
    place: Place,
    shared: Arc<dyn State>,
    patience: Duration,
) -> Result<Belonging, TrustError> {
    let member = token.member.clone();
    let before = blocking(&place, Place::belonging).await?;
    if let Some(before) = before.as_ref().filter(|before| before.me != member) {
        let message = format!(
            "this place belongs to a fleet as {}; {member} was not let in here",
            before.me
        );
        return Err(TrustError::new(Kind::Conflict, message).hint("use another state directory: --state-dir DIR"));
    }
    let grant = match grant_of(&token, &*shared).await {
        Ok(grant) => grant,
        // the grant went with its time, and this place had got in by then
        Err(e) if e.kind == Kind::NotFound => {
            return match before {
                Some(before) if stands(&before, &place, &*shared).await? => Ok(before),
                _ => Err(e),
            };
        }
        Err(e) => return Err(e),
    };
    let belonging = Belonging {
        me: member,
        epoch: grant.epoch,
        fleet: grant.fleet,
    };
    let (epoch, write) = (grant.epoch, belonging.clone());
    let identity = blocking(&place, move |place| {
        let identity = place.identity_of(epoch)?;
        place.belong(&write)?;
        Ok(identity)
    })
    .await?;
    let asked = Join::new(&token, &identity);
    let answered = tokio::time::timeout(patience, ask(&asked, &belonging, &*shared)).await;
    answered.unwrap_or_else(|_elapsed| {
        let message = format!("nobody let {} in within {} s", belonging.me, patience.as_secs());
        Err(TrustError::new(Kind::Deadline, message).hint(
            "does a daemon of a member that may admit run? windlass hosts members, there; then the same command again",
        ))
    })?;
    Ok(belonging)
}

async fn grant_of(token: &Token, shared: &dyn State) -> Result<Grant, TrustError> {
    let Some(entry) = shared.get(&token_key(&token.key.public())?).await? else {
        let message = format!(
            "the token for {} is over, or was never granted here; nothing was changed",
            token.member
        );
        return Err(
            TrustError::new(Kind::NotFound, message).hint("ask for another one: windlass hosts token, on a member")
        );
    };
    let bad = |reason: Refusal| {
        let message = format!(
            "the grant of the token for {}: {reason}; nothing was changed",
            token.member
        );
        TrustError::new(Kind::Denied, message)
            .hint("somebody changed it on the servers, or the token isn't of this fleet")
    };
    let signed: Signed = serde_json::from_slice(&entry.value).map_err(|_| bad(Refusal::Unreadable))?;
    let (grant, _stamp) = granted(&signed, &token.issuer).map_err(bad)?;
    match (&grant.token, &grant.member) == (&token.key.public(), &token.member) {
        true => Ok(grant),
        false => Err(bad(Refusal::Altered)),
    }
}

/// True when a statement says that this place is a member, with the key that it has.
async fn stands(belonging: &Belonging, place: &Place, shared: &dyn State) -> Result<bool, TrustError> {
    match blocking(place, Place::identity).await? {
        Some((identity, _)) => Ok(let_in(belonging, &identity.public(), shared)
            .await?
            .is_some_and(|ours| ours)),
        None => Ok(false),
    }
}

/// Whether the statement of this epoch that stands is about this key; none when there is none yet that members signed.
async fn let_in(belonging: &Belonging, key: &PublicKey, shared: &dyn State) -> Result<Option<bool>, TrustError> {
    let Some(entry) = shared.get(&member_key(&belonging.me)?).await? else {
        return Ok(None);
    };
    let Ok(signed) = serde_json::from_slice::<Signed>(&entry.value) else {
        return Ok(None);
    };
    let pinned = belonging.fleet.iter().cloned().map(|row| Entry {
        row,
        signed: None,
        confirms: Vec::new(),
    });
    let mut book = Book::of(pinned);
    if book.hear(&signed).is_err() {
        // let in by one that was let in after the grant
        let others = below(shared, MEMBERS).await?;
        for _ in 0..others.len().min(16) {
            for other in others
                .iter()
                .filter_map(|e| serde_json::from_slice::<Signed>(&e.value).ok())
            {
                let _later_or_never = book.hear(&other);
            }
        }
    }
    let standing = book.entry(&belonging.me).map(|entry| &entry.row);
    let standing = standing.filter(|row| row.epoch == belonging.epoch && !row.revoked);
    Ok(standing.map(|row| row.key == *key))
}

async fn ask(join: &Join, belonging: &Belonging, shared: &dyn State) -> Result<(), TrustError> {
    let (key, holder) = (join_key(join)?, encoded(join)?);
    let mut asked_at: Option<Instant> = None;
    loop {
        match let_in(belonging, &join.key, shared).await? {
            Some(true) => break,
            Some(false) => {
                let message = format!("the token for {} was used by another", belonging.me);
                return Err(TrustError::new(Kind::Denied, message).hint(
                    "if nobody of yours did that, the token was stolen: windlass hosts revoke, on a member, and a new token",
                ));
            }
            None => {}
        }
        if asked_at.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
            match shared.lease(&key, &holder, ASKS_MS).await {
                Ok(_) => asked_at = Some(Instant::now()),
                // another key asks by the same token; it gets in, or its asking is over soon
                Err(e) if e.kind == state::Kind::Conflict => tracing::debug!(error = %e, "somebody else asks"),
                Err(e) => return Err(e.into()),
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    // what asked has its answer
    let _ends_by_itself = shared.release(&key, &holder).await;
    Ok(())
}
