//! Any bytes as what comes from the servers: a signature on a request, a statement, a grant, a joiner, a token. An error, or the one
//! thing that a member signed; nobody is let in. The corpus begins with good ones, which the recipe has the tests write.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| windlass_trust::hear_anything(bytes));
