//! The concern `echo`: CONTRIBUTING's example of the shape that every concern has. It says back what it is told.
#![cfg(feature = "example")]

pub mod actor;
pub mod core;
