use super::{Line, Settings, SettingsError, Trouble};
use proptest::prelude::*;
use softrdma_stack::time::Instant;
use std::time::Duration;

const GIGABIT: Settings = Settings {
    rate: Some(1_000_000_000),
    queue_bytes: 1 << 20,
    delay: Duration::from_micros(100),
    trouble: Trouble {
        loss: 0.0,
        burst: 0.0,
        burst_frames: 8,
        reorder: 0.0,
        reorder_delay: Duration::from_micros(100),
        duplicate: 0.0,
        corrupt: 0.0,
    },
};

fn line(settings: Settings, seed: u64) -> Line {
    Line::new(settings, seed).expect("good settings")
}

fn at(microseconds: u64) -> Instant {
    Instant::from_nanoseconds(microseconds * 1000)
}

/// An IPv4 packet that says which it is.
fn packet(number: u32, length: usize) -> Vec<u8> {
    let mut frame = vec![0; length];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes([frame[14], frame[15], frame[16], frame[17]])
}

/// Sends `count` packets, one each `gap`, and gives those that arrive in order of arrival, each with the microsecond.
fn carry(line: &mut Line, count: u32, gap: u64) -> Vec<(u64, Vec<u8>)> {
    let mut arrived = Vec::new();
    for time in 0..u64::from(count) * gap + 1_000_000 {
        let due = time % gap == 0 && time / gap < u64::from(count);
        if due {
            line.handle_frame(at(time), &packet((time / gap) as u32, 1000));
        }
        while let Some(frame) = line.poll_frame(at(time)) {
            arrived.push((time, frame.to_vec()));
        }
        if !due && time / gap >= u64::from(count) && line.deadline().is_none() {
            break;
        }
    }
    arrived
}

#[test]
fn a_frame_takes_its_time_on_the_medium_and_then_the_delay() {
    let mut line = line(GIGABIT, 1);
    line.handle_frame(at(0), &packet(0, 1514));
    // 1514 bytes and 24 of Ethernet's at 8 ns a byte.
    let arrival = Instant::from_nanoseconds(1538 * 8 + 100_000);
    assert_eq!(line.deadline(), Some(arrival));
    assert_eq!(line.poll_frame(Instant::from_nanoseconds(arrival.as_nanoseconds() - 1)), None);
    assert_eq!(line.poll_frame(arrival), Some(&packet(0, 1514)[..]));
    assert_eq!(line.deadline(), None);
}

#[test]
fn frames_that_come_together_leave_at_the_rate() {
    let mut line = line(GIGABIT, 1);
    (0..3).for_each(|index| line.handle_frame(at(0), &packet(index, 1514)));
    for index in 1..=3 {
        let arrival = line.deadline().expect("three frames");
        assert_eq!(arrival.as_nanoseconds(), 1538 * 8 * index + 100_000);
        assert!(line.poll_frame(arrival).is_some());
    }
}

#[test]
fn an_idle_medium_saves_up_nothing() {
    let mut line = line(GIGABIT, 1);
    line.handle_frame(at(0), &packet(0, 1000));
    assert!(line.poll_frame(at(10_000)).is_some());
    line.handle_frame(at(10_000), &packet(1, 1000));
    assert_eq!(line.deadline().map(Instant::as_nanoseconds), Some(10_000_000 + 1024 * 8 + 100_000));
}

#[test]
fn a_full_queue_drops_what_comes_and_has_room_again_once_the_medium_has_carried_some() {
    let mut line = line(Settings { queue_bytes: 3000, ..GIGABIT }, 1);
    (0..5).for_each(|index| line.handle_frame(at(0), &packet(index, 1000)));
    // What waits is counted as the medium counts it, with Ethernet's 24 bytes.
    assert_eq!(line.counters().queue_drops, 3);
    line.handle_frame(at(9), &packet(5, 1000));
    assert_eq!(line.counters().queue_drops, 3);
    let mut arrived = Vec::new();
    while let Some(frame) = line.poll_frame(at(1000)) {
        arrived.push(number(frame));
    }
    assert_eq!(arrived, [0, 1, 5]);
}

#[test]
fn a_good_line_delivers_everything_in_order_unchanged() {
    let arrived = carry(&mut line(GIGABIT, 1), 1000, 10);
    assert_eq!(arrived.len(), 1000);
    assert!((0..).zip(&arrived).all(|(index, (_, frame))| *frame == packet(index, 1000)));
}

#[test]
fn losses_are_as_frequent_as_asked_for() {
    let settings = Settings { trouble: Trouble { loss: 0.01, ..GIGABIT.trouble }, ..GIGABIT };
    let mut line = line(settings, 5);
    let arrived = carry(&mut line, 100_000, 10);
    let lost = 100_000 - arrived.len() as u64;
    assert_eq!(line.counters().lost, lost);
    assert!((800..1200).contains(&lost), "{lost} of 100,000 lost");
}

#[test]
fn a_burst_loses_as_many_in_a_row_as_asked_for() {
    let settings = Settings { trouble: Trouble { burst: 0.001, burst_frames: 8, ..GIGABIT.trouble }, ..GIGABIT };
    let mut line = line(settings, 5);
    let arrived: Vec<u32> = carry(&mut line, 100_000, 10).iter().map(|(_, frame)| number(frame)).collect();
    let gaps: Vec<u32> = arrived.windows(2).map(|pair| pair[1] - pair[0] - 1).filter(|gap| *gap > 0).collect();
    assert!((60..140).contains(&gaps.len()), "{} bursts in 100,000", gaps.len());
    // Two bursts may touch.
    assert!(gaps.iter().all(|gap| gap % 8 == 0), "{gaps:?}");
    assert_eq!(u64::from(gaps.iter().sum::<u32>()), line.counters().lost_in_bursts);
}

#[test]
fn a_packet_held_back_is_passed_by_others_and_comes_in_time() {
    let settings = Settings { trouble: Trouble { reorder: 0.01, ..GIGABIT.trouble }, ..GIGABIT };
    let mut line = line(settings, 5);
    let arrived = carry(&mut line, 10_000, 10);
    assert_eq!(arrived.len(), 10_000);
    let passed = arrived.windows(2).filter(|pair| number(&pair[0].1) > number(&pair[1].1)).count();
    assert!((40..120).contains(&passed), "{passed} of 10,000");
    for (time, frame) in &arrived {
        let took = time - u64::from(number(frame)) * 10;
        assert!((108..=210).contains(&took), "packet {} took {took} us", number(frame));
    }
}

#[test]
fn a_duplicate_comes_right_behind_its_original() {
    let settings = Settings { trouble: Trouble { duplicate: 0.1, ..GIGABIT.trouble }, ..GIGABIT };
    let mut line = line(settings, 5);
    let arrived = carry(&mut line, 1000, 10);
    let doubled = arrived.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert_eq!(arrived.len(), 1000 + doubled);
    assert!((60..150).contains(&doubled), "{doubled} of 1000");
}

#[test]
fn corruption_turns_one_bit_behind_the_ethernet_header() {
    let settings = Settings { trouble: Trouble { corrupt: 1.0, ..GIGABIT.trouble }, ..GIGABIT };
    for (_, frame) in carry(&mut line(settings, 5), 1000, 10) {
        let turned = |original: Vec<u8>| -> u32 {
            frame.iter().zip(&original).map(|(one, other)| (one ^ other).count_ones()).sum()
        };
        assert_eq!(frame[..14], packet(0, 1000)[..14]);
        let is_one_of_them = (0..1000).any(|index| turned(packet(index, 1000)) == 1);
        assert!(is_one_of_them, "not one bit was turned");
    }
}

#[test]
fn frames_that_are_not_ip_meet_no_trouble_and_do_not_change_that_of_others() {
    let trouble = Trouble { loss: 0.3, ..GIGABIT.trouble };
    let settings = Settings { trouble, ..GIGABIT };
    let (mut alone, mut mixed) = (line(settings, 9), line(settings, 9));
    let mut arp = packet(7, 60);
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    for index in 0..100 {
        alone.handle_frame(at(index), &packet(index as u32, 100));
        mixed.handle_frame(at(index), &arp);
        mixed.handle_frame(at(index), &packet(index as u32, 100));
    }
    let drain = |line: &mut Line| {
        let mut frames = Vec::new();
        while let Some(frame) = line.poll_frame(at(1_000_000)) {
            frames.push(frame.to_vec());
        }
        frames
    };
    let (alone, mixed) = (drain(&mut alone), drain(&mut mixed));
    assert_eq!(mixed.iter().filter(|frame| **frame == arp).count(), 100);
    assert_eq!(mixed.into_iter().filter(|frame| *frame != arp).collect::<Vec<_>>(), alone);
    assert!(alone.len() < 100);
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let with = |trouble| Line::new(Settings { trouble, ..GIGABIT }, 1).map(drop);
    let error = with(Trouble { loss: 1.5, ..GIGABIT.trouble });
    assert_eq!(error, Err(SettingsError::Probability { what: "loss", value: 1.5 }));
    assert!(with(Trouble { corrupt: f64::NAN, ..GIGABIT.trouble }).is_err());
    assert_eq!(with(Trouble { burst: 0.1, burst_frames: 0, ..GIGABIT.trouble }), Err(SettingsError::EmptyBurst));
    let slow = Line::new(Settings { rate: Some(10), ..GIGABIT }, 1).map(drop);
    assert_eq!(slow, Err(SettingsError::Rate(10)));
}

proptest! {
    /// Whatever happens to them, all frames are accounted for, and the fate of each is the same whenever it comes.
    #[test]
    fn every_frame_is_accounted_for_and_fates_do_not_depend_on_time(
        seed: u64,
        gap in 1_u64..40,
        loss in 0.0..0.5,
        burst in 0.0..0.1,
        reorder in 0.0..0.5,
        duplicate in 0.0..0.5,
        corrupt in 0.0..0.5,
    ) {
        let trouble = Trouble { loss, burst, reorder, duplicate, corrupt, ..GIGABIT.trouble };
        let settings = Settings { trouble, queue_bytes: u64::MAX, ..GIGABIT };
        let mut fast = line(settings, seed);
        let mut slow = line(settings, seed);
        let arrived = carry(&mut fast, 300, gap).len() as u64;
        carry(&mut slow, 300, gap + 13);
        let (counters, others) = (*fast.counters(), *slow.counters());
        prop_assert_eq!(counters.frames, 300);
        prop_assert_eq!(counters.delivered, arrived);
        let lost = counters.lost + counters.lost_in_bursts + counters.queue_drops;
        prop_assert_eq!(counters.frames + counters.duplicated, counters.delivered + lost);
        let fates = |all: super::Counters| [all.lost, all.lost_in_bursts, all.held_back, all.duplicated, all.corrupted];
        prop_assert_eq!(fates(counters), fates(others));
    }
}
