//! Tokens: made by whoever hands them over, granted by a member that may admit.

use state::{Key, LEASE_TTL_MS_MAX};
use wire::members::{HostToken, HostTokenGranted};
use wire::{HostId, Sender};
use zeroize::Zeroizing;

use crate::core::book::Signed;
use crate::core::keys::{Identity, KEY_BYTES, PublicKey};
use crate::core::refusal::Refusal;
use crate::core::stamp::Domain;
use crate::core::token::Grant;
use crate::error::{Kind, TrustError};
use crate::membership::Membership;

/// The longest that a token may be good for, in seconds: a day.
pub const TOKEN_S_MAX: u64 = LEASE_TTL_MS_MAX / 1_000;
/// Where grants stand.
const TOKENS: &str = "trust/tokens";
/// What a person may be.
const ROLES: [&str; 3] = ["viewer", "operator", "admin"];

/// A new token's key.
///
/// # Errors
/// `Unavailable` when the system gives no random bytes.
pub fn make_token() -> Result<Identity, TrustError> {
    let mut seed = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(seed.as_mut())
        .map_err(|e| TrustError::new(Kind::Unavailable, format!("the system gives no random bytes: {e}")))?;
    Ok(Identity::from_seed(&seed))
}

/// Where the grant of a token stands.
pub(crate) fn token_key(token: &PublicKey) -> state::Result<Key> {
    Key::new(format!("{TOKENS}/{token}"))
}

impl Membership {
    /// Grants a token, in this member's name.
    ///
    /// # Errors
    /// `Denied` when this member may not admit; `Invalid` for what can't be granted; `Conflict` when the member is there already.
    pub async fn grant(
        &self,
        request: &HostToken,
        rfc3339: impl Fn(u64) -> String,
    ) -> Result<HostTokenGranted, TrustError> {
        let me = self.may_admit("no token was granted")?;
        let token = checked(request)?;
        let (grant, now_ms) = {
            let book = self.fleet().book();
            let standing = book.entry(&request.member).map(|entry| entry.row.revoked);
            if standing == Some(false) && !request.replace {
                let message = format!("{} is a member already; no token was granted", request.member);
                return Err(TrustError::new(Kind::Conflict, message)
                    .hint("if it has lost its key: --replace; if somebody else has it: windlass hosts revoke"));
            }
            let now_ms = self.fleet().now_ms();
            let grant = Grant {
                token: token.clone(),
                member: request.member.clone(),
                epoch: book.next_epoch(&request.member),
                may_admit: request.may_admit,
                role: request.role.clone(),
                expires_ms: now_ms.saturating_add(request.valid_s * 1_000),
                fleet: book.entries().map(|entry| entry.row.clone()).collect(),
            };
            (grant, now_ms)
        };
        let text = serde_json::to_string(&grant)
            .map_err(|e| TrustError::new(Kind::Invalid, format!("a grant can't be encoded: {e}")))?;
        let signed = self.signed(Domain::Grant, text)?;
        let holder = encoded(&signed)?;
        let ttl_ms = grant.expires_ms.saturating_sub(now_ms);
        self.shared().lease(&token_key(&token)?, &holder, ttl_ms).await?;
        tracing::info!(member = %grant.member, epoch = grant.epoch, may_admit = grant.may_admit, "a token was granted");
        let issuer_key = self.fleet().key().map(|key| key.to_string()).unwrap_or_default();
        Ok(HostTokenGranted {
            member: grant.member,
            issuer: me,
            issuer_key,
            expires_at: rfc3339(grant.expires_ms),
        })
    }

    /// This member's name, when it may let others in and put them out.
    pub(crate) fn may_admit(&self, unchanged: &str) -> Result<Sender, TrustError> {
        let belongs = self.fleet().belongs();
        let book = self.fleet().book();
        match self.fleet().me() {
            Some(me) if belongs && book.may_admit(me) => Ok(me.clone()),
            _ => {
                let others = book.entries().filter(|e| e.row.may_admit && !e.row.revoked);
                let names: Vec<String> = others.map(|e| e.row.member.to_string()).collect();
                let message = format!(
                    "{} may not let others in or put them out; {unchanged}",
                    self.fleet().me().map_or("nobody".into(), ToString::to_string)
                );
                Err(TrustError::new(Kind::Denied, message).hint(format!("ask at one that may: {}", names.join(", "))))
            }
        }
    }

    /// Signs a text as this member.
    pub(crate) fn signed(&self, domain: Domain, text: String) -> Result<Signed, TrustError> {
        let stamp = self
            .fleet()
            .sign(domain, &[text.as_bytes()])
            .map_err(|reason: Refusal| {
                TrustError::new(Kind::Denied, format!("{reason}; nothing was changed")).hint(reason.hint())
            })?;
        let stamp = stamp.to_string();
        Ok(Signed { text, stamp })
    }
}

/// As it stands in the state.
pub(crate) fn encoded<T: serde::Serialize>(value: &T) -> Result<String, TrustError> {
    serde_json::to_string(value).map_err(|e| TrustError::new(Kind::Invalid, format!("can't be encoded: {e}")))
}

fn checked(request: &HostToken) -> Result<PublicKey, TrustError> {
    let invalid = |why: String| TrustError::new(Kind::Invalid, format!("{why}; no token was granted"));
    if !(1..=TOKEN_S_MAX).contains(&request.valid_s) {
        return Err(invalid(format!("a token is good for 1 to {TOKEN_S_MAX} seconds")));
    }
    match (&request.member, request.role.as_deref()) {
        (Sender::Host(_), Some(_)) => return Err(invalid("a host has no role".into())),
        (Sender::Host(_), None) => {}
        (Sender::Person(_), role) => {
            if request.may_admit {
                return Err(invalid("a person asks a host that may admit; only hosts do it".into()));
            }
            if !role.is_some_and(|role| ROLES.contains(&role)) {
                return Err(invalid(format!("a person has one of the roles {}", ROLES.join(", "))));
            }
        }
    }
    request
        .token_key
        .parse::<PublicKey>()
        .map_err(|e| invalid(e.to_string()))
}

/// The key of a member's statement.
pub(crate) fn member_key(member: &Sender) -> state::Result<Key> {
    Key::new(format!(
        "{}/{}/{}",
        crate::membership::MEMBERS,
        member.kind(),
        member.name()
    ))
}

/// Which member a host id names.
pub(crate) fn host(host: &HostId) -> Sender {
    Sender::Host(host.clone())
}
