//! What applications do and what they see, the same above every TCP.

use std::io::ErrorKind;
use std::time::Instant;

/// What an application does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Does not wait for a connection before the next step, as every script does that begins otherwise.
    AtOnce,
    /// Sends so many bytes; goes on once TCP has taken them all, or the connection is broken.
    Send(u64),
    /// Sends until TCP takes no more for a while.
    SendUntilStuck,
    /// Sends from now on, however much, and goes on at once.
    Flood,
    /// Sends one byte as urgent (the kernel only).
    SendUrgent,
    /// Takes no more bytes.
    StopReading,
    /// Takes bytes again, as every application does at first.
    ReadOn,
    /// Waits until so many bytes have come since the beginning.
    AwaitBytes(u64),
    /// Waits until it has seen this.
    Await(Seen),
    /// Ends its direction.
    End,
    /// Resets the connection, and sees nothing any more.
    Reset,
    /// Closes both directions, and sees nothing any more (the kernel only).
    Leave,
    /// Waits until the other has come as far: to its step of this name with the same number.
    Meet,
    /// Waits until the cable has been silent for a while.
    Settle,
    /// Waits so many milliseconds.
    Pause(u64),
    /// Holds up whatever its TCP sends.
    Hold,
    /// Lets it through again.
    Release,
}

/// What an application sees of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The connection that it asked for is there.
    Connected,
    /// A connection has come.
    Accepted,
    /// The connection that it asked for was refused.
    Refused,
    /// Bytes, any number.
    Bytes,
    /// The peer's direction has ended.
    End,
    /// Both directions have ended and the peer knows.
    Closed,
    /// The peer has reset the connection.
    Reset,
    /// The connection broke in another way.
    Failed(ErrorKind),
}

/// What two applications do.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What happens.
    pub name: &'static str,
    /// Somebody listens where the other connects to.
    pub listens: bool,
    /// What each does. Either is the one that connects, in turn; the first where there will be no connection.
    pub scripts: [&'static [Step]; 2],
}

impl Scenario {
    /// Whether the second script is also one for the side that connects.
    pub(super) fn is_for_both(&self) -> bool {
        self.listens && self.scripts[0].first() != Some(&Step::AtOnce)
    }
}

/// An application above one end.
#[derive(Debug)]
pub struct Application {
    pub(super) script: &'static [Step],
    /// The step that it is at.
    pub(super) at: usize,
    /// When that began, if it has.
    pub(super) begun: Option<Instant>,
    /// Times that it was to meet the other.
    pub(super) meetings: u64,
    /// Tells its bytes from the other's.
    side: usize,
    /// Bytes that it wants to have sent, and that TCP has taken.
    pub(super) goal: u64,
    pub(super) sent: u64,
    /// When TCP took bytes last.
    pub(super) sent_at: Instant,
    pub(super) reads: bool,
    /// Has ended its direction.
    pub(super) has_ended: bool,
    /// Has reset or left the connection.
    pub(super) is_gone: bool,
    pub(super) received: u64,
    pub(super) seen: Vec<Seen>,
    /// The first byte that was not what the peer sent.
    pub(super) wrong: Option<String>,
}

impl Application {
    pub(super) fn new(script: &'static [Step], side: usize) -> Self {
        Self {
            script,
            at: 0,
            begun: None,
            meetings: 0,
            side,
            goal: 0,
            sent: 0,
            sent_at: Instant::now(),
            reads: true,
            has_ended: false,
            is_gone: false,
            received: 0,
            seen: Vec::new(),
            wrong: None,
        }
    }

    /// Takes what the peer has sent.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        for (position, &byte) in bytes.iter().enumerate() {
            let offset = self.received + position as u64;
            let expected = byte_at(1 - self.side, offset);
            if byte != expected && self.wrong.is_none() {
                self.wrong = Some(format!("byte {offset} of the stream is {byte:#x}, not {expected:#x}"));
            }
        }
        self.received += bytes.len() as u64;
        if self.seen.last() != Some(&Seen::Bytes) {
            self.seen.push(Seen::Bytes);
        }
    }

    /// Writes what it sends from `start` on.
    pub(super) fn fill(side: usize, start: u64, out: &mut [u8]) {
        for (position, byte) in out.iter_mut().enumerate() {
            *byte = byte_at(side, start + position as u64);
        }
    }

    /// TCP has taken so many bytes more.
    pub(super) fn note_sent(&mut self, count: u64) {
        self.sent += count;
        self.sent_at = Instant::now();
    }

    pub(super) fn see(&mut self, seen: Seen) {
        self.seen.push(seen);
    }

    pub(super) fn has_seen(&self, seen: Seen) -> bool {
        self.seen.contains(&seen)
    }

    /// Before there is a connection, or will be none, there is nothing to do but to wait.
    pub(super) fn waits_for_connection(&self) -> bool {
        self.seen.is_empty() && self.script.first() != Some(&Step::AtOnce)
    }

    /// Nothing can be sent any more.
    pub(super) fn is_broken(&self) -> bool {
        self.is_gone || self.seen.iter().any(|seen| matches!(seen, Seen::Refused | Seen::Reset | Seen::Failed(_)))
    }

    pub(super) fn side(&self) -> usize {
        self.side
    }

    /// What it saw, in words that are the same for every run that went alike; `offered` is what the peer has sent.
    pub(super) fn account(&self, offered: u64) -> Vec<String> {
        let line = |seen: &Seen| match seen {
            Seen::End if self.received == offered => "End behind all bytes".to_owned(),
            Seen::End => format!("End behind {} of {offered} bytes", self.received),
            seen => format!("{seen:?}"),
        };
        self.seen.iter().map(line).collect()
    }
}

/// The byte at `offset` of what `side` sends.
fn byte_at(side: usize, offset: u64) -> u8 {
    (((offset << 1) | side as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}
