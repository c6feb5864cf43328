//! Keys: Ed25519 (RFC 8032), by ed25519-dalek with its strict verification, which refuses keys and points of small order and
//! takes no signature in two forms.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::refusal::Refusal;

/// Bytes of a secret, and of a public key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// A secret key. It is wiped from memory when it is dropped, and never shown.
pub struct Identity(SigningKey);

impl Identity {
    /// The key of these 32 random bytes.
    pub fn from_seed(seed: &Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self(SigningKey::from_bytes(seed))
    }
    /// The bytes that it is made of.
    pub fn seed(&self) -> Zeroizing<[u8; KEY_BYTES]> {
        Zeroizing::new(self.0.to_bytes())
    }
    /// What everybody may know of it.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }
    /// Signs.
    pub fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(bytes).to_bytes()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.public()).finish()
    }
}

/// A public key, taken apart once: what is checked with it doesn't do that again. Its text is 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// The key of these bytes; none for bytes that are no point of the curve, or one of small order, under which anybody signs.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Option<Self> {
        let key = VerifyingKey::from_bytes(bytes).ok()?;
        (!key.is_weak()).then_some(Self(key))
    }
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        self.0.as_bytes()
    }
    /// Checks a signature.
    ///
    /// # Errors
    /// `Altered`.
    pub fn verify(&self, bytes: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> Result<(), Refusal> {
        let signature = Signature::from_bytes(signature);
        self.0.verify_strict(bytes, &signature).map_err(|_| Refusal::Altered)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no public key: wanted are 64 hexadecimal digits of a point of Curve25519 that isn't weak")]
pub struct NoKey;

impl FromStr for PublicKey {
    type Err = NoKey;
    fn from_str(text: &str) -> Result<Self, NoKey> {
        unhexed(text).and_then(|bytes| Self::from_bytes(&bytes)).ok_or(NoKey)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = NoKey;
    fn try_from(text: String) -> Result<Self, NoKey> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_string()
    }
}

/// Exactly so many bytes of lower-case hexadecimal digits: one text for each value.
pub(crate) fn unhexed<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let mut bytes = [0; N];
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}
