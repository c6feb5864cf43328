//! Follows who belongs to the fleet.
//!
//! ```text
//! trust/fleet                   the first member's word on itself; made once, by compare-and-set
//! trust/members/<kind>/<name>   the latest statement about a member
//! trust/tokens/<token>          a grant, gone with its time
//! trust/joins/<token>           a joiner asks; a member that may admit answers with a statement
//! ```
//!
//! What a host has taken into its book it keeps in its own state, and so it can't be made to forget: a statement that somebody
//! removes or replaces by an older one is passed over, told, and written again. Every host decides for itself; the state that they
//! share only carries statements to them.

mod admitting;
mod founding;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use state::{Change, Key, Prefix, State};
use tokio::sync::Semaphore;
use wire::HostId;
use wire::members::{HostMembership, HostRevoked, MemberInfo};

use crate::core::book::{Book, Entry, Row, Signed, Statement, Taken};
use crate::core::refusal::Refusal;
use crate::core::stamp::Domain;
use crate::core::window::Bounds;
use crate::error::{Kind, TrustError};
use crate::fleet::{Fleet, FleetNow};
use crate::grants::{encoded, host as host_member, member_key};
use crate::place::Place;
use founding::{first_key, found, kept, not_a_member};

/// Where the latest statements stand.
pub(crate) const MEMBERS: &str = "trust/members";
/// Everything about membership.
pub(crate) const ROOT: &str = "trust";
/// Where a host keeps the entries of its book.
const OWN: &str = "members";
/// Statements whose signer isn't known yet; more are passed over, and come again with the next start.
const PENDING_MAX: usize = 10_000;
/// After a watch that failed it is begun again after this long.
const WATCH_AGAIN: Duration = Duration::from_millis(500);
/// Joiners that are looked at at once.
const JOINS_AT_ONCE_MAX: usize = 64;

/// The membership of one host; clones are the same.
#[derive(Clone, Debug)]
pub struct Membership(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fleet: Fleet,
    shared: Arc<dyn State>,
    own: Arc<dyn State>,
    /// Statements whose signer isn't known yet.
    pending: Mutex<BTreeMap<Key, Signed>>,
    joins: Arc<Semaphore>,
}

fn own_key(member: &wire::Sender) -> state::Result<Key> {
    Key::new(format!("{OWN}/{}/{}", member.kind(), member.name()))
}

pub use admitting::JOINS;
pub(crate) use admitting::join_key;
pub(crate) use founding::{below, blocking};

impl Membership {
    /// What this host is among the members, from what its place and its own state keep and what stands in the state that hosts
    /// share. The first host of all founds the fleet; any other has joined before.
    ///
    /// # Errors
    /// `Denied` for a host that isn't a member, or was put out; `Conflict` for a place that belongs to another host; what the disk
    /// and the states say.
    pub async fn open(
        place: Place,
        host: &HostId,
        shared: Arc<dyn State>,
        own: Arc<dyn State>,
        now_ms: FleetNow,
    ) -> Result<Self, TrustError> {
        let me = host_member(host);
        let known = blocking(&place, |place| Ok((place.belonging()?, place.identity()?))).await?;
        let mut book = Book::of(kept(&*own).await?);
        let (identity, epoch) = match known {
            (Some(belonging), Some((identity, _))) => {
                if belonging.me != me {
                    let message = format!(
                        "this place belongs to a fleet as {}, and its id is '{host}'",
                        belonging.me
                    );
                    return Err(TrustError::new(Kind::Conflict, message)
                        .hint("set host_id back, or give this host a state directory of its own"));
                }
                for row in belonging.fleet {
                    book.pin(told(row));
                }
                (identity, belonging.epoch)
            }
            (Some(_), None) => return Err(not_a_member(host, "its key is gone")),
            (None, _) => (found(&place, host, (&*shared, &*own), &mut book).await?, 1),
        };
        tracing::debug!(%me, epoch, "belongs to a fleet");
        let fleet = Fleet::new(Some((me, identity)), book, Bounds::default(), now_ms);
        let membership = Self(Arc::new(Inner {
            fleet,
            shared,
            own,
            pending: Mutex::default(),
            joins: Arc::new(Semaphore::new(JOINS_AT_ONCE_MAX)),
        }));
        membership.look().await?;
        membership.is_in(host)?;
        Ok(membership)
    }

    /// As [`Membership::open`] for a member, for simulations: without a place on a disk. `pinned` is what its place would say of the
    /// others.
    ///
    /// # Errors
    /// What the states say.
    #[cfg(any(test, feature = "testing"))]
    pub async fn over(
        me: (wire::Sender, crate::Identity),
        pinned: Vec<Row>,
        shared: Arc<dyn State>,
        own: Arc<dyn State>,
        now_ms: FleetNow,
    ) -> Result<Self, TrustError> {
        let mut book = Book::of(kept(&*own).await?);
        pinned.into_iter().for_each(|row| book.pin(told(row)));
        let membership = Self(Arc::new(Inner {
            fleet: Fleet::new(Some(me), book, Bounds::default(), now_ms),
            shared,
            own,
            pending: Mutex::default(),
            joins: Arc::new(Semaphore::new(JOINS_AT_ONCE_MAX)),
        }));
        membership.look().await?;
        Ok(membership)
    }

    /// Follows the others' statements and joiners, as long as the process lives.
    pub fn follow(&self) {
        let membership = self.clone();
        tokio::spawn(async move {
            let mut after = 0;
            loop {
                membership.follow_from(&mut after).await;
                tokio::time::sleep(WATCH_AGAIN).await;
            }
        });
    }

    /// The members, and this process among them.
    pub fn fleet(&self) -> &Fleet {
        &self.0.fleet
    }
    pub(crate) fn shared(&self) -> &Arc<dyn State> {
        &self.0.shared
    }
    fn pending(&self) -> MutexGuard<'_, BTreeMap<Key, Signed>> {
        // nothing panics under this lock
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who belongs to the fleet, as this host knows it.
    pub fn members(&self) -> HostMembership {
        let book = self.fleet().book();
        let info = |entry: &Entry| MemberInfo {
            member: entry.row.member.clone(),
            epoch: entry.row.epoch,
            revoked: entry.row.revoked,
            may_admit: entry.row.may_admit && !entry.row.revoked,
            role: entry.row.role.clone(),
            key: entry.row.key.to_string(),
            by: entry.by(),
        };
        HostMembership {
            members: book.entries().map(info).collect(),
        }
    }

    /// Puts a member out; durable when it is answered, and heard by every host as soon as the servers tell them.
    ///
    /// # Errors
    /// `Denied` when this member may not; `NotFound`; `Conflict` when it is out already, when somebody else changed it, or when
    /// nobody who may admit would be left.
    pub async fn revoke(&self, member: &wire::Sender) -> Result<HostRevoked, TrustError> {
        self.may_admit("nobody was put out")?;
        let statement = {
            let book = self.fleet().book();
            let Some(entry) = book.entry(member) else {
                let message = format!("{member} is no member; nothing was changed");
                return Err(TrustError::new(Kind::NotFound, message).hint("windlass hosts members"));
            };
            if entry.row.revoked {
                let message = format!("{member} was put out before; nothing was changed");
                return Err(TrustError::new(Kind::Conflict, message));
            }
            let others = book
                .entries()
                .filter(|e| e.row.may_admit && !e.row.revoked && e.row.member != *member);
            if entry.row.may_admit && others.count() == 0 {
                let message = format!("{member} is the only one that may let others in; nothing was changed");
                return Err(TrustError::new(Kind::Conflict, message)
                    .hint("let another one in first that may: windlass hosts token HOST --may-admit"));
            }
            Statement {
                row: Row {
                    epoch: book.next_epoch(member),
                    revoked: true,
                    ..entry.row.clone()
                },
                confirms: book.signed_by(member),
            }
        };
        let admitted = self.members().members.into_iter();
        let admitted = admitted.filter(|m| m.by.as_ref() == Some(member) && m.member != *member && !m.revoked);
        let admitted = admitted.map(|m| m.member).collect();
        self.state_that(&statement).await?;
        tracing::warn!(%member, epoch = statement.row.epoch, "put out of the fleet");
        Ok(HostRevoked {
            member: member.clone(),
            admitted,
        })
    }

    /// Signs a statement, writes it where nobody was quicker, and takes it into the book.
    pub(crate) async fn state_that(&self, statement: &Statement) -> Result<(), TrustError> {
        let text = serde_json::to_string(statement)
            .map_err(|e| TrustError::new(Kind::Invalid, format!("a statement can't be encoded: {e}")))?;
        let signed = self.signed(Domain::Statement, text)?;
        let key = member_key(&statement.row.member)?;
        let value = Bytes::from(encoded(&signed)?);
        match self.shared().get(&key).await? {
            None => self.shared().create(&key, value).await?,
            Some(entry) => self.shared().update(&key, value, entry.revision).await?,
        };
        self.heard(&key, &signed).await;
        Ok(())
    }

    /// What stands in the state now; and what should stand there and doesn't is written.
    async fn look(&self) -> Result<(), TrustError> {
        let mut found = below(&*self.0.shared, MEMBERS).await?;
        found.sort_by_key(|entry| entry.revision);
        for entry in &found {
            self.heard_value(&entry.key, &entry.value).await;
        }
        // what stands there as it should needs no second look, one by one
        let standing: BTreeMap<Key, Bytes> = found.into_iter().map(|entry| (entry.key, entry.value)).collect();
        let ours: Vec<Entry> = self.fleet().book().entries().cloned().collect();
        for entry in ours {
            let Some(signed) = &entry.signed else { continue };
            let (key, value) = (member_key(&entry.row.member)?, Bytes::from(encoded(signed)?));
            if standing.get(&key) != Some(&value) {
                self.put_back(&entry).await;
            }
        }
        // that there is a fleet stays said, also after the servers lost their store
        let mine = self
            .fleet()
            .me()
            .and_then(|me| self.fleet().book().entry(me)?.signed.clone());
        if let Some(signed) = mine {
            let _stands_there = self.0.shared.create(&first_key()?, encoded(&signed)?.into()).await;
        }
        Ok(())
    }

    /// This host is a member, with the key that it has.
    fn is_in(&self, host: &HostId) -> Result<(), TrustError> {
        let (me, key) = (host_member(host), self.fleet().key());
        let book = self.fleet().book();
        match book.key(&me) {
            Ok(known) if Some(known) == key.as_ref() => Ok(()),
            Ok(_) => Err(not_a_member(host, "another key was let in under its id")),
            Err(Refusal::Revoked) => Err(not_a_member(host, "it was put out")),
            Err(_) => Err(not_a_member(host, "nobody has let it in yet")),
        }
    }

    async fn follow_from(&self, after: &mut u64) {
        let Ok(root) = Key::new(ROOT) else { return };
        let mut changes = match self.0.shared.watch(&Prefix::below(&root), *after).await {
            Ok(changes) => changes,
            Err(e) => return tracing::warn!(error = %e, "the members can't be watched now; trying again"),
        };
        while let Some(change) = changes.next().await {
            match change {
                Ok(change) => {
                    *after = change.revision();
                    self.take_in(change).await;
                }
                Err(e) => {
                    if matches!(e.kind, state::Kind::Compacted | state::Kind::Corrupt) {
                        *after = 0;
                        // a store that was lost has none of it
                        let _tried_again_with_the_watch = self.look().await;
                    }
                    return tracing::debug!(error = %e, "the watch of the members ended; beginning again");
                }
            }
        }
    }

    async fn take_in(&self, change: Change) {
        match change {
            Change::Put(entry) if entry.key.as_str().starts_with(MEMBERS) => {
                self.heard_value(&entry.key, &entry.value).await;
            }
            Change::Put(entry) if admitting::is_join(&entry.key) => self.joiner(entry),
            Change::Deleted { key, .. } if key.as_str().starts_with(MEMBERS) => {
                self.fleet().refuse(&format!("key {key}"), None, Refusal::Unsigned);
                tracing::error!(%key, "the statement about a member was removed by somebody; it counts on, and is written again");
                self.put_back_soon(&key);
            }
            _ => {}
        }
    }

    async fn heard_value(&self, key: &Key, value: &[u8]) {
        match serde_json::from_slice::<Signed>(value) {
            Ok(signed) => self.heard(key, &signed).await,
            Err(_) => self.passed_over(key, None, Refusal::Unreadable),
        }
    }

    /// Hears a statement, and whatever waited for it.
    async fn heard(&self, key: &Key, signed: &Signed) {
        if !self.heard_one(key, signed).await {
            return;
        }
        // whose signer wasn't known may have one now
        loop {
            let waiting: Vec<(Key, Signed)> = self.pending().iter().map(|(k, s)| (k.clone(), s.clone())).collect();
            let mut more = false;
            for (key, signed) in waiting {
                self.pending().remove(&key);
                more |= self.heard_one(&key, &signed).await;
            }
            if !more {
                return;
            }
        }
    }

    /// True when the book knows more now.
    async fn heard_one(&self, key: &Key, signed: &Signed) -> bool {
        let named = signed.read().ok().map(|(statement, _)| statement.row.member);
        let Some(member) = named.filter(|member| member_key(member).is_ok_and(|of_it| of_it == *key)) else {
            self.passed_over(key, Some(signed), Refusal::Altered);
            return false;
        };
        let before = self.fleet().book().entry(&member).cloned();
        let taken = self.fleet().book_mut().hear(signed);
        let has_room = self.pending().len() < PENDING_MAX;
        match taken {
            Ok(Taken::New) => tracing::info!(%member, "a statement about a member was taken in"),
            Ok(Taken::Known) => {}
            Ok(Taken::Older) => self.passed_over(key, Some(signed), Refusal::Replayed),
            Ok(Taken::Contradicts) => {
                self.fleet()
                    .refuse(&format!("key {key}"), Some(&signed.stamp), Refusal::Altered);
                tracing::error!(%member, "two statements of one epoch contradict each other; the one that came first counts");
            }
            Err(Refusal::Unknown) if has_room => {
                self.pending().insert(key.clone(), signed.clone());
            }
            Err(reason) => self.passed_over(key, Some(signed), reason),
        }
        let after = self.fleet().book().entry(&member).cloned();
        if after == before {
            return false;
        }
        if let Some(entry) = after {
            self.keep(&entry).await;
        }
        self.look_at_myself();
        true
    }

    fn passed_over(&self, key: &Key, signed: Option<&Signed>, reason: Refusal) {
        let stamp = signed.map(|signed| signed.stamp.as_str());
        self.fleet().refuse(&format!("key {key}"), stamp, reason);
        tracing::error!(%key, reason = reason.as_str(), "a statement about a member was passed over");
        self.put_back_soon(key);
    }

    fn look_at_myself(&self) {
        let (Some(me), key) = (self.fleet().me(), self.fleet().key()) else {
            return;
        };
        let is_out = match self.fleet().book().key(me) {
            Ok(known) => Some(known) != key.as_ref(),
            Err(reason) => reason == Refusal::Revoked,
        };
        if is_out {
            self.fleet().say_put_out();
        }
    }

    async fn keep(&self, entry: &Entry) {
        let kept = async {
            let value = Bytes::from(encoded(entry)?);
            self.0.own.put(&own_key(&entry.row.member)?, value).await?;
            Ok::<_, TrustError>(())
        };
        if let Err(e) = kept.await {
            tracing::error!(member = %entry.row.member, error = %e, "a member isn't remembered over a restart");
        }
    }

    /// Not at once: every host that remembers wants to.
    fn put_back_soon(&self, key: &Key) {
        let known = self.fleet().book();
        let entry = known
            .entries()
            .find(|e| member_key(&e.row.member).is_ok_and(|of_it| of_it == *key))
            .cloned();
        drop(known);
        if let Some(entry) = entry {
            let membership = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(
                    u64::from(getrandom::u32().unwrap_or_default()) % 1_000,
                ))
                .await;
                membership.put_back(&entry).await;
            });
        }
    }

    /// Writes what this host remembers where less than that stands.
    async fn put_back(&self, entry: &Entry) {
        let Some(signed) = &entry.signed else { return };
        let written = async {
            let key = member_key(&entry.row.member)?;
            let value = Bytes::from(encoded(signed)?);
            let Some(found) = self.0.shared.get(&key).await? else {
                self.0.shared.create(&key, value).await?;
                return Ok(());
            };
            let theirs: Option<Signed> = serde_json::from_slice(&found.value).ok();
            let is_less = match theirs.as_ref().map(Signed::read) {
                Some(Ok((statement, _))) if statement.row.member == entry.row.member => {
                    // one of the same epoch, or a newer one that isn't heard, is a person's business
                    statement.row.epoch < entry.row.epoch
                }
                _ => true,
            };
            if is_less {
                self.0.shared.update(&key, value, found.revision).await?;
            }
            Ok::<_, TrustError>(())
        };
        match written.await {
            Ok(()) => {}
            // somebody was quicker
            Err(e) if e.kind == Kind::Conflict => {}
            Err(e) => tracing::warn!(member = %entry.row.member, error = %e, "a statement wasn't written again"),
        }
    }
}

fn told(row: Row) -> Entry {
    Entry {
        row,
        signed: None,
        confirms: Vec::new(),
    }
}
