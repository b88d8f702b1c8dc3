use super::*;

fn session(max_size: u64, active: u32, depth: u32, limit: u64, verify: bool) -> Session {
    let area = Session::area(max_size, active, depth, limit);
    Session { number: 1, queue_pairs: active, active, depth, verify, max_size, area, seed: 1, server_computes_us: None }
}

#[test]
fn every_message_that_may_be_outstanding_lies_within_its_area() {
    for (max_size, active, depth, limit) in [
        (8, 1, 1, 1 << 20),
        (1, 64, 64, 1 << 20),
        (16 << 20, 64, 64, 64 << 20),
        (1 << 30, 1, 8, 64 << 20),
        (3000, 3, 7, 4096),
    ] {
        for verify in [false, true] {
            let session = session(max_size, active, depth, limit, verify);
            for size in [1, 8, 63, max_size].into_iter().filter(|size| *size <= max_size) {
                for (operation, mode) in Operation::ALL
                    .into_iter()
                    .flat_map(|operation| [Mode::Latency, Mode::Throughput].map(|mode| (operation, mode)))
                {
                    let plan = Plan::new(&session, 0, operation, mode, size);
                    assert!(plan.slots >= 1);
                    assert!(plan.slots * plan.stride() <= session.area, "{session:?} {plan:?}");
                    let receives = u64::from(receives_per_queue_pair(depth));
                    let longest_queue = plan.slots.div_ceil(u64::from(active));
                    assert!(!verify || longest_queue <= receives, "each of a round needs a receive: {plan:?}");
                }
            }
        }
    }
}

#[test]
fn memory_is_as_little_as_needed_and_within_the_limit_unless_one_message_is_larger() {
    assert_eq!(Session::area(1 << 20, 1, 4, 64 << 20), 4 << 20);
    assert_eq!(Session::area(1 << 20, 64, 64, 64 << 20), 64 << 20);
    assert_eq!(Session::area(1 << 30, 1, 64, 64 << 20), 1 << 30);
}

#[test]
fn latency_has_an_odd_number_of_slots_so_that_each_byte_of_a_slot_changes() {
    for verify in [false, true] {
        let session = session(64, 1, 64, 1 << 20, verify);
        let plan = Plan::new(&session, 0, Operation::Write, Mode::Latency, 1);
        assert_eq!(plan.slots % 2, 1);
        for number in 0..1000 {
            let next = number + plan.slots;
            assert_eq!(plan.offset(number), plan.offset(next));
            assert_ne!(plan.client_pattern(number).byte(0), plan.client_pattern(next).byte(0), "message {number}");
        }
    }
}

#[test]
fn a_computing_server_answers_no_message() {
    let polling = session(64, 1, 1, 1 << 20, false);
    let computing = Session { server_computes_us: Some(0), ..polling };
    for operation in Operation::ALL {
        let answered = |session, mode| Plan::new(session, 0, operation, mode, 8).is_answered();
        assert_eq!(answered(&polling, Mode::Latency), operation.is_ping_pong());
        assert!(!answered(&polling, Mode::Throughput) && !answered(&computing, Mode::Latency));
        let plan = Plan::new(&computing, 0, operation, Mode::Latency, 8);
        assert!(plan.check(&computing).is_ok() && plan.check(&polling).is_err());
    }
    assert!(Session { server_computes_us: Some(1_000_000), ..polling }.check(1 << 20).is_ok());
    assert!(Session { server_computes_us: Some(1_000_001), ..polling }.check(1 << 20).is_err());
}

#[test]
fn the_counts_of_all_queue_pairs_add_up() {
    let plan = Plan::new(&session(8, 3, 4, 1 << 20, true), 0, Operation::CmpSwap, Mode::Throughput, 8);
    for number in 0..50 {
        let total: u64 = (0..3).map(|link| plan.carried(link, number)).sum();
        assert_eq!(total, number);
        let before = (0..number).filter(|message| plan.link(*message) == 1).count() as u64;
        assert_eq!(plan.carried(1, number), before);
    }
}

#[test]
fn atomics_work_on_eight_bytes_whatever_was_asked_for() {
    let plan = Plan::new(&session(1 << 20, 1, 4, 1 << 20, true), 0, Operation::FetchAdd, Mode::Latency, 1 << 20);
    assert_eq!(plan.size, 8);
}

#[test]
fn larger_messages_are_fewer_and_what_is_asked_for_is_kept() {
    let small = Budget::new(Mode::Throughput, 64, None, None);
    let large = Budget::new(Mode::Throughput, 1 << 30, None, None);
    assert!(small.messages > large.messages && large.messages >= 4);
    assert_eq!(Budget::new(Mode::Latency, 1 << 30, Some(7), None).messages, 7);
    let timed = Budget::new(Mode::Latency, 64, None, Some(Duration::from_secs(3)));
    assert_eq!((timed.messages, timed.time), (u64::MAX, Duration::from_secs(3)));
    assert!(timed.warm_up(64, None).messages <= 1000);
    let second = Duration::from_secs(1);
    assert_eq!(timed.warm_up(64, Some(second)), Budget { messages: u64::MAX, time: second });
}

#[test]
fn the_two_directions_and_two_plans_have_different_data() {
    let session = session(64, 1, 1, 1 << 20, true);
    let plan = Plan::new(&session, 0, Operation::Send, Mode::Latency, 64);
    let next = Plan::new(&session, 1, Operation::Send, Mode::Latency, 64);
    assert_ne!(plan.client_pattern(3).word(0), plan.server_pattern(3).word(0));
    assert_ne!(plan.client_pattern(3).word(0), next.client_pattern(3).word(0));
}

const MEMORY: u64 = 1 << 20;

fn refusal(session: Session) -> String {
    session.check(MEMORY).expect_err(&format!("{session:?}")).to_string()
}

#[test]
fn a_session_that_a_client_asks_for_is_served_if_it_is_within_the_limits() {
    for (max_size, active, depth) in [(1, 1, 1), (8, 4000, 8192), (3000, 3, 7), (MEMORY, 1, 64)] {
        session(max_size, active, depth, MEMORY, false).check(MEMORY).unwrap();
    }
}

#[test]
fn a_session_beyond_a_limit_is_refused_by_name() {
    let good = session(4096, 1, 1, MEMORY, false);
    assert!(refusal(Session { queue_pairs: u32::MAX, ..good }).contains("--qps is 4294967295"));
    assert!(refusal(Session { depth: u32::MAX, ..good }).contains("at most 8192"));
    assert!(refusal(Session { max_size: u64::MAX, ..good }).contains("--size is 18446744073709551615"));
    assert!(refusal(Session { area: MEMORY + 1, ..good }).contains("the server a larger --memory"));
    let endless = Session { area: u64::MAX, ..good };
    assert!(endless.check(u64::MAX).unwrap_err().to_string().contains("in bytes"), "no server has that much");
}

#[test]
fn a_session_that_leads_nowhere_is_refused() {
    let good = session(4096, 2, 2, MEMORY, false);
    for bad in [
        // A message larger than its area has no place: the place of a receive would be a remainder by zero.
        Session { area: 8, ..good },
        Session { area: 0, ..good },
        Session { max_size: 4097, area: 4097, ..good },
        Session { max_size: 0, ..good },
        Session { active: 0, ..good },
        Session { active: 3, ..good },
        Session { queue_pairs: 0, ..good },
        Session { depth: 0, ..good },
    ] {
        assert!(refusal(bad).contains("contradicts itself"), "{bad:?}");
    }
}

#[test]
fn a_plan_that_a_client_asks_for_is_taken_if_it_is_the_sessions() {
    let session = session(4096, 2, 2, MEMORY, true);
    for mode in [Mode::Latency, Mode::Throughput] {
        for operation in Operation::ALL {
            Plan::new(&session, 7, operation, mode, 4096).check(&session).unwrap();
        }
    }
    let good = Plan::new(&session, 0, Operation::Write, Mode::Throughput, 64);
    for bad in [
        Plan { size: 0, ..good },
        Plan { size: 4097, ..good },
        Plan { size: u64::MAX, ..good },
        Plan { slots: 0, ..good },
        Plan { slots: good.slots + 1, ..good },
        Plan { slots: u64::MAX, ..good },
        Plan { active: 1, ..good },
        Plan { depth: 3, ..good },
        Plan { verify: false, ..good },
        // Atomics work on eight bytes.
        Plan { operation: Operation::FetchAdd, ..good },
    ] {
        assert!(bad.check(&session).is_err(), "{bad:?}");
    }
}
