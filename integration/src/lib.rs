//! Helpers for tests across crates: processes, disks, a power-loss file layer
