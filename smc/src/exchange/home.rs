//! What processes say to each other at home: which connection to look at. See [`Rendezvous::call`](crate::names::Rendezvous::call).

use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::net::{RecvFlags, recv};
use zerocopy::network_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 4] = *b"sRsh";
const VERSION: u8 = 1;
/// Bytes of a word, and some that it may not have.
const LENGTH: usize = size_of::<Word>();

/// Words that are heard at a time.
const WORDS: usize = 256;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Word {
    magic: [u8; 4],
    version: u8,
    reserved: [u8; 3],
    token: U64,
}

const _: () = assert!(LENGTH == 16);

/// What is said of the connection that the hearer calls `token`.
pub(super) fn word(token: u64) -> [u8; LENGTH] {
    let word = Word { magic: MAGIC, version: VERSION, reserved: [0; 3], token: token.into() };
    zerocopy::transmute!(word)
}

/// The token in a word, if it is one.
fn parse(bytes: &[u8]) -> Option<u64> {
    let word = Word::ref_from_bytes(bytes).ok()?;
    (word.magic == MAGIC && word.version == VERSION).then(|| word.token.get())
}

/// The tokens that others have said to `socket`; some more may come. Each once.
pub(super) fn heard(socket: impl AsFd) -> Vec<u64> {
    let mut tokens = Vec::new();
    for _ in 0..WORDS {
        let mut bytes = [MaybeUninit::uninit(); LENGTH + 1];
        let Ok(((bytes, _), length)) = recv(&socket, &mut bytes, RecvFlags::DONTWAIT) else { break };
        if length <= LENGTH
            && let Some(token) = parse(bytes)
            && !tokens.contains(&token)
        {
            tokens.push(token);
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_word_names_a_token() {
        assert_eq!(parse(&word(0x0123_4567_89ab_cdef)), Some(0x0123_4567_89ab_cdef));
        assert_eq!(word(2)[8..], [0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(parse(&word(1)[..15]), None);
        assert_eq!(parse(&[&word(1)[..], &[0]].concat()), None);
        for at in 0..5 {
            let mut other = word(1);
            other[at] ^= 1;
            assert_eq!(parse(&other), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn other_bytes_are_none(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(parse(&bytes).is_none() || bytes.starts_with(&MAGIC) && bytes.len() == LENGTH);
        }
    }
}
