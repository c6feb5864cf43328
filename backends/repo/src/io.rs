//! Calls to the store, tried again when trying again may help.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use store::{Key, Meta, Store, StoreError};

use crate::{RepoError, Result};

/// Attempts in all, of which the last fails the call.
const ATTEMPTS_MAX: u32 = 4;
/// First wait between attempts; each further one is four times as long.
const BACKOFF_MS: u64 = if cfg!(test) { 1 } else { 40 };

/// The key with this text; all of this crate's have the right form, so an error is a fault of its own.
pub(crate) fn key(text: &str) -> Result<Key> {
    Ok(Key::new(text)?)
}

async fn again<T, F: Future<Output = store::Result<T>>>(mut call: impl FnMut() -> F) -> store::Result<T> {
    let mut attempt = 1;
    loop {
        match call().await {
            Err(e) if !e.is_permanent() && !e.tried_enough && attempt < ATTEMPTS_MAX => {
                tracing::debug!(error = %e, attempt, "store call failed, trying again");
                tokio::time::sleep(Duration::from_millis(BACKOFF_MS << (2 * (attempt - 1)))).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}

fn checked_key(object: &str) -> store::Result<Key> {
    Key::new(object)
}

/// PUT of a whole object. Trying again is safe: the same bytes go under the same key.
pub(crate) async fn put(store: &Arc<dyn Store>, object: &str, body: Bytes) -> Result<()> {
    let key = key(object)?;
    Ok(again(|| store.put(&key, body.clone()))
        .await
        .map_err(|e| e.at(&store.url()))?)
}

pub(crate) async fn get(store: &Arc<dyn Store>, object: &str, bytes_max: u64) -> store::Result<Bytes> {
    let key = checked_key(object)?;
    again(|| store.get(&key, bytes_max))
        .await
        .map_err(|e| e.at(&store.url()))
}

pub(crate) async fn get_range(store: &Arc<dyn Store>, object: &str, range: Range<u64>) -> store::Result<Bytes> {
    let key = checked_key(object)?;
    let bytes = again(|| store.get_range(&key, range.clone()))
        .await
        .map_err(|e| e.at(&store.url()))?;
    let wanted = range.end - range.start;
    if bytes.len() as u64 == wanted {
        return Ok(bytes);
    }
    let why = format!("{} bytes came instead of {wanted}", bytes.len());
    Err(StoreError::new(store::Kind::Truncated, "get_range", object, why).at(&store.url()))
}

pub(crate) async fn delete(store: &Arc<dyn Store>, objects: &[String]) -> Result<()> {
    let keys = objects.iter().map(|o| key(o)).collect::<Result<Vec<_>>>()?;
    Ok(again(|| store.delete(&keys)).await.map_err(|e| e.at(&store.url()))?)
}

/// Everything below `prefix`, handed to `each`.
pub(crate) async fn list(store: &Arc<dyn Store>, prefix: &str, mut each: impl FnMut(Meta)) -> Result<()> {
    // a listing that breaks off is begun anew, so what is handed out is collected first
    let metas = again(|| async {
        let mut metas = Vec::new();
        let mut stream = store.list(prefix);
        while let Some(meta) = stream.next().await {
            metas.push(meta?);
        }
        Ok(metas)
    })
    .await
    .map_err(|e: StoreError| e.at(&store.url()))?;
    metas.into_iter().for_each(&mut each);
    Ok(())
}

/// What a blocking task gave; that it died is an error of `what`.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .map_err(|e| RepoError::internal(what, e))?
}
