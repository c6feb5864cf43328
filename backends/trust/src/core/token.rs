//! How one who isn't a member becomes one.
//!
//! A token is a key that is used once. Whoever makes it keeps its secret half to hand it over, by a way of his own, and has a
//! member grant it: the grant, signed by that member, names whom the token lets in, as which epoch, until when, and who belongs to
//! the fleet. It stands in the state under the token's public half. The joiner finds it there, knows by the token whose signature
//! it has to have, and signs its own new key with the token's. Nothing that stands in the state or crosses the servers lets anybody
//! in. That a token is used once follows from the epoch: there is one statement of each.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use wire::Sender;
use zeroize::Zeroizing;

use super::book::{Role, Row};
use super::keys::{Identity, KEY_BYTES, PublicKey, SIGNATURE_BYTES, unhexed};
use super::refusal::Refusal;
use super::stamp::{Domain, Stamp, bytes_to_sign};

/// What a text begins with that is a token.
const BEGIN: &str = "windlass-token";

/// A token as it is handed over: a secret, until it is used.
pub struct Token {
    /// Whom it lets in.
    pub member: Sender,
    /// The key that is used once.
    pub key: Identity,
    /// Who granted it.
    pub issuer: PublicKey,
}

impl Token {
    /// The text to hand over. It is a secret.
    pub fn text(&self) -> Zeroizing<String> {
        let (kind, name) = (self.member.kind(), self.member.name());
        let secret = Zeroizing::new(hex::encode(&self.key.seed()[..]));
        Zeroizing::new(format!("{BEGIN}.{kind}.{name}.{}.{}", *secret, self.issuer))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("member", &self.member)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl FromStr for Token {
    type Err = Refusal;
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let fields: Vec<&str> = text.trim().split('.').collect();
        let [begin, kind, name, secret, issuer] = fields.as_slice() else {
            return Err(Refusal::Unreadable);
        };
        let parsed = || {
            let seed = Zeroizing::new(unhexed::<KEY_BYTES>(secret)?);
            Some(Self {
                member: Sender::of(kind, name).ok()?,
                key: Identity::from_seed(&seed),
                issuer: issuer.parse().ok()?,
            })
        };
        match (*begin == BEGIN, parsed()) {
            (true, Some(token)) => Ok(token),
            _ => Err(Refusal::Unreadable),
        }
    }
}

/// What a member grants to whoever has a token's secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The token.
    pub token: PublicKey,
    /// Whom it lets in.
    pub member: Sender,
    /// As which epoch of it.
    pub epoch: u64,
    /// The member may let others in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_admit: bool,
    /// What a person may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Until when, by the fleet's clock: Unix milliseconds.
    pub expires_ms: u64,
    /// Who belongs to the fleet, as its signer knows it.
    pub fleet: Vec<Row>,
}

/// What a joiner asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// By which token.
    pub token: PublicKey,
    /// Who.
    pub member: Sender,
    /// With this key.
    pub key: PublicKey,
    /// Signed with the token's key: its holder wants this key in.
    by_token: String,
    /// Signed with the new key: its holder wants in.
    by_key: String,
}

impl Join {
    /// Asks for `key` to be let in by `token`. The same two always ask with the same text.
    pub fn new(token: &Token, key: &Identity) -> Self {
        let bytes = Self::bytes(&token.key.public(), &token.member, &key.public());
        Self {
            token: token.key.public(),
            member: token.member.clone(),
            key: key.public(),
            by_token: hex::encode(token.key.sign(&bytes)),
            by_key: hex::encode(key.sign(&bytes)),
        }
    }

    fn bytes(token: &PublicKey, member: &Sender, key: &PublicKey) -> Vec<u8> {
        let parts: [&[u8]; 2] = [token.as_bytes(), key.as_bytes()];
        bytes_to_sign(Domain::Join, member, 0, &[0; 16], &parts)
    }

    /// Both halves are there.
    ///
    /// # Errors
    /// `Unreadable`, `Altered`.
    pub fn check(&self) -> Result<(), Refusal> {
        let bytes = Self::bytes(&self.token, &self.member, &self.key);
        for (key, signature) in [(&self.token, &self.by_token), (&self.key, &self.by_key)] {
            let signature: [u8; SIGNATURE_BYTES] = unhexed(signature).ok_or(Refusal::Unreadable)?;
            key.verify(&bytes, &signature)?;
        }
        Ok(())
    }

    /// What a grant and a join make of the joiner, at `now_ms` of the fleet's clock.
    ///
    /// # Errors
    /// `Altered` when one isn't the other's, `Stale` when the grant's time is over.
    pub fn row(&self, grant: &Grant, now_ms: u64) -> Result<Row, Refusal> {
        self.check()?;
        if (&self.token, &self.member) != (&grant.token, &grant.member) {
            return Err(Refusal::Altered);
        }
        if grant.expires_ms < now_ms {
            return Err(Refusal::Stale);
        }
        Ok(Row {
            member: self.member.clone(),
            epoch: grant.epoch,
            key: self.key.clone(),
            revoked: false,
            may_admit: grant.may_admit,
            role: grant.role.clone(),
        })
    }
}

/// A grant and who signed it, its signature checked against `issuer`.
///
/// # Errors
/// `Unreadable`, `Altered`.
pub fn granted(signed: &super::book::Signed, issuer: &PublicKey) -> Result<(Grant, Stamp), Refusal> {
    let stamp: Stamp = signed.stamp.parse()?;
    stamp.check(issuer, Domain::Grant, &[signed.text.as_bytes()])?;
    let grant = serde_json::from_str(&signed.text).map_err(|_| Refusal::Unreadable)?;
    Ok((grant, stamp))
}
