//! What is signed, and the signature as it travels.
//!
//! ```text
//! bytes  = "windlass signed v1\0" domain "\0" sender time nonce count part…
//! sender = length and text ("host:h1");  time = Unix milliseconds by the fleet's clock;  nonce = 16 random bytes
//! part   = length and bytes;             lengths and counts are u32, time is u64, all little-endian
//! stamp  = "v1.host:h1.1764100000000.<32 hexadecimal digits of the nonce>.<128 of the signature>"
//! ```
//!
//! Every field has its length before it, so no two things have the same bytes; the domain keeps a signature of one kind of
//! thing from being taken for another's. Bodies go in by their BLAKE3 hash. Another layout is another version.

use std::fmt;
use std::str::FromStr;

use wire::Sender;

use super::keys::{Identity, PublicKey, SIGNATURE_BYTES, unhexed};
use super::refusal::Refusal;

const BEGIN: &[u8] = b"windlass signed v1\0";
const VERSION: &str = "v1";
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 16;

/// A number used once.
pub type Nonce = [u8; NONCE_BYTES];

/// What kind of thing is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Domain {
    /// A request: subject, headers, hash of the body.
    Request,
    /// A job: its id, what it is, which retry, hash of the request.
    Job,
    /// A value in the state: its key, hash of the value.
    Record,
    /// Who is a member: the statement's text.
    Statement,
    /// A token that was granted: the grant's text.
    Grant,
    /// A joiner's proof that he has a token and a key: the token's key, the member, the new key.
    Join,
}

impl Domain {
    fn name(self) -> &'static [u8] {
        match self {
            Domain::Request => b"request\0",
            Domain::Job => b"job\0",
            Domain::Record => b"record\0",
            Domain::Statement => b"statement\0",
            Domain::Grant => b"grant\0",
            Domain::Join => b"join\0",
        }
    }
}

/// Who signed something, when, and the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Who says so.
    pub sender: Sender,
    /// When, by the fleet's clock: Unix milliseconds.
    pub time_ms: u64,
    /// A number used once.
    pub nonce: Nonce,
    /// Of [`bytes_to_sign`].
    pub signature: [u8; SIGNATURE_BYTES],
}

/// The bytes that are signed.
pub fn bytes_to_sign(domain: Domain, sender: &Sender, time_ms: u64, nonce: &Nonce, parts: &[&[u8]]) -> Vec<u8> {
    let sender = sender.to_string();
    let length: usize = parts.iter().map(|part| part.len() + 4).sum();
    let mut bytes = Vec::with_capacity(BEGIN.len() + 64 + sender.len() + NONCE_BYTES + length);
    bytes.extend_from_slice(BEGIN);
    bytes.extend_from_slice(domain.name());
    put(&mut bytes, sender.as_bytes());
    bytes.extend_from_slice(&time_ms.to_le_bytes());
    bytes.extend_from_slice(nonce);
    bytes.extend_from_slice(&size(parts.len()));
    parts.iter().for_each(|part| put(&mut bytes, part));
    bytes
}

fn size(n: usize) -> [u8; 4] {
    // nothing that is signed is near 4 GiB: buses and states carry a MiB
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes()
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&size(part.len()));
    bytes.extend_from_slice(part);
}

impl Stamp {
    /// Signs.
    pub fn new(
        identity: &Identity,
        domain: Domain,
        sender: &Sender,
        time_ms: u64,
        nonce: Nonce,
        parts: &[&[u8]],
    ) -> Self {
        let signature = identity.sign(&bytes_to_sign(domain, sender, time_ms, &nonce, parts));
        Self {
            sender: sender.clone(),
            time_ms,
            nonce,
            signature,
        }
    }

    /// Checks that the holder of `key` signed this, of this domain, as it is.
    ///
    /// # Errors
    /// `Altered`.
    pub fn check(&self, key: &PublicKey, domain: Domain, parts: &[&[u8]]) -> Result<(), Refusal> {
        let bytes = bytes_to_sign(domain, &self.sender, self.time_ms, &self.nonce, parts);
        key.verify(&bytes, &self.signature)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nonce, signature) = (hex::encode(self.nonce), hex::encode(self.signature));
        write!(f, "{VERSION}.{}.{}.{nonce}.{signature}", self.sender, self.time_ms)
    }
}

impl FromStr for Stamp {
    type Err = Refusal;
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let mut fields = text.split('.');
        let mut next = || fields.next().ok_or(Refusal::Unreadable);
        let (version, sender, time, nonce, signature) = (next()?, next()?, next()?, next()?, next()?);
        let parsed = || {
            let time_ms: u64 = time.parse().ok()?;
            // one text for each value: no signs, no leading zeros
            (time_ms.to_string() == time).then_some(())?;
            Some(Self {
                sender: sender.parse().ok()?,
                time_ms,
                nonce: unhexed(nonce)?,
                signature: unhexed(signature)?,
            })
        };
        match (version == VERSION, next().is_err(), parsed()) {
            (true, true, Some(stamp)) => Ok(stamp),
            _ => Err(Refusal::Unreadable),
        }
    }
}
