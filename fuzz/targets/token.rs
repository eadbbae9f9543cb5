//! Replies of any bytes are read within their bounds, or refused.

#![no_main]

use acteon_engine_tests::fuzz::token;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| token(data));
