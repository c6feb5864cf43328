//! Any bytes as a qcow2 image: an error or a disk, in bounded time and memory, also when it is written to. The corpus begins
//! with whole images that the recipe makes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| windlass_qcow2::use_as_image(bytes));
