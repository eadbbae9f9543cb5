//! Files of any bytes are taken over up to their damage.

#![no_main]

use acteon_engine_tests::fuzz::file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| file(data));
