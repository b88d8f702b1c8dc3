//! How near the sender comes to what its congestion control allows on paths that lose, reorder and repeat.

use std::time::Duration;

use super::simulator::{Loss, Outcome, Path, Peer, SEGMENT, Simulator};
use crate::softrdma::config::CongestionControl;

const LAN: Duration = Duration::from_micros(200);
const WAN: Duration = Duration::from_millis(10);

/// Median goodput over some seeds, and all outcomes added up.
fn runs(control: CongestionControl, path: Path, megabytes: u64, name: &str) -> (f64, Outcome) {
    let outcomes: Vec<Outcome> =
        (1..=3).map(|seed| Simulator::new(control, path, Peer::default(), megabytes << 20, seed).run()).collect();
    let mut rates: Vec<f64> = outcomes.iter().map(|outcome| outcome.bytes_per_second).collect();
    rates.sort_by(f64::total_cmp);
    let rate = rates[rates.len() / 2];
    let sum = |field: fn(&Outcome) -> u64| outcomes.iter().map(field).sum::<u64>();
    let all = Outcome {
        bytes_per_second: rate,
        segments: sum(|outcome| outcome.segments),
        retransmitted: sum(|outcome| outcome.retransmitted),
        timeouts: sum(|outcome| outcome.timeouts),
        lost: sum(|outcome| outcome.lost),
    };
    println!(
        "{name:32} {control:5} {:7.1} Mbit/s, {:.3} of the link; {} of {} segments sent again, {} lost, {} timeouts",
        rate * 8e-6,
        rate / path.capacity(),
        all.retransmitted,
        all.segments,
        all.lost,
        all.timeouts
    );
    (rate, all)
}

/// Bytes per second that a flow gets at a loss of `probability`: RFC 9438 §5, and where it is more, RFC 9438 §4.3 (a Reno
/// flow's). No more than the path carries.
fn expected(path: &Path, probability: f64) -> f64 {
    let round_trip = path.round_trip.as_secs_f64();
    let reno = (1.5 / probability).sqrt();
    let cubic = (0.4_f64 * 3.7 / (4.0 * 0.3)).powf(0.25) * (round_trip / probability).powf(0.75);
    (reno.max(cubic) * SEGMENT as f64 / round_trip).min(path.capacity())
}

#[test]
fn a_good_path_is_filled() {
    for control in CongestionControl::ALL {
        for (round_trip, least) in [(LAN, 0.97), (WAN, 0.9)] {
            let path = Path::good(round_trip);
            let (rate, all) = runs(control, path, 192, &format!("good, {round_trip:?}"));
            assert!(rate >= least * path.capacity(), "{control} {round_trip:?}: {rate} of {}", path.capacity());
            assert_eq!(all.timeouts, 0);
        }
    }
}

#[test]
fn random_loss_costs_what_the_algorithm_says() {
    for control in CongestionControl::ALL {
        for (round_trip, probability, megabytes) in
            [(LAN, 0.001, 32), (LAN, 0.01, 32), (WAN, 0.001, 16), (WAN, 0.01, 8)]
        {
            let path = Path { loss: Loss::Random(probability), ..Path::good(round_trip) };
            let (rate, all) = runs(control, path, megabytes, &format!("loss {probability}, {round_trip:?}"));
            let expected = expected(&path, probability);
            println!("    {:.3} of the {:.1} Mbit/s expected", rate / expected, expected * 8e-6);
            assert!(rate >= 0.8 * expected, "{control} {round_trip:?} {probability}: {rate} of {expected}");
            assert!(all.retransmitted as f64 <= 1.05 * all.lost as f64, "next to nothing is sent in vain");
            assert!(all.timeouts as f64 <= 0.01 * all.lost as f64, "{} timeouts", all.timeouts);
        }
    }
}

#[test]
fn bursts_of_losses_count_once() {
    for control in CongestionControl::ALL {
        for round_trip in [LAN, WAN] {
            let path = Path { loss: Loss::Bursts { length: 8, once_in: 10_000 }, ..Path::good(round_trip) };
            let (rate, _) = runs(control, path, 128, &format!("bursts, {round_trip:?}"));
            let expected = expected(&path, 1e-4);
            println!("    {:.3} of the {:.1} Mbit/s expected", rate / expected, expected * 8e-6);
            assert!(rate >= 0.8 * expected, "{control} {round_trip:?}: {rate} of {expected}");
        }
    }
}

#[test]
fn reordering_alone_costs_next_to_nothing() {
    for control in CongestionControl::ALL {
        for round_trip in [LAN, WAN] {
            for late in [round_trip / 8, round_trip / 2] {
                let path = Path { late: (0.01, late), ..Path::good(round_trip) };
                let megabytes = if round_trip == LAN { 64 } else { 512 };
                let (rate, all) = runs(control, path, megabytes, &format!("late by {late:?}, {round_trip:?}"));
                assert!(rate >= 0.95 * path.capacity(), "{control} {round_trip:?}: {}", rate / path.capacity());
                assert_eq!(all.timeouts, 0);
            }
        }
    }
}

#[test]
fn packets_that_arrive_twice_cost_nothing() {
    for control in CongestionControl::ALL {
        let path = Path { duplicated: 0.01, acknowledgements_lost: 0.02, ..Path::good(LAN) };
        let (rate, all) = runs(control, path, 64, "repeated, acknowledgements lost");
        assert!(rate >= 0.95 * path.capacity());
        assert_eq!(all.timeouts, 0);
    }
}

#[test]
fn peers_without_selective_acknowledgements_get_everything() {
    for seed in 1..=5 {
        let path = Path { loss: Loss::Random(0.01), ..Path::good(LAN) };
        let peer = Peer { sack: false, ..Peer::default() };
        let outcome = Simulator::new(CongestionControl::Reno, path, peer, 4 << 20, seed).run();
        println!("without selective acknowledgements: {outcome:?}");
        assert!(outcome.bytes_per_second >= 0.3 * path.capacity(), "seed {seed}: {outcome:?}");
    }
}

#[test]
fn peers_that_delay_acknowledgements_are_waited_for() {
    let peer = Peer { delay: Some(Duration::from_micros(500)), window_bytes: 256 << 10, ..Peer::default() };
    for seed in 1..=5 {
        let outcome = Simulator::new(CongestionControl::Cubic, Path::good(LAN), peer, 16 << 20, seed).run();
        assert_eq!((outcome.retransmitted, outcome.timeouts), (0, 0), "seed {seed}");
    }
}
