//! Decisions without I/O: what a request means ([`request`]), where a leaf is cut ([`cut`]), and what a restore does in
//! which order ([`plan`]).

pub mod cut;
pub mod plan;
pub mod ranges;
pub mod request;
