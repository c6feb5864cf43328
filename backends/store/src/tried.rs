//! What a server was seen to honour: servers that speak one protocol differ.

use bytes::Bytes;
use futures::TryStreamExt;

use crate::{Key, Kind, Result, Store, StoreError};

/// What only an adapter can try; `None` where the question has no meaning or no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tried {
    /// A PUT that asks for an absent key is refused when the key is there. False: accepted, and the object overwritten.
    pub conditional_put: Option<bool>,
    /// A PUT whose checksum doesn't fit its body is refused.
    pub checksums_checked: Option<bool>,
    /// A GET tells the checksum that the PUT had.
    pub checksums_told: Option<bool>,
}

/// What a store was seen to honour, by [`probe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Honours {
    /// A range GET gives exactly the range.
    pub ranges: bool,
    /// GET and HEAD see an object, and its replacement, right after the PUT; and its absence right after the DELETE.
    pub read_after_write: bool,
    /// LIST tells an object right after the PUT.
    pub list_after_write: bool,
    /// LIST tells keys in the order of their bytes.
    pub list_ordered: bool,
    /// HEAD and LIST tell one Last-Modified to the second, and it doesn't run backwards.
    pub last_modified: bool,
    /// What the adapter tried.
    pub tried: Tried,
}

impl Honours {
    /// What a repository can't do without and this store doesn't keep, for people; `None` when all is well.
    pub fn missing(&self) -> Option<&'static str> {
        let needed = [
            (self.ranges, "range reads"),
            (self.read_after_write, "reading an object right after it was written"),
            (self.list_after_write, "listing an object right after it was written"),
            (self.last_modified, "a Last-Modified that can be relied on"),
        ];
        needed.into_iter().find(|(kept, _)| !kept).map(|(_, what)| what)
    }
}

const BODY_BYTES_MAX: u64 = 1 << 20;

/// Tries out a store with a few objects below `prefix`, and removes them. About twenty requests.
///
/// # Errors
/// The store's; `Kind::Invalid` when the prefix has a wrong form.
pub async fn probe(store: &dyn Store, prefix: &str) -> Result<Honours> {
    let key = |name: &str| Key::new(format!("{prefix}/{name}"));
    // not in the order of their bytes
    let keys = [key("b")?, key("a/2")?, key("c")?, key("a/1")?];
    let result = look(store, prefix, &keys, &key("try")?).await;
    let mut all = keys.to_vec();
    all.push(key("try")?);
    let removed = store.delete(&all).await;
    let mut honours = result?;
    removed?;
    honours.read_after_write &= absent(store, &keys[0]).await?;
    Ok(honours)
}

async fn look(store: &dyn Store, prefix: &str, keys: &[Key], scratch: &Key) -> Result<Honours> {
    let body = |n: usize| Bytes::from(format!("windlass tries out this store {n:04}").into_bytes());
    let mut read_after_write = true;
    for (n, key) in keys.iter().enumerate() {
        store.put(key, body(n)).await?;
        read_after_write &= same(store.get(key, BODY_BYTES_MAX).await, &body(n))?;
    }
    let first = store.head(&keys[0]).await?;
    store.put(&keys[0], body(9)).await?;
    read_after_write &= same(store.get(&keys[0], BODY_BYTES_MAX).await, &body(9))?;
    let ranges = same(store.get_range(&keys[1], 9..23).await, &body(1).slice(9..23))?;
    let listed: Vec<_> = store.list(&format!("{prefix}/")).try_collect().await?;
    let listed: Vec<_> = listed.into_iter().filter(|m| keys.contains(&m.key)).collect();
    let second = store.head(&keys[0]).await?;
    let told = listed.iter().find(|m| m.key == keys[0]).map(|m| m.last_modified_ms);
    Ok(Honours {
        ranges,
        read_after_write: read_after_write && second.size_bytes == body(9).len() as u64,
        list_after_write: listed.len() == keys.len(),
        list_ordered: listed.is_sorted_by(|a, b| a.key.as_str() <= b.key.as_str()),
        last_modified: second.last_modified_ms >= first.last_modified_ms
            && told.is_some_and(|told| (told - second.last_modified_ms).abs() < 1000),
        tried: store.try_out(scratch).await?,
    })
}

/// False for another body, none, or a part: the store doesn't keep what it should. Other errors are errors.
fn same(got: Result<Bytes>, wanted: &Bytes) -> Result<bool> {
    match got {
        Ok(got) => Ok(got == *wanted),
        Err(StoreError {
            kind: Kind::NotFound | Kind::Truncated | Kind::TooLarge | Kind::Other,
            ..
        }) => Ok(false),
        Err(e) => Err(e),
    }
}

async fn absent(store: &dyn Store, key: &Key) -> Result<bool> {
    match store.head(key).await {
        Err(e) if e.kind == Kind::NotFound => Ok(true),
        Err(e) => Err(e),
        Ok(_) => Ok(false),
    }
}
