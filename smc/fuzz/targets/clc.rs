//! Arbitrary bytes as a stream of CLC messages: the verdict does not depend on how they are cut, what is understood can be
//! written and understood again, and what is not has an answer.

#![no_main]

use libfuzzer_sys::fuzz_target;
use softrdma_smc::wire::clc::{ClcError, DeclineReason, MAX_EMITTED, MAX_LENGTH, Message, Parsed, parse};
use softrdma_smc::wire::tcp_option;

fuzz_target!(|data: &[u8]| {
    let mut stream = data;
    loop {
        match parse(stream) {
            Ok(Parsed::Complete { message, length }) => {
                assert!((1..=stream.len().min(MAX_LENGTH)).contains(&length));
                check_every_cut(&stream[..length], &message);
                check_again(&message);
                stream = &stream[length..];
            }
            Ok(Parsed::Incomplete { needed }) => {
                assert!((stream.len() + 1..=MAX_LENGTH).contains(&needed));
                break;
            }
            Err(error) => {
                check_error(error);
                break;
            }
        }
    }
    let _ = tcp_option::is_among(data);
});

/// With fewer bytes there is neither a message nor an error.
fn check_every_cut(bytes: &[u8], message: &Message) {
    for cut in 0..bytes.len() {
        match parse(&bytes[..cut]) {
            Ok(Parsed::Incomplete { needed }) => assert!(cut < needed && needed <= bytes.len()),
            other => panic!("{other:?} of {cut} bytes of {message:?}"),
        }
    }
}

fn check_again(message: &Message) {
    let mut memory = [0xaa; MAX_EMITTED];
    let bytes = message.emit(&mut memory);
    let again = Parsed::Complete { message: message.clone(), length: bytes.len() };
    assert_eq!(parse(bytes), Ok(again));
    if let Message::Decline(decline) = message {
        assert!(!decline.reason.to_string().is_empty());
    }
}

fn check_error(error: ClcError) {
    assert!(!error.to_string().is_empty());
    assert!(DeclineReason::KNOWN.contains(&error.decline_reason()));
}
