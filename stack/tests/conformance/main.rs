//! One and the same behaviour, asked of every engine.
//!
//! An engine joins with a function from a seed and limits of connections to a [`world::World`]: two hosts that reach each other and a
//! clock; and one line below.

#![allow(clippy::disallowed_methods, reason = "the kernel's sockets live in real time")]

mod suite;
mod upper;
mod world;

use world::World;

/// Makes each test of the suite a test of one engine.
macro_rules! conformance {
    ($engine:ident, $world:expr, [$($test:ident),* $(,)?]) => {
        mod $engine {
            $(
                #[test]
                fn $test() {
                    super::world::run(stringify!($test), $world, super::suite::$test);
                }
            )*
        }
    };
}

macro_rules! conformance_of {
    ($engine:ident, $world:expr) => {
        conformance!(
            $engine,
            $world,
            [
                both_ends_learn_the_same_addresses,
                a_connection_nobody_listens_for_is_refused,
                bytes_come_back_whatever_the_cuts,
                a_sink_that_takes_nothing_stops_the_sender,
                a_peer_that_never_reads_disturbs_nobody,
                bytes_are_offered_again_only_after_resume,
                each_direction_ends_by_itself,
                the_end_is_reported_after_the_last_byte_is_consumed,
                everything_taken_before_close_arrives,
                both_ends_may_close_at_once,
                an_abort_resets_the_peer_and_says_nothing_here,
                a_sink_that_gives_up_is_left_alone,
                a_closed_listener_refuses_and_its_streams_live_on,
                a_listener_says_what_is_wrong_with_its_address,
                many_connections_live_side_by_side,
                connections_beyond_the_limit_are_refused,
                a_backlog_of_connections_is_accepted_later,
                an_old_name_finds_nothing,
                who_sleeps_is_woken_and_who_has_nothing_to_do_sleeps,
            ]
        );
    };
}

conformance_of!(kernel_ipv4, |seed, limits| super::World::kernel("127.0.0.1", seed, limits));
conformance_of!(kernel_ipv6, |seed, limits| super::World::kernel("::1", seed, limits));
conformance_of!(kernel_with_scarce_buffers, super::World::kernel_with_scarce_buffers);
conformance_of!(sequential_ipv4, |seed, limits| {
    let impairments = softrdma_stack::memory_port::Impairments::default();
    super::World::sequential(("10.0.0.", 24), seed, limits, impairments)
});
conformance_of!(sequential_ipv6, |seed, limits| {
    let impairments = softrdma_stack::memory_port::Impairments { mtu: 9000, ..Default::default() };
    super::World::sequential(("fd00::", 64), seed, limits, impairments)
});
conformance_of!(sequential_over_a_bad_wire, |seed, limits| {
    let impairments = softrdma_stack::memory_port::Impairments {
        loss: 0.0001,
        duplicate: 0.01,
        reorder: 0.01,
        cut: 0.5,
        delay: std::time::Duration::from_micros(30),
        checksum_offload: seed % 2 == 0,
        ..Default::default()
    };
    super::World::sequential(("10.0.0.", 24), seed, limits, impairments)
});
conformance_of!(softrdma_ipv4, |seed, limits| {
    let impairments = softrdma_stack::memory_port::Impairments::default();
    super::World::softrdma(("10.0.0.", 24), seed, limits, impairments)
});
conformance_of!(softrdma_ipv6, |seed, limits| {
    let impairments = softrdma_stack::memory_port::Impairments { mtu: 9000, ..Default::default() };
    super::World::softrdma(("fd00::", 64), seed, limits, impairments)
});
conformance_of!(softrdma_over_a_bad_wire, |seed, limits| {
    let impairments = softrdma_stack::memory_port::Impairments {
        loss: 0.01,
        duplicate: 0.01,
        reorder: 0.01,
        corrupt: 0.001,
        cut: 0.5,
        delay: std::time::Duration::from_micros(30),
        checksum_offload: seed % 2 == 0,
        ..Default::default()
    };
    super::World::softrdma(("10.0.0.", 24), seed, limits, impairments)
});
conformance_of!(pair, super::World::pair);
