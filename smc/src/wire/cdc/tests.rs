//! CDC: bytes put together by hand from RFC 7609 §A.4 and from Linux's layout, what is refused, and cursors.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::AlertToken;

fn message() -> Message {
    Message {
        sequence: SequenceNumber(0x0102),
        alert_token: AlertToken(0x0304_0506),
        producer: Cursor::new(0x0708, 0x090a_0b0c),
        consumer: Cursor::new(0x0d0e, 0x0f10_1112),
        flags: ProducerFlags::WRITER_BLOCKED | ProducerFlags::URGENT_PRESENT,
        state: StateFlags::SENDING_DONE | StateFlags::ABORTED,
    }
}

const MESSAGE: [u8; LENGTH] = {
    let mut bytes = [0; LENGTH];
    let begin = [
        0xfe, 44, 1, 2, // type, length, sequence number
        3, 4, 5, 6, // alert token
        0, 0, 7, 8, 9, 10, 11, 12, // producer
        0, 0, 13, 14, 15, 16, 17, 18, // consumer
        0xa0, 0xa0, // B and U, D and A
    ];
    bytes.split_at_mut(begin.len()).0.copy_from_slice(&begin);
    bytes
};

fn control() -> SharedControl {
    SharedControl {
        producer: ControlWord {
            cursor: Cursor::new(0x0102, 0x0304_0506),
            flags: ProducerFlags::CURSOR_REQUESTED,
            state: StateFlags::CLOSED,
        },
        consumer: ControlWord {
            cursor: Cursor::new(0x1112, 0x1314_1516),
            flags: ProducerFlags::URGENT_PENDING,
            state: StateFlags::empty(),
        },
    }
}

const CONTROL: [u8; SHARED_LENGTH] = [
    0xfe, 0, 0, 0, 0, 0, 0, 0, // type
    1, 2, 3, 4, 5, 6, 0x10, 0x40, // producer
    0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x40, 0, // consumer
    0, 0, 0, 0, 0, 0, 0, 0,
];

#[test]
fn our_messages_are_these_bytes_and_these_bytes_our_messages() {
    let mut out = [0xaa; LENGTH];
    message().emit(&mut out);
    assert_eq!(out, MESSAGE);
    assert_eq!(Message::parse(&MESSAGE), Ok(message()));
    let mut out = [0xaa; SHARED_LENGTH];
    control().emit(&mut out);
    assert_eq!(out, CONTROL);
    assert_eq!(SharedControl::parse(&CONTROL), Ok(control()));
}

#[test]
fn each_flag_is_a_bit_of_the_rfc() {
    assert_eq!(ProducerFlags::all().bits(), 0b1111_1000);
    assert_eq!(StateFlags::all().bits(), 0b1110_0000);
    let mut bytes = MESSAGE;
    (bytes[24], bytes[25]) = (0xff, 0xff);
    let parsed = Message::parse(&bytes).expect("a message");
    assert_eq!((parsed.flags, parsed.state), (ProducerFlags::all(), StateFlags::all()), "reserved bits are ignored");
}

#[test]
fn what_is_no_message_is_refused() {
    for length in [0, 1, LENGTH - 1, LENGTH + 1] {
        let bytes: Vec<u8> = MESSAGE.iter().copied().cycle().take(length).collect();
        assert_eq!(Message::parse(&bytes), Err(CdcError::Length(length)));
    }
    let mut link_control = MESSAGE;
    link_control[0] = 1;
    assert_eq!(Message::parse(&link_control), Err(CdcError::Type(1)));
    let mut longer = MESSAGE;
    longer[1] = 45;
    assert_eq!(Message::parse(&longer), Err(CdcError::LengthField(45)));
    let mut empty = CONTROL;
    empty[0] = 0;
    assert_eq!(SharedControl::parse(&empty), Err(CdcError::Type(0)), "memory that nobody has written yet");
}

#[test]
fn a_word_is_the_eight_bytes_as_they_stand_in_memory() {
    let at = |offset: usize| u64::from_ne_bytes(CONTROL[offset..][..8].try_into().expect("eight bytes"));
    assert_eq!(ControlWord::from_word(at(SharedControl::PRODUCER_OFFSET)), control().producer);
    assert_eq!(ControlWord::from_word(at(SharedControl::CONSUMER_OFFSET)), control().consumer);
    assert_eq!(control().producer.to_word(), at(SharedControl::PRODUCER_OFFSET));
    assert_eq!(ControlWord::default().to_word(), 0, "fresh memory is a cursor at the start");
}

#[test]
fn messages_have_an_order_that_goes_around() {
    let number = SequenceNumber;
    assert_eq!(number(u16::MAX).next(), number(0));
    assert!(SequenceNumber::FIRST.is_after(number(0)));
    assert!(number(0).is_after(number(u16::MAX)));
    assert!(number(3).is_after(number(0xfff0)));
    assert!(!number(0xfff0).is_after(number(3)));
    assert!(!number(7).is_after(number(7)));
}

#[test]
fn full_and_empty_differ() {
    let (size, cursor) = (100, Cursor::new(u16::MAX, 30));
    assert_eq!(cursor.since(cursor, size), Some(0));
    let full = cursor.advanced(size, size);
    assert_eq!(full, Cursor::new(0, 30));
    assert_eq!(full.since(cursor, size), Some(size));
    assert_eq!(cursor.advanced(70, size), Cursor::new(0, 0), "a cursor is never at the end");
}

#[test]
fn a_cursor_that_cannot_be_is_no_distance() {
    let (size, here) = (100, Cursor::new(5, 30));
    for there in [
        Cursor::new(5, 29),       // back
        Cursor::new(6, 31),       // more than once around
        Cursor::new(7, 0),        // twice
        Cursor::new(4, 30),       // back by one round
        Cursor::new(5, 100),      // outside
        Cursor::new(5, u32::MAX), // far outside
    ] {
        assert_eq!(there.since(here, size), None, "{there:?}");
    }
    assert_eq!(here.since(Cursor::new(5, 100), size), None, "nor is one from there");
    assert_eq!(Cursor::START.since(Cursor::START, 0), None, "a ring of nothing holds no cursor");
}

#[test]
#[should_panic(expected = "a cursor moves inside its ring")]
fn no_cursor_of_ours_leaves_its_ring() {
    let _ = Cursor::START.advanced(101, 100);
}

fn any_word() -> impl Strategy<Value = ControlWord> {
    (any::<u16>(), any::<u32>(), any::<u8>(), any::<u8>()).prop_map(|(wrap, count, flags, state)| ControlWord {
        cursor: Cursor::new(wrap, count),
        flags: flags.into(),
        state: state.into(),
    })
}

proptest! {
    #[test]
    fn messages_are_the_same_after_a_journey(
        sequence: u16,
        token: u32,
        producer in any_word(),
        consumer in any_word(),
    ) {
        let message = Message {
            sequence: SequenceNumber(sequence),
            alert_token: AlertToken(token),
            producer: producer.cursor,
            consumer: consumer.cursor,
            flags: producer.flags,
            state: consumer.state,
        };
        let mut bytes = [0; LENGTH];
        message.emit(&mut bytes);
        prop_assert_eq!(Message::parse(&bytes), Ok(message));
        let control = SharedControl { producer, consumer };
        let mut bytes = [0; SHARED_LENGTH];
        control.emit(&mut bytes);
        prop_assert_eq!(SharedControl::parse(&bytes), Ok(control));
        prop_assert_eq!(ControlWord::from_word(producer.to_word()), producer);
    }

    #[test]
    fn any_bytes_are_read_safely(bytes in vec(any::<u8>(), 0..100), words: [u64; 2], size: u32) {
        let _ = Message::parse(&bytes);
        let [one, other] = words.map(|word| ControlWord::from_word(word).cursor);
        if let Some(distance) = one.since(other, size) {
            prop_assert!(distance <= size);
            prop_assert_eq!(other.advanced(distance, size), one);
        }
    }

    #[test]
    fn cursors_count_a_stream(start in 0..1u64 << 40, bytes: u32, size in 1u32..=u32::MAX) {
        let bytes = bytes % size;
        let earlier = Cursor::of_offset(start, size);
        let later = Cursor::of_offset(start + u64::from(bytes), size);
        prop_assert_eq!(earlier.advanced(bytes, size), later);
        prop_assert_eq!(later.since(earlier, size), Some(bytes));
    }
}
