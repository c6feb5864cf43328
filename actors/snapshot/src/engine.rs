//! The data plane: moves the bytes that `core` decided on.

pub mod block;
pub mod export;
pub mod guard;
pub mod ingest;
pub mod journal;
pub mod locks;
pub mod open;
pub mod progress;
pub mod qcow2;
pub mod raw;
pub mod restore;
