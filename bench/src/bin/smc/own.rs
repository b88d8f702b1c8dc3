//! Measurements with ends of our own: one connection, messages of [`end::MESSAGE`] bytes, one write and one read each.

use crate::end;
use crate::report::Bar;
use crate::rig::{Rig, Role, Side, Trouble};
use crate::rounds::{Figure, Measurement};

pub(crate) const ONE_WAY: Measurement = Measurement {
    figures: &[Figure { what: "100 B messages, one way", unit: "a second", bar: Bar::AtLeast(6.0) }],
    run: |rig, side| Ok(vec![one_way(rig, side)?]),
};

pub(crate) const PING_PONG: Measurement = Measurement {
    figures: &[Figure { what: "100 B messages, ping-pong", unit: "round trips a second", bar: Bar::AtLeast(5.0) }],
    run: |rig, side| Ok(vec![ping_pong(rig, side)?]),
};

pub(crate) const CONNECTS: Measurement = Measurement {
    figures: &[Figure { what: "connect, one request, close", unit: "a second", bar: Bar::AtLeast(0.9) }],
    // Too short, all of them, to be accelerated.
    run: |rig, side| Ok(vec![pair(rig, side, "echo", "connects", rig.seconds, 0)?]),
};

pub(crate) fn one_way(rig: &Rig, side: Side) -> Result<f64, Trouble> {
    pair(rig, side, "sink", "stream", rig.seconds, 1)
}

pub(crate) fn ping_pong(rig: &Rig, side: Side) -> Result<f64, Trouble> {
    pair(rig, side, "echo", "ping", rig.seconds, 1)
}

/// The rate that a client of our own prints. Of its connections at least `accelerated` have to be, if both ends are.
pub(crate) fn pair(
    rig: &Rig,
    side: Side,
    server: &str,
    client: &str,
    seconds: f64,
    accelerated: u64,
) -> Result<f64, Trouble> {
    let port = rig.free_port();
    let text = port.to_string();
    let server = rig.serve(rig.own_end(Role::Server, side, &[server, &text]), port)?;
    let printed = rig.run(rig.own_end(Role::Client, side, &[client, &text, "--seconds", &seconds.to_string()]))?;
    rig.check(side, &server, accelerated)?;
    printed.trim().parse().map_err(|_| format!("{client} printed '{}'", printed.trim()))
}

const _: () = assert!(end::MESSAGE == 100, "the names of the figures say so");
