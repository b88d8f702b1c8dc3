//! Whatever a peer says, what is counted is what is there, and an honest peer ends with everything.

use std::ops::Range;
use std::time::Duration;

use proptest::prelude::*;

use crate::softrdma::config::CongestionControl;
use crate::softrdma::sender::{Acknowledged, Established, Sender, SenderConfig, TimeoutOutcome, Transmission};
use crate::time::Instant;

const SEGMENT: u64 = 1000;

/// Something that happens to a sender.
#[derive(Clone, Debug)]
enum Step {
    /// It may send so many segments; the layer above has something new, of so many bytes.
    Send(u8, Option<u16>),
    /// The peer acknowledges so much of what is in flight, and reports stretches of it, all in parts of a byte's range.
    Acknowledge {
        through: u8,
        blocks: Vec<(u8, u8)>,
        duplicate: Option<(u8, u8)>,
        window: u16,
    },
    Wait(u32),
    Timeout,
}

fn step() -> impl Strategy<Value = Step> {
    let block = || (any::<u8>(), any::<u8>());
    prop_oneof![
        3 => (0..20u8, proptest::option::of(1..1000u16)).prop_map(|(most, size)| Step::Send(most, size)),
        4 => (
            prop_oneof![Just(0u8), any::<u8>()],
            proptest::collection::vec(block(), 0..4),
            proptest::option::of(block()),
            1000..60000u16,
        )
            .prop_map(|(through, blocks, duplicate, window)| Step::Acknowledge { through, blocks, duplicate, window }),
        2 => (0..5_000_000u32).prop_map(Step::Wait),
        1 => Just(Step::Timeout),
    ]
}

struct World {
    sender: Sender,
    now: Instant,
}

impl World {
    fn new(control: CongestionControl, sack: bool) -> Self {
        let now = Instant::from_nanoseconds(1_000_000_000);
        let config = SenderConfig {
            congestion_control: control,
            min_retransmission_timeout: Duration::from_millis(1),
            user_timeout: Duration::from_secs(1 << 20),
        };
        let established = Established {
            segment_size: SEGMENT as usize,
            window_bytes: 60_000,
            sack,
            first_round_trip: Some(Duration::from_millis(1)),
        };
        Self { sender: Sender::new(&config, now, established), now }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Send(most, size) => self.send(usize::from(*most), size.map(u32::from)),
            Step::Acknowledge { through, blocks, duplicate, window } => {
                self.acknowledge(*through, blocks, *duplicate, u64::from(*window));
            }
            Step::Wait(nanoseconds) => self.now = self.now + Duration::from_nanos(u64::from(*nanoseconds)),
            Step::Timeout => self.expire(),
        }
        self.sender.check();
    }

    fn send(&mut self, most: usize, size: Option<u32>) {
        for _ in 0..most {
            match self.sender.poll_segment(self.now) {
                None => return,
                Some(Transmission::Retransmit { start, length }) => {
                    assert!(start >= self.sender.acknowledged() && length > 0 && u64::from(length) <= SEGMENT);
                    assert!(start + u64::from(length) <= self.sender.next_offset());
                    self.sender.sent_again(start, length, self.now);
                }
                Some(Transmission::New { room }) => match size {
                    Some(size) => {
                        let start = self.sender.next_offset();
                        self.sender.sent_new(start, size.min(room as u32), self.now);
                    }
                    None if self.sender.handle_drained(self.now) => {}
                    None => return,
                },
            }
            self.sender.check();
        }
    }

    fn acknowledge(&mut self, through: u8, blocks: &[(u8, u8)], duplicate: Option<(u8, u8)>, window: u64) {
        let (low, high) = (self.sender.acknowledged(), self.sender.next_offset());
        let place = |part: u8| low + (high - low) * u64::from(part) / 255;
        let through = place(through);
        let stretch = |&(one, other): &(u8, u8)| place(one.min(other))..place(one.max(other));
        let mut sack: Vec<Range<u64>> =
            blocks.iter().map(stretch).filter(|range| range.start >= through && !range.is_empty()).collect();
        sack.sort_by_key(|range| range.start);
        let duplicate = duplicate.as_ref().map(stretch);
        let said = Acknowledged { through, window_end: through + window, sack: &sack, duplicate, carries_data: false };
        self.sender.handle_acknowledgement(self.now, &said);
    }

    fn expire(&mut self) {
        if let Some(at) = self.sender.next_deadline() {
            self.now = self.now.max(at);
            assert_ne!(self.sender.handle_timeout(self.now), TimeoutOutcome::GiveUp);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_counted_is_what_is_there(
        is_cubic: bool,
        sack: bool,
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let control = if is_cubic { CongestionControl::Cubic } else { CongestionControl::Reno };
        let mut world = World::new(control, sack);
        for step in &steps {
            world.apply(step);
        }
        // From here on everything arrives at once: it must come to an end.
        let mut left = 100_000;
        while !world.sender.is_idle() {
            world.expire();
            world.send(100, None);
            world.acknowledge(128, &[], None, 60_000);
            world.acknowledge(255, &[], None, 60_000);
            world.sender.check();
            left -= 1;
            prop_assert!(left > 0);
        }
        world.send(1, Some(1000));
        prop_assert!(!world.sender.is_idle(), "it may send again");
    }
}
