//! A joiner asks; a member that may admit looks whether its token is good, and says that it is a member now.

use std::time::Duration;

use state::Key;

use super::Membership;
use crate::core::book::{Signed, Statement};
use crate::core::refusal::Refusal;
use crate::core::stamp::Stamp;
use crate::core::token::{Grant, Join, granted};
use crate::error::{Kind, TrustError};
use crate::grants::token_key;

/// Where joiners ask.
/// Where whoever wants to be let in says so.
pub const JOINS: &str = "trust/joins";
/// Whoever granted the token comes first; others wait this long, in milliseconds, and up to twice as long.
const OTHERS_AFTER_MS: u64 = 1_000;

/// Where the holder of this token asks.
pub(crate) fn join_key(join: &Join) -> state::Result<Key> {
    Key::new(format!("{JOINS}/{}", join.token))
}

pub(super) fn is_join(key: &Key) -> bool {
    key.as_str().starts_with(JOINS)
}

impl Membership {
    /// Looks at a joiner, beside whatever else there is to do. One for whom there is no room asks again.
    pub(super) fn joiner(&self, entry: state::Entry) {
        let Ok(room) = self.0.joins.clone().try_acquire_owned() else {
            return;
        };
        let membership = self.clone();
        tokio::spawn(async move {
            if let Err(e) = membership.admit(&entry).await {
                tracing::warn!(key = %entry.key, error = %e, "a joiner was not let in");
            }
            drop(room);
        });
    }

    async fn admit(&self, entry: &state::Entry) -> Result<(), TrustError> {
        let Some(me) = self
            .fleet()
            .me()
            .filter(|me| self.fleet().belongs() && self.fleet().book().may_admit(me))
        else {
            return Ok(());
        };
        let refused = |reason: Refusal| {
            self.fleet().refuse(&format!("key {}", entry.key), None, reason);
            TrustError::new(Kind::Denied, format!("{reason}; nobody was let in"))
        };
        let join: Join = serde_json::from_slice(&entry.value).map_err(|_| refused(Refusal::Unreadable))?;
        join.check().map_err(refused)?;
        let (grant, stamp) = self.grant_of(&join, &refused).await?;
        let row = join.row(&grant, self.fleet().now_ms()).map_err(refused)?;
        if stamp.sender != *me {
            let later = u64::from(getrandom::u32().unwrap_or_default()) % OTHERS_AFTER_MS;
            tokio::time::sleep(Duration::from_millis(OTHERS_AFTER_MS + later)).await;
        }
        let known = self.fleet().book().entry(&row.member).map(|entry| entry.row.clone());
        if known.as_ref() == Some(&row) {
            return Ok(());
        }
        // one statement of each epoch: a token is used once
        if known.map_or(1, |known| known.epoch.saturating_add(1)) != row.epoch {
            return Err(refused(Refusal::Replayed));
        }
        let (member, epoch) = (row.member.clone(), row.epoch);
        let statement = Statement {
            row,
            confirms: Vec::new(),
        };
        match self.state_that(&statement).await {
            Ok(()) => tracing::info!(%member, epoch, "let into the fleet"),
            // another member was quicker, or another joiner with the same token: the statement that stands says which
            Err(e) if e.kind == Kind::Conflict => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// What a member granted to whoever holds the token.
    async fn grant_of(
        &self,
        join: &Join,
        refused: impl Fn(Refusal) -> TrustError,
    ) -> Result<(Grant, Stamp), TrustError> {
        let Some(entry) = self.shared().get(&token_key(&join.token)?).await? else {
            return Err(refused(Refusal::Unknown));
        };
        let signed: Signed = serde_json::from_slice(&entry.value).map_err(|_| refused(Refusal::Unreadable))?;
        let stamp: Stamp = signed.stamp.parse().map_err(&refused)?;
        let key = {
            let book = self.fleet().book();
            if !book.may_admit(&stamp.sender) {
                return Err(refused(book.key(&stamp.sender).err().unwrap_or(Refusal::Unauthorised)));
            }
            book.key(&stamp.sender).map_err(&refused)?.clone()
        };
        granted(&signed, &key).map_err(refused)
    }
}
