//! Decisions without I/O: where a leaf is cut ([`cut`]), and what a restore does in which order ([`plan`]).

pub mod cut;
pub mod plan;
