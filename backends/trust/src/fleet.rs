//! What this process is among the members, and whom it hears: what the decorators of the ports share.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use planted::Fault;
use tokio::sync::watch;
use wire::{Code, ErrorBody, Headers, Role, Sender, Subject};

use crate::core::book::Book;
use crate::core::keys::{Identity, PublicKey};
use crate::core::refusal::Refusal;
use crate::core::stamp::{Domain, NONCE_BYTES, Nonce, Stamp};
use crate::core::window::{Bounds, Window};

/// The fleet's clock: Unix milliseconds, the servers' own, so that hosts whose clocks differ agree.
pub type FleetNow = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Something that was not heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What: a subject, a job, a key.
    pub what: String,
    /// Who it said that it came from.
    pub claimed: Option<String>,
    /// Why.
    pub reason: Refusal,
}

/// Hears of each refusal; must not wait.
pub type Tell = Box<dyn Fn(Refused) + Send + Sync>;

/// Who this process speaks as.
#[derive(Debug)]
struct Me {
    sender: Sender,
    identity: Identity,
}

struct Inner {
    me: Option<Me>,
    now_ms: FleetNow,
    book: RwLock<Book>,
    window: Mutex<Window>,
    counts: HashMap<Refusal, AtomicU64>,
    tell: Mutex<Option<Tell>>,
    /// This process was put out.
    out: watch::Sender<bool>,
}

/// The members as this process knows them, and itself among them; clones are the same.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("me", &self.0.me).finish_non_exhaustive()
    }
}

/// The reason that a message claims to come from somebody, for whoever tells of it.
fn claimed(text: &str) -> String {
    text.split('.').nth(1).unwrap_or_default().chars().take(80).collect()
}

impl Fleet {
    /// A process that speaks as `me`, or as nobody in particular: then it can read and not command.
    pub fn new(me: Option<(Sender, Identity)>, book: Book, bounds: Bounds, now_ms: FleetNow) -> Self {
        let window = Window::new(bounds, now_ms());
        Self(Arc::new(Inner {
            me: me.map(|(sender, identity)| Me { sender, identity }),
            now_ms,
            book: RwLock::new(book),
            window: Mutex::new(window),
            counts: Refusal::ALL
                .into_iter()
                .map(|reason| (reason, AtomicU64::new(0)))
                .collect(),
            tell: Mutex::default(),
            out: watch::Sender::new(false),
        }))
    }

    /// Who hears of refusals from now on.
    pub fn tell_to(&self, tell: Tell) {
        *self.0.tell.lock().unwrap_or_else(PoisonError::into_inner) = Some(tell);
    }
    /// Who this process speaks as.
    pub fn me(&self) -> Option<&Sender> {
        self.0.me.as_ref().map(|me| &me.sender)
    }
    /// The key of who this process speaks as.
    pub fn key(&self) -> Option<PublicKey> {
        self.0.me.as_ref().map(|me| me.identity.public())
    }
    /// The fleet's time.
    pub fn now_ms(&self) -> u64 {
        (self.0.now_ms)()
    }
    /// What was refused since the start, by reason.
    pub fn refused(&self) -> Vec<(Refusal, u64)> {
        let count = |reason| {
            self.0
                .counts
                .get(&reason)
                .map_or(0, |count| count.load(Ordering::Relaxed))
        };
        Refusal::ALL.into_iter().map(|reason| (reason, count(reason))).collect()
    }
    /// Returns when this process was put out of the fleet.
    pub async fn put_out(&self) {
        let mut out = self.0.out.subscribe();
        // the sender lives as long as this does
        let _never_closed = out.wait_for(|out| *out).await;
    }

    pub(crate) fn book(&self) -> RwLockReadGuard<'_, Book> {
        // nothing panics under this lock
        self.0.book.read().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn book_mut(&self) -> RwLockWriteGuard<'_, Book> {
        self.0.book.write().unwrap_or_else(PoisonError::into_inner)
    }
    fn window(&self) -> MutexGuard<'_, Window> {
        self.0.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn say_put_out(&self) {
        self.0.out.send_replace(true);
    }

    /// Counts a refusal, and tells of it.
    pub fn refuse(&self, what: &str, stamp: Option<&str>, reason: Refusal) {
        if let Some(count) = self.0.counts.get(&reason) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let claimed = stamp.map(claimed);
        tracing::debug!(what, claimed, reason = reason.as_str(), "refused");
        if let Some(tell) = &*self.0.tell.lock().unwrap_or_else(PoisonError::into_inner) {
            tell(Refused {
                what: what.to_owned(),
                claimed,
                reason,
            });
        }
    }

    /// True while the key that this process has is its member's: another one may have been let in under its name since.
    pub(crate) fn belongs(&self) -> bool {
        let key = self.key();
        self.me().is_some_and(|me| {
            self.book()
                .key(me)
                .ok()
                .is_some_and(|known| Some(known) == key.as_ref())
        })
    }

    /// Signs as this process.
    ///
    /// # Errors
    /// `Unsigned` for a process that speaks as nobody.
    pub fn sign(&self, domain: Domain, parts: &[&[u8]]) -> Result<Stamp, Refusal> {
        self.sign_after(0, domain, parts)
    }

    /// The same, and later than `after_ms`, whatever the clock says.
    ///
    /// # Errors
    /// As [`Fleet::sign`].
    pub fn sign_after(&self, after_ms: u64, domain: Domain, parts: &[&[u8]]) -> Result<Stamp, Refusal> {
        let me = self.0.me.as_ref().ok_or(Refusal::Unsigned)?;
        let mut nonce: Nonce = [0; NONCE_BYTES];
        // a system without random bytes gives no signature
        getrandom::fill(&mut nonce).map_err(|_| Refusal::Unsigned)?;
        Ok(Stamp::new(
            &me.identity,
            domain,
            &me.sender,
            self.now_ms().max(after_ms.saturating_add(1)),
            nonce,
            parts,
        ))
    }

    /// Checks a signature by a member, whenever it was made.
    ///
    /// # Errors
    /// `Unknown`, `Revoked`, `Altered`.
    pub fn check(&self, stamp: &Stamp, domain: Domain, parts: &[&[u8]]) -> Result<(), Refusal> {
        // copied out: a check takes long for a lock
        let key = self.book().key(&stamp.sender)?.clone();
        if planted::is(Fault::SignatureUnchecked) {
            return Ok(());
        }
        stamp.check(&key, domain, parts)
    }

    /// Puts this process's signature on a request.
    ///
    /// # Errors
    /// `Unsigned` for a process that speaks as nobody.
    pub fn sign_request(&self, subject: &Subject, headers: &mut Headers, body: &[u8]) -> Result<(), Refusal> {
        headers.authority = None;
        let stamp = with_parts(subject, headers, body, |parts| self.sign(Domain::Request, parts))?;
        headers.authority = Some(stamp.to_string());
        Ok(())
    }

    /// Hears a request, once; who stands behind it. Cheap questions first; only what a member has signed is remembered.
    ///
    /// # Errors
    /// Why it isn't heard.
    pub fn hear_request(&self, subject: &Subject, headers: &Headers, body: &[u8]) -> Result<Stamp, Refusal> {
        let stamp: Stamp = headers.authority.as_deref().ok_or(Refusal::Unsigned)?.parse()?;
        let now_ms = self.now_ms();
        self.window().in_time(stamp.time_ms, now_ms)?;
        with_parts(subject, headers, body, |parts| {
            self.check(&stamp, Domain::Request, parts)
        })?;
        self.window().hear(&stamp.sender, stamp.time_ms, stamp.nonce, now_ms)?;
        Ok(stamp)
    }
}

impl Fleet {
    /// The answer to a person whose role is too little for this request; the first statement of a person says the role.
    pub(crate) fn lacks_role(&self, sender: &Sender, subject: &Subject) -> Option<ErrorBody> {
        let Sender::Person(person) = sender else { return None };
        let said = self.book().entry(sender).and_then(|entry| entry.row.role.clone());
        let role = said.and_then(|role| role.parse::<Role>().ok());
        let needed = wire::catalog::role_of(subject);
        if role.is_some_and(|role| role >= needed) {
            return None;
        }
        let has = role.map_or_else(|| "none".to_owned(), |role| role.to_string());
        let what = format!("{}.{}", subject.concern(), subject.verb());
        let message = format!("{what} needs the role {needed}; '{person}' has {has}; nothing was carried out");
        let hint =
            format!("windlass hosts token --person {person} --role {needed} --replace, on a member that may admit");
        Some(ErrorBody::new(Code::Denied, message).hint(hint))
    }
}

/// What is signed of a request: its subject, every header but what changes on the way, and its body by its hash.
fn with_parts<T>(
    subject: &Subject,
    headers: &Headers,
    body: &[u8],
    then: impl FnOnce(&[&[u8]]) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let hash = blake3::hash(body);
    let pairs = headers.pairs();
    let kept = pairs.iter().filter(|(name, _)| !CHANGES_ON_THE_WAY.contains(name));
    let mut parts: Vec<&[u8]> = vec![subject.as_str().as_bytes(), hash.as_bytes()];
    for (name, value) in kept {
        parts.push(name.as_bytes());
        parts.push(value.as_bytes());
    }
    then(&parts)
}

/// Patience becomes less, a trace has another step, and the signature isn't signed itself.
const CHANGES_ON_THE_WAY: [&str; 3] = [Headers::TIMEOUT_MS, Headers::TRACEPARENT, Headers::AUTHORITY];
