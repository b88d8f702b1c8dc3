//! Ends of our own that live at the same time and work in turns: whatever else the machine does, both feel it.

use crate::rig::{Daemon, Rig, Role, Side, Started, Trouble};

/// What is not measured: so long each works first.
const WARM_UP_SECONDS: f64 = 0.05;

/// A server and its client, which works only while it is told to.
pub(crate) struct Ends {
    client: Started,
    server: Daemon,
}

impl Ends {
    /// Starts both, `client` with its arguments, which follow the port. Of its connections at least `accelerated` have to be,
    /// if both ends are.
    pub(crate) fn begin(
        rig: &Rig,
        side: Side,
        server: &str,
        client: &[&str],
        accelerated: u64,
    ) -> Result<Self, Trouble> {
        let port = rig.free_port();
        let text = port.to_string();
        let server = rig.serve(rig.own_end(Role::Server, side, &[server, &text]), port)?;
        let mut arguments = vec![client[0], &text];
        arguments.extend(&client[1..]);
        let client = rig.start(rig.own_end(Role::Client, side, &arguments))?;
        let mut ends = Ends { client, server };
        ends.measure(rig, WARM_UP_SECONDS)?;
        rig.check(side, &ends.server, accelerated)?;
        Ok(ends)
    }

    /// The rate of so many seconds.
    pub(crate) fn measure(&mut self, rig: &Rig, seconds: f64) -> Result<f64, Trouble> {
        let answer = rig.ask(&mut self.client, &seconds.to_string())?;
        answer.parse().map_err(|_| format!("the client printed '{answer}'"))
    }

    /// Of both processes, client first.
    pub(crate) fn ids(&self) -> [u32; 2] {
        [self.client.id(), self.server.id()]
    }

    /// Fails unless the client is content at its end.
    pub(crate) fn end(self, rig: &Rig) -> Result<(), Trouble> {
        rig.finish(self.client)
    }
}

/// The rates of both in `turns` turns of so many seconds each. Who begins changes.
pub(crate) fn alternate(
    rig: &Rig,
    one: &mut Ends,
    other: &mut Ends,
    turns: u64,
    seconds: f64,
) -> Result<Vec<(f64, f64)>, Trouble> {
    (0..turns)
        .map(|turn| {
            if turn % 2 == 0 {
                let first = one.measure(rig, seconds)?;
                Ok((first, other.measure(rig, seconds)?))
            } else {
                let first = other.measure(rig, seconds)?;
                Ok((one.measure(rig, seconds)?, first))
            }
        })
        .collect()
}
