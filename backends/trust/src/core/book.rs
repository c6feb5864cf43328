//! Who belongs to the fleet.
//!
//! A member is what members have signed of it: statements, each with the member's epoch, which counts its admissions and
//! exclusions. The book takes a statement when its epoch is newer than what is known, and when whoever signed it is a member
//! that may admit others, now, in this very book. So there is no authority above the members, no chain to be walked again and no
//! clock: what was taken stays, whatever becomes of its signer, and what comes later from a signer that was put out is refused.
//! Whoever puts a member out confirms what that member had signed until then, so that one who was away meanwhile, and hears both
//! in the wrong order, knows what counts.
//!
//! The first member vouches for itself ([`Book::pin`]); a joiner begins with the rows that whoever granted its token had signed.

use std::collections::BTreeMap;

use planted::Fault;
use serde::{Deserialize, Serialize};
use wire::Sender;

use super::keys::PublicKey;
use super::refusal::Refusal;
use super::stamp::{Domain, Stamp};

/// What a person may do, as an admission says it; what each word means is the business of who serves.
pub type Role = String;

/// What is known of one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Who.
    pub member: Sender,
    /// Counts admissions and exclusions, from 1.
    pub epoch: u64,
    /// Its key; of one that was put out, the last.
    pub key: PublicKey,
    /// It was put out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
    /// It may let others in and put them out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_admit: bool,
    /// What a person may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// What a member says of another, or the first of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// What is so from now on.
    #[serde(flatten)]
    pub row: Row,
    /// With an exclusion: the statements of the member that count on, by their [`Signed::digest`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confirms: Vec<String>,
}

/// A text and who signed it. The text is kept as it was signed, so nothing hangs on how JSON is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// JSON.
    pub text: String,
    /// A [`Stamp`].
    pub stamp: String,
}

impl Signed {
    /// Its name in [`Statement::confirms`].
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(self.text.as_bytes())
            .update(b"\0")
            .update(self.stamp.as_bytes());
        hasher.finalize().to_hex().to_string()
    }

    /// What it says, and who signed it, not checked yet.
    ///
    /// # Errors
    /// `Unreadable`.
    pub fn read(&self) -> Result<(Statement, Stamp), Refusal> {
        let statement: Statement = serde_json::from_str(&self.text).map_err(|_| Refusal::Unreadable)?;
        Ok((statement, self.stamp.parse()?))
    }
}

/// A member, and the statement that says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What is known.
    pub row: Row,
    /// Who signed it, and the text; none for what a joiner was told at its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Signed>,
    /// With an exclusion: as [`Statement::confirms`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confirms: Vec<String>,
}

impl Entry {
    /// Who signed it.
    pub fn by(&self) -> Option<Sender> {
        let stamp: Stamp = self.signed.as_ref()?.stamp.parse().ok()?;
        Some(stamp.sender)
    }
}

/// What came of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It is newer, and is so from now on.
    New,
    /// It says what is known.
    Known,
    /// It is older than what is known.
    Older,
    /// It contradicts what is known: another statement of the same epoch. The one that came first stays.
    Contradicts,
}

/// Who belongs to the fleet, as one host knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    entries: BTreeMap<Sender, Entry>,
}

impl Book {
    /// A book of entries that were taken before.
    pub fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        let entries = entries.into_iter().map(|e| (e.row.member.clone(), e));
        Self {
            entries: entries.collect(),
        }
    }

    /// Writes down what needs no signature of a member: the first member, and what a joiner is told by whom it trusts. What is
    /// known already stays.
    pub fn pin(&mut self, entry: Entry) {
        self.entries.entry(entry.row.member.clone()).or_insert(entry);
    }

    /// What is known of a member.
    pub fn entry(&self, member: &Sender) -> Option<&Entry> {
        self.entries.get(member)
    }

    /// Everybody, those that were put out too.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The key of a member that belongs to the fleet.
    ///
    /// # Errors
    /// `Unknown`, `Revoked`.
    pub fn key(&self, member: &Sender) -> Result<&PublicKey, Refusal> {
        match self.entries.get(member) {
            None => Err(Refusal::Unknown),
            Some(entry) if entry.row.revoked && !planted::is(Fault::ExclusionIgnored) => Err(Refusal::Revoked),
            Some(entry) => Ok(&entry.row.key),
        }
    }

    /// The epoch that the next statement about a member has.
    pub fn next_epoch(&self, member: &Sender) -> u64 {
        self.entries
            .get(member)
            .map_or(1, |entry| entry.row.epoch.saturating_add(1))
    }

    /// True for a member that may let others in and put them out.
    pub fn may_admit(&self, member: &Sender) -> bool {
        self.entries
            .get(member)
            .is_some_and(|entry| entry.row.may_admit && !entry.row.revoked)
    }

    /// The digests of all statements that count and that `member` signed.
    pub fn signed_by(&self, member: &Sender) -> Vec<String> {
        let theirs = self
            .entries
            .values()
            .filter(|entry| entry.by().as_ref() == Some(member));
        theirs
            .filter_map(|entry| Some(entry.signed.as_ref()?.digest()))
            .collect()
    }

    /// Hears a statement.
    ///
    /// # Errors
    /// `Unreadable`; `Unknown`, `Revoked` or `Unauthorised` of whoever signed it; `Altered`.
    pub fn hear(&mut self, signed: &Signed) -> Result<Taken, Refusal> {
        let (statement, stamp) = signed.read()?;
        let row = &statement.row;
        if let Some(known) = self.entries.get(&row.member) {
            if known.row.epoch > row.epoch {
                return Ok(Taken::Older);
            }
            if known.row.epoch == row.epoch {
                return self.heard_again(signed, &statement, &stamp);
            }
        }
        if row.epoch == 0 {
            return Err(Refusal::Unreadable);
        }
        self.check(signed, &stamp)?;
        let entry = Entry {
            row: statement.row,
            signed: Some(signed.clone()),
            confirms: statement.confirms,
        };
        self.entries.insert(entry.row.member.clone(), entry);
        Ok(Taken::New)
    }

    /// A statement of the epoch that is known. One that says what a joiner was told becomes the proof of it.
    fn heard_again(&mut self, signed: &Signed, statement: &Statement, stamp: &Stamp) -> Result<Taken, Refusal> {
        let Some(known) = self.entries.get(&statement.row.member) else {
            return Err(Refusal::Unknown);
        };
        if known.row != statement.row {
            return Ok(Taken::Contradicts);
        }
        match &known.signed {
            Some(ours) if ours == signed => return Ok(Taken::Known),
            Some(_) => return Ok(Taken::Contradicts),
            None => {}
        }
        let is_first = stamp.sender == statement.row.member && !statement.row.revoked;
        let good = match is_first {
            true => stamp.check(&statement.row.key, Domain::Statement, &[signed.text.as_bytes()]),
            false => self.check(signed, stamp),
        };
        if good.is_ok()
            && let Some(known) = self.entries.get_mut(&statement.row.member)
        {
            known.signed = Some(signed.clone());
            known.confirms.clone_from(&statement.confirms);
        }
        Ok(Taken::Known)
    }

    /// Whoever signed it may say so, and did.
    fn check(&self, signed: &Signed, stamp: &Stamp) -> Result<(), Refusal> {
        let signer = self.entries.get(&stamp.sender).ok_or(Refusal::Unknown)?;
        if signer.row.revoked && !signer.confirms.contains(&signed.digest()) {
            return Err(Refusal::Revoked);
        }
        // of one that was put out the last row has what it could do before
        if !signer.row.may_admit {
            return Err(Refusal::Unauthorised);
        }
        stamp.check(&signer.row.key, Domain::Statement, &[signed.text.as_bytes()])
    }
}
