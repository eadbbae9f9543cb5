//! Requests of any bytes read the same in every cut.

#![no_main]

use acteon_engine_tests::fuzz::request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| request(data));
