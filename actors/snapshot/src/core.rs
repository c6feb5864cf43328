//! Decisions without I/O: what a request means ([`request`]), where a leaf is cut ([`cut`]), and what a restore does in
//! which order ([`plan`]); which format a disk has ([`format`]).

pub mod cut;
pub mod format;
pub mod plan;
pub mod ranges;
pub mod request;
