//! Whatever connections send, the engine answers with replies.

#![no_main]

use acteon_engine_tests::fuzz::session;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| session(data));
