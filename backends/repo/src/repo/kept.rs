//! Manifest nodes out of the cache. Nodes have packs of their own, and a pack never changes: so what is kept is whole packs,
//! and a node is checked against its id whenever it is read.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;

use super::Repo;
use super::nodes::Wanted;
use crate::cache::{Kind, RepoCache};
use crate::pack::PackName;
use crate::{Result, io};

/// A pack up to this size is fetched whole for the first node that is wanted of it.
const WHOLE_AT_ONCE_BYTES: u64 = 1 << 20;
/// A larger one is fetched whole once one part in so many of it was wanted; till then, only what is wanted.
const WHOLE_AFTER_PART: u64 = 8;
/// Packs larger than this are never kept, in bytes.
const KEPT_BYTES_MAX: u64 = 64 << 20;
/// Packs that are fetched at once.
const PACK_LOADS_MAX: usize = 4;
/// Packs of which it is remembered how much was wanted.
const REMEMBERED_MAX: usize = 4096;

/// How many bytes of which pack were wanted so far.
#[derive(Debug, Default)]
pub(super) struct Demand(Mutex<HashMap<PackName, u64>>);

impl Demand {
    /// Counts, and tells whether the whole pack is worth its bytes.
    fn is_worth_all(&self, pack: PackName, wanted_bytes: u64, pack_bytes: u64) -> bool {
        let mut wanted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.len() >= REMEMBERED_MAX {
            wanted.clear();
        }
        let so_far = wanted.entry(pack).or_default();
        *so_far = so_far.saturating_add(wanted_bytes);
        pack_bytes <= WHOLE_AT_ONCE_BYTES
            || (pack_bytes <= KEPT_BYTES_MAX && so_far.saturating_mul(WHOLE_AFTER_PART) >= pack_bytes)
    }
}

/// Nodes of one pack.
struct OfPack {
    name: PackName,
    pack_bytes: u64,
    wanted: Vec<Wanted>,
}

impl Repo {
    /// Keeps a pack of nodes that this process wrote, or fetched whole.
    pub(crate) async fn keep_pack(&self, name: &PackName, bytes: &Bytes) -> bool {
        let Some(cache) = self.cache().cloned().filter(|_| bytes.len() as u64 <= KEPT_BYTES_MAX) else {
            return false;
        };
        let (name, bytes) = (hex::encode(name.0), bytes.clone());
        let kept = io::blocking("cache", move || Ok(cache.put(Kind::Packs, &name, &[&bytes]))).await;
        kept.unwrap_or(false)
    }

    /// Reads what the cache has, or gets now, of `wanted` (sorted by place); the second is left to be fetched.
    pub(super) async fn nodes_of_cache(&self, wanted: Vec<Wanted>) -> Result<(Vec<(usize, Bytes)>, Vec<Wanted>)> {
        let Some(cache) = self.cache().cloned() else {
            return Ok((Vec::new(), wanted));
        };
        let mut packs: Vec<OfPack> = Vec::new();
        for (at, hit) in wanted {
            match packs.last_mut().filter(|pack| pack.name == hit.name) {
                Some(pack) => pack.wanted.push((at, hit)),
                None => packs.push(OfPack {
                    name: hit.name,
                    pack_bytes: hit.pack_bytes,
                    wanted: vec![(at, hit)],
                }),
            }
        }
        let (mut found, mut distant) = (Vec::new(), Vec::new());
        let reads = packs.into_iter().map(|pack| self.nodes_of_kept(cache.clone(), pack));
        let mut reads = stream::iter(reads).buffer_unordered(PACK_LOADS_MAX);
        while let Some(read) = reads.next().await {
            match read {
                Ok(nodes) => found.extend(nodes),
                Err(pack) => distant.extend(pack.wanted),
            }
        }
        Ok((found, distant))
    }

    /// Reads nodes of one pack; gives it back when the store must be asked.
    async fn nodes_of_kept(&self, cache: RepoCache, pack: OfPack) -> std::result::Result<Vec<(usize, Bytes)>, OfPack> {
        let name = hex::encode(pack.name.0);
        let Some(path) = cache.path_of(Kind::Packs, &name, pack.pack_bytes) else {
            return self.nodes_of_fetched(cache, pack).await;
        };
        match self.nodes_of_files(&pack.wanted, |_| Ok(Some(path.clone()))).await {
            Ok(nodes) => Ok(nodes),
            Err(error) => {
                cache.bad(Kind::Packs, &name, &error.to_string());
                Err(pack)
            }
        }
    }

    async fn nodes_of_fetched(
        &self,
        cache: RepoCache,
        pack: OfPack,
    ) -> std::result::Result<Vec<(usize, Bytes)>, OfPack> {
        let wanted_bytes = pack.wanted.iter().map(|(_, hit)| u64::from(hit.entry.stored)).sum();
        if !cache.is_writable() || !self.demand().is_worth_all(pack.name, wanted_bytes, pack.pack_bytes) {
            return Err(pack);
        }
        // whatever is wrong with the pack, fetching its nodes one by one will tell it better
        let Ok(bytes) = io::get(self.store(), &pack.name.key(), pack.pack_bytes).await else {
            return Err(pack);
        };
        let name = hex::encode(pack.name.0);
        let whole = bytes.len() as u64 == pack.pack_bytes && blake3::hash(&bytes).to_hex().as_str() == name;
        if !whole || !self.keep_pack(&pack.name, &bytes).await {
            return Err(pack);
        }
        drop(bytes);
        let Some(path) = cache.path_of(Kind::Packs, &name, pack.pack_bytes) else {
            return Err(pack);
        };
        match self.nodes_of_files(&pack.wanted, |_| Ok(Some(path.clone()))).await {
            Ok(nodes) => Ok(nodes),
            Err(_) => Err(pack),
        }
    }
}
