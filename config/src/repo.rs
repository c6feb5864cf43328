//! `[repo]` and `[repo.chunker]`: the chunk repository.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::key::{Key, KeyType, Preset, Reload, Section};

/// The chunk repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repo {
    /// Where, when a request does not say.
    pub url: String,
    /// Stored bytes at which a pack is closed.
    pub pack_bytes: u64,
    /// zstd level.
    pub compression_level: u64,
    /// Packs that are uploaded at once.
    pub uploads_in_flight_max: u64,
    /// Range reads at once.
    pub fetch_requests_in_flight_max: u64,
    /// Bytes that fetches hold in memory.
    pub fetch_memory_bytes_max: u64,
    /// Gaps up to this are read along rather than skipped.
    pub fetch_gap_bytes_max: u64,
    /// Where what doesn't change of distant repositories is kept.
    pub cache_dir: PathBuf,
    /// Most bytes there; 0: nothing is kept.
    pub cache_bytes_max: u64,
    /// How new repositories cut disks.
    pub chunker: ChunkerConfig,
    /// How to speak to an S3 server.
    pub s3: crate::RepoS3,
}

/// How new repositories cut disks, as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkerConfig {
    /// By content or by size.
    pub mode: ChunkerMode,
    /// With fastcdc: smallest chunk.
    pub min_bytes: u32,
    /// With fastcdc: mean.
    pub avg_bytes: u32,
    /// With fastcdc: largest chunk.
    pub max_bytes: u32,
    /// With fixed: chunk size.
    pub chunk_bytes: u32,
}

/// By content or by size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChunkerMode {
    /// Content-defined.
    Fastcdc,
    /// One size.
    Fixed,
}

impl ChunkerConfig {
    /// As the wire and the repository know it.
    pub fn to_wire(&self) -> wire::repo::Chunker {
        match self.mode {
            ChunkerMode::Fastcdc => wire::repo::Chunker::Fastcdc {
                min_bytes: self.min_bytes,
                avg_bytes: self.avg_bytes,
                max_bytes: self.max_bytes,
            },
            ChunkerMode::Fixed => wire::repo::Chunker::Fixed {
                chunk_bytes: self.chunk_bytes,
            },
        }
    }
    /// What the bounds of single keys can't say; the key at fault and why.
    pub(crate) fn fault(&self) -> Option<(&'static str, String)> {
        if self.min_bytes > self.avg_bytes {
            return Some((
                "repo.chunker.min_bytes",
                format!(
                    "{} is more than repo.chunker.avg_bytes ({})",
                    self.min_bytes, self.avg_bytes
                ),
            ));
        }
        if self.avg_bytes > self.max_bytes {
            return Some((
                "repo.chunker.max_bytes",
                format!(
                    "{} is less than repo.chunker.avg_bytes ({})",
                    self.max_bytes, self.avg_bytes
                ),
            ));
        }
        let odd = [
            ("repo.chunker.min_bytes", self.min_bytes, 2),
            ("repo.chunker.avg_bytes", self.avg_bytes, 2),
            ("repo.chunker.max_bytes", self.max_bytes, 2),
            ("repo.chunker.chunk_bytes", self.chunk_bytes, 4096),
        ];
        odd.into_iter()
            .find(|(_, value, unit)| value % unit != 0)
            .map(|(key, value, unit)| (key, format!("{value} is not a multiple of {unit}")))
    }
}

pub(crate) static SECTION: Section = Section {
    name: "repo",
    about: "The chunk repository. Credentials of s3://, gs:// and az:// come from the environment, as their SDKs document; never from this file.",
    reload: Reload::Only(&[
        "pack_bytes",
        "compression_level",
        "uploads_in_flight_max",
        "fetch_requests_in_flight_max",
        "fetch_memory_bytes_max",
        "fetch_gap_bytes_max",
    ]),
    keys: &[
        Key {
            path: "repo.url",
            kind: KeyType::RepoUrl,
            preset: Preset::Derived("file://<state_dir>/repo"),
            about: "Where, when a request does not say: file:///…, s3://bucket/…, gs://bucket/…, az://container/…, memory://….",
        },
        Key {
            path: "repo.pack_bytes",
            kind: KeyType::Integer {
                min: 1 << 20,
                max: 1 << 30,
            },
            preset: Preset::Integer(16 << 20),
            about: "Stored bytes at which a pack is closed and uploaded.",
        },
        Key {
            path: "repo.compression_level",
            kind: KeyType::Integer { min: 1, max: 19 },
            preset: Preset::Integer(1),
            about: "zstd level; data that does not get smaller is stored as it is.",
        },
        Key {
            path: "repo.uploads_in_flight_max",
            kind: KeyType::Integer { min: 1, max: 64 },
            preset: Preset::Integer(4),
            about: "Packs that are uploaded at once; each stands in memory until it is durable.",
        },
        Key {
            path: "repo.fetch_requests_in_flight_max",
            kind: KeyType::Integer { min: 1, max: 32 },
            preset: Preset::Integer(16),
            about: "Range reads at once; 16 to 32 keep a distant store busy.",
        },
        Key {
            path: "repo.fetch_memory_bytes_max",
            kind: KeyType::Integer {
                min: 16 << 20,
                max: 16 << 30,
            },
            preset: Preset::Integer(96 << 20),
            about: "Bytes that fetches may hold in memory.",
        },
        Key {
            path: "repo.fetch_gap_bytes_max",
            kind: KeyType::Integer { min: 0, max: 16 << 20 },
            preset: Preset::Integer(16 << 10),
            about: "Two wanted runs of a pack with a gap up to this between them are read as one.",
        },
        Key {
            path: "repo.cache_dir",
            kind: KeyType::Path,
            preset: Preset::Derived(
                "/var/cache/windlass for root, $XDG_CACHE_HOME/windlass (~/.cache/windlass) for others",
            ),
            about: "Where index, manifests and snapshots of distant repositories are kept, so that they are fetched once (docs/cache.md). It may be emptied at any time.",
        },
        Key {
            path: "repo.cache_bytes_max",
            kind: KeyType::Integer { min: 0, max: 1 << 50 },
            preset: Preset::Integer(4 << 30),
            about: "Bytes that the cache may have on disk; what was not used for longest goes first. 0: no cache.",
        },
    ],
};

pub(crate) static CHUNKER_SECTION: Section = Section {
    name: "repo.chunker",
    about: "How a new repository cuts disks; fixed for its life, so that equal data has equal names.",
    reload: Reload::None,
    keys: &[
        Key {
            path: "repo.chunker.mode",
            kind: KeyType::Choice(&["fastcdc", "fixed"]),
            preset: Preset::Text("fastcdc"),
            about: "fastcdc: by content. fixed: at multiples of chunk_bytes, for aligned writers where CPU is dear.",
        },
        Key {
            path: "repo.chunker.min_bytes",
            kind: KeyType::Integer { min: 256, max: 1 << 20 },
            preset: Preset::Integer(16 << 10),
            about: "With fastcdc: the smallest chunk (but for the end of a run of data); even.",
        },
        Key {
            path: "repo.chunker.avg_bytes",
            kind: KeyType::Integer {
                min: 1 << 10,
                max: 4 << 20,
            },
            preset: Preset::Integer(64 << 10),
            about: "With fastcdc: the mean aimed at; even.",
        },
        Key {
            path: "repo.chunker.max_bytes",
            kind: KeyType::Integer {
                min: 4 << 10,
                max: 4 << 20,
            },
            preset: Preset::Integer(256 << 10),
            about: "With fastcdc: the largest chunk; even.",
        },
        Key {
            path: "repo.chunker.chunk_bytes",
            kind: KeyType::Integer {
                min: 4 << 10,
                max: 4 << 20,
            },
            preset: Preset::Integer(64 << 10),
            about: "With fixed: the size of every chunk; a multiple of 4096.",
        },
    ],
};
