//! The data plane: moves the bytes that `core` decided on.

pub mod export;
pub mod guard;
pub mod ingest;
pub mod journal;
pub mod progress;
pub mod raw;
pub mod restore;
