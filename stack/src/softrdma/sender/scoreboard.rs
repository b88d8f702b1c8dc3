//! What is in flight: which of it has arrived, which of it is believed lost.
//!
//! Segments lie in the order of the stream. RFC 8985 §6.2 wants them in the order in which they left as well: for segments that
//! left once that is the same order, so one place in it is enough ([`Scoreboard::settled`]); those that left again stand in a
//! queue beside it. Nothing here goes through all segments but what follows a timeout or takes back a mistake.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use super::rack::Rack;
use crate::time::Instant;

/// A stretch of the stream that left as one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InFlight {
    pub(super) start: u64,
    pub(super) length: u32,
    /// So many bytes from `start` on have arrived without a gap, and perhaps more; zero unless it has arrived.
    sacked_run: u32,
    /// When it left last.
    pub(super) sent: Instant,
    pub(super) is_sacked: bool,
    pub(super) is_lost: bool,
    /// It left more than once.
    pub(super) is_repeated: bool,
}

impl InFlight {
    pub(super) const fn end(&self) -> u64 {
        self.start + self.length as u64
    }

    /// It may still be on its way.
    pub(super) const fn is_open(&self) -> bool {
        !self.is_sacked && !self.is_lost
    }
}

/// What one acknowledgement said that was not known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delivered {
    /// Bytes by which the cumulative acknowledgement has moved on.
    pub(super) advanced: u64,
    /// Bytes that have arrived: RFC 9937's DeliveredData.
    pub(super) bytes: u64,
    /// Something arrived behind a gap.
    pub(super) is_selective: bool,
    /// The end of the highest segment that has arrived.
    pub(super) highest: u64,
    /// A segment is among them that left once only.
    pub(super) has_original: bool,
    /// The cumulative acknowledgement covers one that left again.
    pub(super) has_copy: bool,
    /// How long the latest segment took that left once only.
    pub(super) sample: Option<Duration>,
}

impl Delivered {
    fn note(&mut self, segment: &InFlight, now: Instant) {
        self.bytes += u64::from(segment.length);
        self.highest = self.highest.max(segment.end());
        if !segment.is_repeated {
            self.has_original = true;
            self.sample = Some(now.saturating_since(segment.sent));
        }
    }
}

/// Everything that was sent and not cumulatively acknowledged. See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    segments: VecDeque<InFlight>,
    /// Segments that left again, by the time they left: when, and where they end. Those that have arrived or were lost since
    /// are passed over when they come to the front.
    copies: VecDeque<(Instant, u64)>,
    /// Where lost segments begin, the lowest first. Those that are not lost any more are passed over.
    lost: BinaryHeap<Reverse<u64>>,
    /// Everything before left again, has arrived or is lost.
    settled: u64,
    pipe: u64,
    lost_bytes: u64,
    sacked_segments: usize,
}

impl Scoreboard {
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// RFC 6675 §4: bytes that are believed to be on their way.
    #[inline]
    pub(super) const fn pipe(&self) -> u64 {
        self.pipe
    }

    #[inline]
    pub(super) const fn lost_bytes(&self) -> u64 {
        self.lost_bytes
    }

    /// RFC 8985 §5.3: segments that have arrived behind gaps.
    #[inline]
    pub(super) const fn sacked_segments(&self) -> usize {
        self.sacked_segments
    }

    pub(super) fn front(&self) -> Option<&InFlight> {
        self.segments.front()
    }

    pub(super) fn back(&self) -> Option<&InFlight> {
        self.segments.back()
    }

    /// One segment is in flight.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        self.segments.len() == 1
    }

    /// Some of it may be missing: something arrived behind it, or it left again.
    #[inline]
    pub(super) fn has_suspects(&self) -> bool {
        self.sacked_segments > 0 || !self.copies.is_empty()
    }

    /// `length` new bytes from `start` on have left.
    #[inline]
    pub(super) fn push(&mut self, start: u64, length: u32, now: Instant) {
        self.segments.push_back(InFlight {
            start,
            length,
            sacked_run: 0,
            sent: now,
            is_sacked: false,
            is_lost: false,
            is_repeated: false,
        });
        self.pipe += u64::from(length);
    }

    /// Forgets everything before `through`.
    #[inline]
    pub(super) fn take_cumulative(&mut self, now: Instant, through: u64, rack: &mut Rack, news: &mut Delivered) {
        while let Some(segment) = self.segments.front_mut() {
            if segment.start >= through {
                break;
            }
            let whole = segment.end() <= through;
            let counted = segment.end().min(through) - segment.start;
            if segment.is_sacked {
                self.sacked_segments -= usize::from(whole);
            } else if segment.is_lost {
                self.lost_bytes -= counted;
            } else {
                self.pipe -= counted;
            }
            if !whole {
                self.trim_front(counted as u32, news);
                break;
            }
            let segment = *segment;
            self.segments.pop_front();
            if !segment.is_sacked {
                news.has_copy |= segment.is_repeated;
                news.note(&segment, now);
                rack.note_delivered(&segment, now);
            }
        }
        while self.copies.front().is_some_and(|(_, end)| *end <= through) {
            self.copies.pop_front();
        }
    }

    /// The first `count` bytes of the first segment have arrived.
    fn trim_front(&mut self, count: u32, news: &mut Delivered) {
        let Some(segment) = self.segments.front_mut() else { return };
        segment.start += u64::from(count);
        segment.length -= count;
        if segment.is_sacked {
            segment.sacked_run -= count;
        } else {
            news.bytes += u64::from(count);
        }
        if segment.is_lost {
            self.lost.push(Reverse(segment.start));
        }
    }

    /// RFC 2018 §8: marks what arrived behind gaps.
    pub(super) fn take_selective(&mut self, now: Instant, range: &Range<u64>, rack: &mut Rack, news: &mut Delivered) {
        let first = self.segments.partition_point(|segment| segment.start < range.start);
        let mut index = first;
        while let Some(segment) = self.segments.get_mut(index) {
            if segment.end() > range.end {
                break;
            }
            if segment.is_sacked {
                // What earlier acknowledgements said is not gone through again.
                let known = segment.start + u64::from(segment.sacked_run);
                index = self.index_of(known).max(index + 1);
                continue;
            }
            if segment.is_lost {
                self.lost_bytes -= u64::from(segment.length);
            } else {
                self.pipe -= u64::from(segment.length);
            }
            segment.is_lost = false;
            segment.is_sacked = true;
            segment.sacked_run = segment.length;
            self.sacked_segments += 1;
            news.is_selective = true;
            let segment = *segment;
            news.note(&segment, now);
            rack.note_delivered(&segment, now);
            index += 1;
        }
        if index > first {
            let end = self.segments[index - 1].end();
            let first = &mut self.segments[first];
            first.sacked_run = u32::try_from(end - first.start).unwrap_or(first.length);
        }
    }

    fn index_of(&self, start: u64) -> usize {
        self.segments.partition_point(|segment| segment.start < start)
    }

    /// RFC 8985 §6.2 step 5: a segment is lost when one that left later has arrived and `patience` has passed since it left.
    /// Whether any is; and when the next may be.
    pub(super) fn detect_losses(&mut self, now: Instant, rack: &Rack, patience: Duration) -> (bool, Option<Instant>) {
        let Some(latest) = rack.latest() else { return (false, None) };
        let before = self.lost_bytes;
        let mut waits = false;
        // Those that left once only: in the order of the stream.
        let mut index = self.index_of(self.settled);
        while let Some(segment) = self.segments.get(index) {
            if segment.is_open() && !segment.is_repeated {
                if (segment.sent, segment.end()) >= latest {
                    break;
                }
                if segment.sent + patience > now {
                    waits = true;
                    break;
                }
                self.mark_lost(index);
            }
            index += 1;
            self.settled = self.segments[index - 1].end();
        }
        while let Some(&(sent, end)) = self.copies.front() {
            if let Some(index) = self.find_copy(sent, end) {
                if (sent, end) >= latest {
                    break;
                }
                if sent + patience > now {
                    waits = true;
                    break;
                }
                self.mark_lost(index);
            }
            self.copies.pop_front();
        }
        // By then all that left before the latest arrival count as lost, so one timer is enough.
        (self.lost_bytes > before, waits.then(|| latest.0 + patience))
    }

    /// The segment that left again at `sent` and ends at `end`, if nothing is known of it since.
    fn find_copy(&self, sent: Instant, end: u64) -> Option<usize> {
        let index = self.segments.partition_point(|segment| segment.end() < end);
        let segment = self.segments.get(index)?;
        (segment.end() == end && segment.sent == sent && segment.is_repeated && segment.is_open()).then_some(index)
    }

    fn mark_lost(&mut self, index: usize) {
        let segment = &mut self.segments[index];
        debug_assert!(segment.is_open());
        segment.is_lost = true;
        self.pipe -= u64::from(segment.length);
        self.lost_bytes += u64::from(segment.length);
        self.lost.push(Reverse(segment.start));
    }

    /// Believes the first segment lost.
    pub(super) fn mark_front_lost(&mut self) {
        if self.segments.front().is_some_and(InFlight::is_open) {
            self.mark_lost(0);
        }
    }

    /// RFC 8985 §6.3: after a timeout the first segment is lost, and of the others what left more than `patience` ago.
    pub(super) fn mark_overdue(&mut self, now: Instant, patience: Duration) {
        self.mark_front_lost();
        for index in 1..self.segments.len() {
            let segment = &self.segments[index];
            if segment.is_open() && segment.sent + patience <= now {
                self.mark_lost(index);
            }
        }
    }

    /// RFC 2018 §8: the peer has dropped what it had reported: nothing of it counts.
    pub(super) fn forget_selective(&mut self) {
        for segment in self.segments.iter_mut().filter(|segment| segment.is_sacked) {
            segment.is_sacked = false;
            segment.sacked_run = 0;
            self.pipe += u64::from(segment.length);
            if segment.is_repeated {
                self.copies.push_back((segment.sent, segment.end()));
            }
        }
        self.sacked_segments = 0;
        self.settled = 0;
    }

    /// Nothing counts as lost: it may be found again.
    pub(super) fn unmark_lost(&mut self) {
        for segment in self.segments.iter_mut().filter(|segment| segment.is_lost) {
            segment.is_lost = false;
            self.pipe += u64::from(segment.length);
            if segment.is_repeated {
                self.copies.push_back((segment.sent, segment.end()));
            }
        }
        self.lost_bytes = 0;
        self.lost.clear();
        self.settled = 0;
    }

    /// The lowest segment that is lost.
    pub(super) fn first_lost(&mut self) -> Option<&InFlight> {
        if self.lost_bytes == 0 {
            self.lost.clear();
            return None;
        }
        while let Some(&Reverse(start)) = self.lost.peek() {
            let index = self.index_of(start);
            if self.segments.get(index).is_some_and(|segment| segment.start == start && segment.is_lost) {
                return self.segments.get(index);
            }
            self.lost.pop();
        }
        None
    }

    /// `length` bytes from `start` on, the front or the end of a segment, have left again.
    pub(super) fn resend(&mut self, start: u64, length: u32, now: Instant) {
        self.split(start);
        self.split(start + u64::from(length));
        let index = self.index_of(start);
        let Some(segment) = self.segments.get_mut(index).filter(|segment| segment.start == start) else { return };
        segment.is_repeated = true;
        segment.sent = now;
        if segment.is_lost {
            segment.is_lost = false;
            self.lost_bytes -= u64::from(segment.length);
            self.pipe += u64::from(segment.length);
        }
        let end = segment.end();
        self.copies.push_back((now, end));
    }

    /// Segments smaller than before: one that goes across `place` is two from now on.
    fn split(&mut self, place: u64) {
        let Some(index) = self.segments.partition_point(|segment| segment.start < place).checked_sub(1) else { return };
        let front = &mut self.segments[index];
        if front.end() <= place || front.is_sacked {
            return;
        }
        let mut rest = *front;
        front.length = (place - front.start) as u32;
        rest.start = place;
        rest.length -= front.length;
        let front = *front;
        if front.is_lost {
            self.lost.push(Reverse(rest.start));
        } else if front.is_repeated {
            // It stands in the queue by its end: the front takes the place next to it, a little late.
            self.copies.push_back((front.sent, front.end()));
        }
        self.segments.insert(index + 1, rest);
    }
}

#[cfg(test)]
impl Scoreboard {
    /// Counts everything anew, between `acknowledged` and `next`.
    pub(super) fn check(&self, acknowledged: u64, next: u64) {
        let (mut place, mut pipe, mut lost, mut sacked) = (acknowledged, 0, 0, 0);
        for (index, segment) in self.segments.iter().enumerate() {
            assert_eq!(segment.start, place, "no gap, no overlap");
            assert!(segment.length > 0);
            place = segment.end();
            assert!(!(segment.is_sacked && segment.is_lost));
            match (segment.is_sacked, segment.is_lost) {
                (true, _) => sacked += 1,
                (_, true) => lost += u64::from(segment.length),
                _ => pipe += u64::from(segment.length),
            }
            let run_end = segment.start + u64::from(segment.sacked_run);
            let is_run = |other: &&InFlight| other.start < run_end;
            assert!(self.segments.range(index..).take_while(is_run).all(|other| other.is_sacked), "runs have arrived");
            if segment.is_lost {
                assert!(self.lost.iter().any(|Reverse(start)| *start == segment.start), "what is lost is found");
            } else if segment.is_open() && segment.is_repeated {
                assert!(self.copies.contains(&(segment.sent, segment.end())), "copies are in their queue");
            } else if segment.is_open() {
                assert!(segment.start >= self.settled, "originals are before the mark");
            }
        }
        assert_eq!(place, next);
        assert_eq!((self.pipe, self.lost_bytes, self.sacked_segments), (pipe, lost, sacked));
    }
}
