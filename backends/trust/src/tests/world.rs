//! A world to live in: homes of hosts, what they share, a clock, and processes that die at a write.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use integration::scratch::Scratch;
use state::{Entry, Key, Prefix, State, Watch};
use tokio::sync::Notify;
use wire::members::HostToken;
use wire::{HostId, Sender};

use super::{Turned, host};
use crate::core::token::Token;
use crate::error::TrustError;
use crate::grants::make_token;
use crate::membership::Membership;
use crate::place::Place;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A state whose process dies at a write: before it, or right after it was made.
#[derive(Debug, Clone)]
pub(crate) struct Mortal {
    pub(crate) inner: Arc<dyn State>,
    pub(crate) death: Arc<Death>,
}

#[derive(Debug, Default)]
pub(crate) struct Death {
    /// Half-writes that are left: an even number dies before a write, an odd one behind it.
    pub(crate) left: AtomicI64,
    pub(crate) died: Notify,
}

impl Death {
    pub(crate) fn at(n: i64) -> Arc<Self> {
        Arc::new(Self {
            left: n.into(),
            died: Notify::new(),
        })
    }
    pub(crate) async fn step(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
    }
    /// What came of it, or nothing when it died.
    pub(crate) async fn of<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.died.notified() => None,
        }
    }
}

#[async_trait]
impl State for Mortal {
    async fn get(&self, key: &Key) -> state::Result<Option<Entry>> {
        self.inner.get(key).await
    }
    async fn put(&self, key: &Key, value: Bytes) -> state::Result<u64> {
        self.death.step().await;
        let done = self.inner.put(key, value).await;
        self.death.step().await;
        done
    }
    async fn create(&self, key: &Key, value: Bytes) -> state::Result<u64> {
        self.death.step().await;
        let done = self.inner.create(key, value).await;
        self.death.step().await;
        done
    }
    async fn update(&self, key: &Key, value: Bytes, revision: u64) -> state::Result<u64> {
        self.death.step().await;
        let done = self.inner.update(key, value, revision).await;
        self.death.step().await;
        done
    }
    async fn delete(&self, key: &Key, revision: Option<u64>) -> state::Result<u64> {
        self.inner.delete(key, revision).await
    }
    async fn list(&self, prefix: &Prefix, after: Option<&Key>, entries_max: usize) -> state::Result<Vec<Entry>> {
        self.inner.list(prefix, after, entries_max).await
    }
    async fn watch(&self, prefix: &Prefix, after_revision: u64) -> state::Result<Watch> {
        self.inner.watch(prefix, after_revision).await
    }
    async fn lease(&self, key: &Key, holder: &str, ttl_ms: u64) -> state::Result<Entry> {
        self.death.step().await;
        let done = self.inner.lease(key, holder, ttl_ms).await;
        self.death.step().await;
        done
    }
    async fn release(&self, key: &Key, holder: &str) -> state::Result<()> {
        self.inner.release(key, holder).await
    }
}

/// A place to live: a directory, and the state of its own.
pub(crate) struct Home {
    pub(crate) host: HostId,
    pub(crate) place: Place,
    pub(crate) own: Arc<dyn State>,
}

pub(crate) struct World {
    pub(crate) scratch: Scratch,
    pub(crate) shared: Arc<dyn State>,
    pub(crate) now: Turned,
}

impl World {
    pub(crate) fn new() -> Self {
        let now = Turned::at(1_000_000);
        Self {
            scratch: Scratch::new("trust").unwrap(),
            shared: memory(&now),
            now,
        }
    }
    pub(crate) fn home(&self, name: &str) -> Home {
        Home {
            host: HostId::new(name).unwrap(),
            place: Place::at(&self.scratch.join(name)),
            own: memory(&self.now),
        }
    }
    pub(crate) async fn open(&self, home: &Home) -> Result<Membership, TrustError> {
        self.open_with(home, self.shared.clone(), home.own.clone()).await
    }
    pub(crate) async fn open_with(
        &self,
        home: &Home,
        shared: Arc<dyn State>,
        own: Arc<dyn State>,
    ) -> Result<Membership, TrustError> {
        Membership::open(home.place.clone(), &home.host, shared, own, self.now.now()).await
    }
    /// A founder that lets others in.
    pub(crate) async fn founder(&self) -> (Home, Membership) {
        let home = self.home("h1");
        let membership = self.open(&home).await.unwrap();
        membership.follow();
        (home, membership)
    }
    pub(crate) async fn join(&self, token: Token, home: &Home) -> Result<u64, TrustError> {
        let joined = crate::join(token, home.place.clone(), self.shared.clone(), PATIENCE).await?;
        Ok(joined.epoch)
    }
}

pub(crate) fn memory(now: &Turned) -> Arc<dyn State> {
    Arc::new(state::Redb::new(state::Database::in_memory().unwrap(), now.now()))
}

pub(crate) fn request(member: &Sender, token_key: String) -> HostToken {
    HostToken {
        member: member.clone(),
        token_key,
        valid_s: 3_600,
        may_admit: false,
        replace: false,
        role: None,
    }
}

pub(crate) async fn token_with(
    at: &Membership,
    member: &Sender,
    with: impl Fn(HostToken) -> HostToken,
) -> Result<Token, TrustError> {
    let key = make_token()?;
    let granted = at
        .grant(&with(request(member, key.public().to_string())), |ms| ms.to_string())
        .await?;
    Ok(Token {
        member: member.clone(),
        key,
        issuer: granted.issuer_key.parse().unwrap(),
    })
}

pub(crate) async fn token(at: &Membership, name: &str) -> Token {
    token_with(at, &host(name), |r| r).await.unwrap()
}

pub(crate) fn copy(token: &Token) -> Token {
    token.text().parse().unwrap()
}

pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came");
}
