//! Arbitrary bytes as CDC messages, and what a receiver does with them: cursors that are believed stay in the ring and never go
//! back, and flags lead from state to state.

#![no_main]

use libfuzzer_sys::fuzz_target;
use softrdma_smc::connection::{Input, State};
use softrdma_smc::wire::BufferSize;
use softrdma_smc::wire::cdc::{
    ControlWord, Cursor, LENGTH, Message, SHARED_LENGTH, SequenceNumber, SharedControl, StateFlags,
};

fuzz_target!(|data: &[u8]| {
    let Some((&code, rest)) = data.split_first() else { return };
    let size = BufferSize::new(code % 6).expect("one of six codes").bytes();
    messages(rest, size);
    words(rest, size);
});

/// SMC-R: a sequence of messages.
fn messages(data: &[u8], size: u32) {
    let (mut produced, mut consumed) = (Place::new(size), Place::new(size));
    let mut newest = SequenceNumber(0);
    let mut state = State::Active;
    for bytes in data.chunks(LENGTH) {
        let Ok(message) = Message::parse(bytes) else { continue };
        let mut again = [0xaa; LENGTH];
        message.emit(&mut again);
        assert_eq!(Message::parse(&again), Ok(message));
        // Those that come late are dropped.
        if !message.sequence.is_after(newest) {
            continue;
        }
        newest = message.sequence;
        produced.handle(message.producer);
        consumed.handle(message.consumer);
        state = next_state(state, message.state);
    }
    check_end(state);
}

/// SMC-D: words as they stand in memory, one after the other at the same place.
fn words(data: &[u8], size: u32) {
    let mut produced = Place::new(size);
    let mut state = State::Init;
    for word in data.as_chunks().0.iter().copied().map(u64::from_ne_bytes) {
        let control = ControlWord::from_word(word);
        assert_eq!(ControlWord::from_word(control.to_word()), control);
        produced.handle(control.cursor);
        state = next_state(state, control.state);
    }
    check_end(state);
    for bytes in data.as_chunks::<SHARED_LENGTH>().0 {
        let Ok(control) = SharedControl::parse(bytes) else { continue };
        let mut again = [0xaa; SHARED_LENGTH];
        control.emit(&mut again);
        assert_eq!(SharedControl::parse(&again), Ok(control));
    }
}

/// Where a peer is as far as we believe it, and the same as an offset of the stream.
struct Place {
    cursor: Cursor,
    offset: u64,
    size: u32,
}

impl Place {
    fn new(size: u32) -> Self {
        Self { cursor: Cursor::START, offset: 0, size }
    }

    fn handle(&mut self, cursor: Cursor) {
        let Some(distance) = cursor.since(self.cursor, self.size) else { return };
        assert!(distance <= self.size && cursor.count < self.size);
        assert_eq!(self.cursor.advanced(distance, self.size), cursor);
        self.cursor = cursor;
        self.offset += u64::from(distance);
        assert_eq!(Cursor::of_offset(self.offset, self.size), cursor);
    }
}

fn next_state(state: State, flags: StateFlags) -> State {
    let (next, _) = state.handle_peer_flags(flags);
    let (again, output) = next.handle_peer_flags(flags);
    assert!(again == next && output.raise.is_empty(), "{state:?} {flags:?}");
    next
}

/// Whatever the peer has said, the application can close, and with time that is the end.
fn check_end(state: State) {
    let (state, _) = state.handle(Input::Close { unread: false });
    let (state, _) = state.handle(Input::TimedOut);
    assert_eq!(state, State::Closed);
}
