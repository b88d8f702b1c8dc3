//! Arbitrary bytes as a message of the exchange: a CLC message behind the header that names an arena.

#![no_main]

use libfuzzer_sys::fuzz_target;
use softrdma_smc::exchange::check_message;

fuzz_target!(|data: &[u8]| check_message(data));
