//! What is decided about authority, without I/O: time and entropy come in as arguments.
//!
//! * [`keys`]: an identity (its secret never shows) and public keys, checked strictly.
//! * [`stamp`]: what is signed, byte by byte, and the signature as it travels.
//! * [`window`]: what was heard already, and what is too old or too early.
//! * [`book`]: who belongs to the fleet, by what members have signed.
//! * [`token`]: how one who isn't a member becomes one.

pub mod book;
pub mod keys;
pub mod refusal;
pub mod stamp;
pub mod token;
pub mod window;
