//! One direction of one connection: what is in flight, what is lost, what may be sent, when a timer fires.
//!
//! Pure arithmetic on offsets of the stream: no packets and no bytes. Loss is found by time (RFC 8985) from selective
//! acknowledgements (RFC 2018), by duplicate acknowledgements where the peer sends none (RFC 5681, RFC 6582), by a tail loss
//! probe, and at last by a timeout (RFC 6298). While it is repaired RFC 9937 says how much may leave; if it was none, the
//! window is given back (RFC 5682, RFC 3708).
//!
//! - [`scoreboard`]: what is in flight; [`rack`]: what of it is late; [`rtt`]: how long a round trip takes.
//! - [`congestion`]: how much may be in flight; [`recovery`]: how much while a loss is repaired; [`probe`]: the tail.
//! - `acknowledge`, `timers`: what an acknowledgement and a deadline come to.

mod acknowledge;
mod congestion;
mod probe;
mod rack;
mod recovery;
mod rtt;
mod scoreboard;
#[cfg(test)]
mod tests;
mod timers;
mod undo;

use std::ops::Range;
use std::time::Duration;

use super::config::CongestionControl;
use crate::time::Instant;
use congestion::Window;
use probe::{Due, Probe};
use rack::Rack;
use recovery::{Forward, Kind, Recovery};
use rtt::RoundTrip;
use scoreboard::{InFlight, Scoreboard};
use undo::Undo;

/// RFC 5681 §3.2: so many duplicate acknowledgements mean a loss.
const DUPLICATES: u32 = 3;

/// RFC 5682 §2.1 step 2b: new segments that are tried after a timeout.
const FORWARD_SEGMENTS: u8 = 2;

/// What a sender is told once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SenderConfig {
    pub(crate) congestion_control: CongestionControl,
    pub(crate) min_retransmission_timeout: Duration,
    pub(crate) user_timeout: Duration,
}

/// What the handshake came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Established {
    /// Bytes of payload in the largest segment.
    pub(crate) segment_size: usize,
    /// The window of the peer's last handshake segment.
    pub(crate) window_bytes: u64,
    /// The peer sends selective acknowledgements.
    pub(crate) sack: bool,
    /// How long the handshake took, if nothing of it was sent twice.
    pub(crate) first_round_trip: Option<Duration>,
}

/// What the peer said. Nothing of it need be true.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged<'a> {
    /// Everything before has arrived.
    pub(crate) through: u64,
    /// Everything before is welcome.
    pub(crate) window_end: u64,
    /// What has arrived behind gaps, the lowest first.
    pub(crate) sack: &'a [Range<u64>],
    /// RFC 2883 §4: what has arrived twice.
    pub(crate) duplicate: Option<Range<u64>>,
    /// The segment carried data: then it is no duplicate acknowledgement.
    pub(crate) carries_data: bool,
}

/// What to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transmission {
    /// These bytes once more; [`Sender::sent_again`] follows.
    Retransmit { start: u64, length: u32 },
    /// New bytes, at most so many; [`Sender::sent_new`] follows.
    New { room: usize },
}

/// What a timer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeoutOutcome {
    /// It was early.
    Nothing,
    /// [`Sender::poll_segment`] has something.
    RetransmitDue,
    /// The peer has acknowledged nothing for the user timeout.
    GiveUp,
}

/// One direction of one connection. See the [module](self).
pub(crate) struct Sender {
    segments: Scoreboard,
    /// Everything before was acknowledged.
    acknowledged: u64,
    next: u64,
    window_end: u64,
    segment_size: usize,
    has_sack: bool,
    window: Window,
    round_trip: RoundTrip,
    rack: Rack,
    probe: Probe,
    /// While a loss is being repaired.
    recovery: Option<Recovery>,
    undo: Undo,
    /// RFC 6582 §3.2: where the last recovery ended; `None`: there was none.
    recovered: Option<u64>,
    /// A timeout has passed, and the oldest segment has not left since.
    is_front_due: bool,
    /// Duplicate acknowledgements since the last that moved on, without selective ones.
    duplicates: u32,
    /// RFC 9937: bytes that these say have arrived.
    presumed: u64,
    /// RFC 8985 §6.2 step 5: when the next one counts as lost.
    reordering_deadline: Option<Instant>,
    timeout_at: Option<Instant>,
    probe_at: Option<Instant>,
    /// Since when nothing was acknowledged, nor heard from a peer whose window is too small for anything.
    silent_since: Instant,
    /// The window is too small for the oldest segment in flight, by what the peer said last.
    is_shrunk: bool,
    last_sent: Instant,
    user_timeout: Duration,
    retransmitted: u64,
    timeouts: u64,
}

impl Sender {
    pub(crate) fn new(config: &SenderConfig, now: Instant, established: Established) -> Self {
        let mut round_trip = RoundTrip::new(config.min_retransmission_timeout);
        let mut rack = Rack::default();
        if let Some(sample) = established.first_round_trip {
            round_trip.measure(sample, now);
            rack.set_shortest(sample);
        }
        Self {
            segments: Scoreboard::default(),
            acknowledged: 0,
            next: 0,
            window_end: established.window_bytes,
            segment_size: established.segment_size,
            has_sack: established.sack,
            window: Window::new(config.congestion_control, established.segment_size),
            round_trip,
            rack,
            probe: Probe::default(),
            recovery: None,
            undo: Undo::default(),
            recovered: None,
            is_front_due: false,
            duplicates: 0,
            presumed: 0,
            reordering_deadline: None,
            timeout_at: None,
            probe_at: None,
            silent_since: now,
            is_shrunk: false,
            last_sent: now,
            user_timeout: config.user_timeout,
            retransmitted: 0,
            timeouts: 0,
        }
    }

    /// Everything before has been acknowledged.
    pub(crate) const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The offset of the next new byte.
    pub(crate) const fn next_offset(&self) -> u64 {
        self.next
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.segments.is_empty()
    }

    /// Segments that were sent again.
    pub(crate) const fn retransmitted_segments(&self) -> u64 {
        self.retransmitted
    }

    /// Behind the last byte that the peer welcomes.
    pub(crate) const fn window_end(&self) -> u64 {
        self.window_end
    }

    /// Bytes that the peer still welcomes behind what was sent.
    pub(crate) const fn window_room(&self) -> u64 {
        self.window_end.saturating_sub(self.next)
    }

    pub(crate) fn retransmission_timeout(&self) -> Duration {
        self.round_trip.timeout()
    }

    /// RFC 6675 §4: bytes that are believed to be on their way.
    #[inline]
    fn pipe(&self) -> u64 {
        // RFC 3042 §2: a duplicate acknowledgement says that a segment has arrived, so that another may leave.
        self.segments.pipe().saturating_sub(self.presumed)
    }

    /// What may be sent now.
    pub(crate) fn poll_segment(&mut self, now: Instant) -> Option<Transmission> {
        let full = self.segment_size as u64;
        if let Some(due) = self.probe.due()
            && let Some(probe) = self.poll_probe(due)
        {
            return Some(probe);
        }
        let pipe = self.pipe();
        let room = match &self.recovery {
            Some(Recovery { kind: Kind::Fast(reduction), .. }) => {
                if reduction.is_rescue_due
                    && let Some(rescue) = self.tail()
                {
                    return Some(rescue);
                }
                reduction.allowance()
            }
            // RFC 5682 §2.1 step 2b: two new segments in place of old ones; then the next acknowledgement is awaited.
            Some(Recovery { kind: Kind::Timeout(Forward::Sending { .. }), .. }) => {
                if self.window_room() >= full {
                    return Some(Transmission::New { room: self.segment_size });
                }
                self.give_up_forward();
                self.window.bytes().saturating_sub(pipe)
            }
            Some(Recovery { kind: Kind::Timeout(Forward::Watching), .. }) => return None,
            _ => self.window.bytes().saturating_sub(pipe),
        };
        if self.segments.lost_bytes() > 0 {
            // With nothing on its way no acknowledgement would ever let anything out.
            if room < full && pipe > 0 && !self.is_front_due {
                self.window.note_full();
                return None;
            }
            let lost = *self.segments.first_lost()?;
            return Some(Transmission::Retransmit { start: lost.start, length: self.piece(&lost) });
        }
        self.poll_new(now, room)
    }

    #[inline(always)]
    fn poll_new(&mut self, now: Instant, room: u64) -> Option<Transmission> {
        let full = self.segment_size as u64;
        let is_empty = self.segments.is_empty();
        let mut room = room;
        if is_empty && now.saturating_since(self.last_sent) > self.round_trip.timeout() {
            self.window.restart_after_idle();
            room = room.min(self.window.bytes());
        }
        if room < full {
            self.window.note_full();
        }
        let room = room.min(self.window_room()).min(full);
        (room == full || (room > 0 && is_empty)).then_some(Transmission::New { room: room as usize })
    }

    /// RFC 8985 §7.3: a probe may exceed the congestion window by one segment, but not the peer's.
    fn poll_probe(&mut self, due: Due) -> Option<Transmission> {
        if due == Due::New && self.window_room() >= self.segment_size as u64 {
            return Some(Transmission::New { room: self.segment_size });
        }
        let last = self.tail();
        if last.is_none() {
            self.probe.set_due(None);
        }
        last
    }

    /// The end of what is in flight once more; `None` if it has arrived or is lost.
    fn tail(&self) -> Option<Transmission> {
        let last = self.segments.back().filter(|last| last.is_open())?;
        let length = self.piece(last);
        Some(Transmission::Retransmit { start: last.end() - u64::from(length), length })
    }

    fn piece(&self, segment: &InFlight) -> u32 {
        segment.length.min(self.segment_size as u32)
    }

    /// There is nothing new to send, though [`Self::poll_segment`] offered room. Whether it offers something else now.
    #[inline]
    pub(crate) fn handle_drained(&mut self, now: Instant) -> bool {
        if self.probe.due() == Some(Due::New) {
            // RFC 8985 §7.3: no new data: the last segment it is.
            self.probe.set_due(Some(Due::Last));
            return self.tail().is_some();
        }
        self.recovery.is_some() && self.handle_drained_recovery(now)
    }

    /// No probe is due and no loss is being repaired.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.recovery.is_none() && self.probe.due().is_none()
    }

    fn handle_drained_recovery(&mut self, now: Instant) -> bool {
        let smoothed = self.round_trip.smoothed();
        let is_late = self.segments.back().is_some_and(|last| last.is_open() && last.sent + smoothed < now);
        match &mut self.recovery {
            Some(Recovery { kind: Kind::Fast(reduction), .. }) => {
                reduction.take_rescue(self.acknowledged, is_late) && is_late
            }
            Some(Recovery { kind: Kind::Timeout(Forward::Sending { .. }), .. }) => {
                self.give_up_forward();
                self.segments.lost_bytes() > 0
            }
            _ => false,
        }
    }

    /// RFC 5682 §2.1 step 2b: with nothing new to send nothing can be found out, unless something was sent already.
    fn give_up_forward(&mut self) {
        if let Some(Recovery { kind: Kind::Timeout(forward), .. }) = &mut self.recovery
            && let Forward::Sending { left } = *forward
        {
            *forward = if left < FORWARD_SEGMENTS { Forward::Watching } else { Forward::Off };
        }
    }

    /// `length` new bytes from `start` on have left.
    #[inline(always)]
    pub(crate) fn sent_new(&mut self, start: u64, length: u32, now: Instant) {
        debug_assert_eq!(start, self.next);
        let was_idle = self.segments.is_empty();
        if was_idle {
            self.silent_since = now;
        }
        // Of a burst that leaves at one time the second segment is the last that moves the probe.
        let is_armed = self.last_sent == now && self.probe_at.is_some() && !self.segments.is_alone();
        self.segments.push(start, length, now);
        self.next = start + u64::from(length);
        self.last_sent = now;
        if let Some(recovery) = &mut self.recovery {
            recovery.note_new(u64::from(length));
        }
        if self.probe.due().is_some() {
            self.probe.note_sent(self.next, false);
            // RFC 8985 §7.3: after a probe the timeout runs anew.
            self.timeout_at = Some(self.round_trip.timeout_at(now));
            self.probe_at = None;
        } else if self.timeout_at.is_none() || was_idle {
            self.arm(now);
        } else if !is_armed {
            self.arm_probe(now);
        }
    }

    /// A piece of what is in flight has left again: the front of a lost segment, or the end of the last.
    pub(crate) fn sent_again(&mut self, start: u64, length: u32, now: Instant) {
        self.retransmitted += 1;
        self.last_sent = now;
        self.segments.resend(start, length, now);
        self.is_front_due = false;
        if self.probe.due().is_some() {
            self.probe.note_sent(self.next, true);
            self.timeout_at = Some(self.round_trip.timeout_at(now));
            self.probe_at = None;
            return;
        }
        self.undo.note_copy(start..start + u64::from(length));
        if let Some(Recovery { kind: Kind::Fast(reduction), .. }) = &mut self.recovery {
            reduction.note_sent(u64::from(length));
            reduction.is_rescue_due = false;
        }
        // RFC 6298 §5: never again sooner than a timeout after it left last.
        if self.timeout_at.is_none() || start == self.acknowledged {
            self.timeout_at = Some(self.repeat_at(now));
        }
    }
}

#[cfg(test)]
impl Sender {
    /// Checks everything that is counted against what is there.
    fn check(&self) {
        self.segments.check(self.acknowledged, self.next);
        assert!(self.segments.is_empty() || self.next_deadline().is_some(), "what is in flight has a deadline");
    }
}
