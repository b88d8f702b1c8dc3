//! Arbitrary bytes as TERMINATE: what is understood can be written and understood again, and names a status.

#![no_main]

use libfuzzer_sys::fuzz_target;
use softrdma_mpa_ddp_rdmap::terminate::MAX_TERMINATE_LENGTH;
use softrdma_mpa_ddp_rdmap::{Status, Terminate, TerminateReceived};

fuzz_target!(|data: &[u8]| {
    let Some(terminate) = Terminate::parse(data) else { return };
    let received = TerminateReceived { terminate };
    assert_ne!(received.status(), Status::Success);
    let _ = received.blamed();
    let mut out = [0; MAX_TERMINATE_LENGTH];
    let length = terminate.encode(&mut out);
    let mut again = Terminate::parse(&out[..length]).expect("our own TERMINATE is well formed");
    // A DDP header brings its length with it, present or not (RFC 5040 §4.8).
    if terminate.headers.segment_length.is_none() {
        again.headers.segment_length = None;
    }
    assert_eq!(again, terminate);
});
