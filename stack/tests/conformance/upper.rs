//! What is above the engines: it checks every byte as it comes.

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use softrdma_stack::stream::{Abort, Record, Source, StreamEvent, StreamId, Streams};

/// How a sink takes what it is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appetite {
    /// All.
    All,
    /// A random part, now and then nothing; asks for more by itself.
    Some,
    /// Nothing.
    None,
    /// Nothing, ever again.
    Abort,
}

/// The layer above one engine.
pub(crate) struct Upper {
    random: SmallRng,
    /// How sinks take what they are offered, unless said otherwise.
    pub(crate) appetite: Appetite,
    pub(crate) appetites: BTreeMap<u64, Appetite>,
    pub(crate) events: Vec<StreamEvent>,
    sinks: BTreeMap<u64, Taken>,
    sources: BTreeMap<u64, Sending>,
    resumptions: Vec<StreamId>,
    /// Times that bytes were offered.
    pub(crate) offers: u64,
    acknowledgements: u64,
}

#[derive(Default)]
struct Taken {
    count: u64,
    has_aborted: bool,
    /// Bytes of the last offer that were left.
    left: usize,
}

/// A source, and what the engine said last.
pub(crate) struct Sending {
    pub(crate) source: Pattern,
    pub(crate) is_waiting: bool,
    pub(crate) is_gone: bool,
}

/// Bytes that follow from their place in the stream.
pub(crate) struct Pattern {
    random: SmallRng,
    total: u64,
    committed: VecDeque<Record>,
    sent: u64,
    acknowledged: u64,
}

impl Upper {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: SmallRng::seed_from_u64(seed),
            appetite: Appetite::All,
            appetites: BTreeMap::new(),
            events: Vec::new(),
            sinks: BTreeMap::new(),
            sources: BTreeMap::new(),
            resumptions: Vec::new(),
            offers: 0,
            acknowledgements: 0,
        }
    }

    /// Sends `count` more bytes on `stream`.
    pub(crate) fn send(&mut self, stream: StreamId, count: u64) {
        let random = SmallRng::seed_from_u64(self.random.random());
        let sending = self.sources.entry(key(stream)).or_insert_with(|| Sending {
            source: Pattern { random, total: 0, committed: VecDeque::new(), sent: 0, acknowledged: 0 },
            is_waiting: false,
            is_gone: false,
        });
        sending.source.total += count;
    }

    pub(crate) fn source(&self, stream: StreamId) -> &Sending {
        &self.sources[&key(stream)]
    }

    /// Bytes that the engine took.
    pub(crate) fn sent(&self, stream: StreamId) -> u64 {
        self.sources.get(&key(stream)).map_or(0, |sending| sending.source.sent)
    }

    pub(crate) fn received(&self, stream: StreamId) -> u64 {
        self.sinks.get(&key(stream)).map_or(0, |taken| taken.count)
    }

    /// Bytes that were offered last and not taken.
    pub(crate) fn left(&self, stream: StreamId) -> usize {
        self.sinks.get(&key(stream)).map_or(0, |taken| taken.left)
    }

    pub(crate) fn has(&self, event: &StreamEvent) -> bool {
        self.events.contains(event)
    }

    /// Streams that came to a listener, in order.
    pub(crate) fn incoming(&self) -> Vec<StreamId> {
        let stream = |event: &StreamEvent| match event {
            StreamEvent::Incoming { stream, .. } => Some(*stream),
            _ => None,
        };
        self.events.iter().filter_map(stream).collect()
    }

    /// A number that changes whenever anything happens.
    pub(crate) fn progress(&self) -> u64 {
        let sent: u64 = self.sources.values().map(|sending| sending.source.sent).sum();
        let received: u64 = self.sinks.values().map(|taken| taken.count).sum();
        sent + received + self.offers + self.events.len() as u64 + self.acknowledgements
    }

    /// Streams whose sink left something and wants it again.
    pub(crate) fn resumptions(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.resumptions)
    }

    /// Sources that have something and that the engine has not refused.
    pub(crate) fn sources_to_serve(&mut self) -> impl Iterator<Item = (StreamId, &mut Sending)> {
        self.sources
            .iter_mut()
            .filter(|(_, sending)| !sending.is_waiting && !sending.is_gone && sending.source.has_more())
            .map(|(key, sending)| (stream(*key), sending))
    }

    pub(crate) fn describe(&self) -> String {
        let sent: Vec<_> = self.sources.values().map(|sending| (sending.source.sent, sending.is_waiting)).collect();
        let received: Vec<_> = self.sinks.values().map(|taken| (taken.count, taken.left)).collect();
        format!("sent {sent:?}, received {received:?}, events {:?}", self.events)
    }
}

impl Streams for Upper {
    fn handle_bytes(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<usize, Abort> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        assert!(total > 0, "an empty offer");
        self.offers += 1;
        let taken = self.sinks.entry(key(stream)).or_default();
        assert!(!taken.has_aborted, "an offer after the sink gave up");
        assert!(total >= taken.left, "{total} bytes are offered, of which {} were left before", taken.left);
        let appetite = self.appetites.get(&key(stream)).copied().unwrap_or(self.appetite);
        let count = match appetite {
            Appetite::All => total,
            Appetite::None => 0,
            Appetite::Some if self.random.random_bool(0.3) => 0,
            Appetite::Some => self.random.random_range(0..=total),
            Appetite::Abort => {
                taken.has_aborted = true;
                return Err(Abort);
            }
        };
        // What is left is looked at too: it has to be the same when it comes again.
        for (position, byte) in parts.iter().flat_map(|part| part.iter()).enumerate() {
            let offset = taken.count + position as u64;
            assert_eq!(*byte, byte_at(offset), "byte {offset} of the stream");
        }
        taken.count += count as u64;
        taken.left = total - count;
        if taken.left > 0 && appetite == Appetite::Some {
            self.resumptions.push(stream);
        }
        Ok(count)
    }

    fn with_source(&mut self, stream: StreamId, use_source: &mut dyn FnMut(&mut dyn Source)) {
        if let Some(sending) = self.sources.get_mut(&key(stream)) {
            let before = sending.source.acknowledged;
            use_source(&mut sending.source);
            self.acknowledgements += sending.source.acknowledged - before;
        }
    }

    fn handle_event(&mut self, event: StreamEvent) {
        if let StreamEvent::Writable { stream } = event {
            let sending = self.sources.get_mut(&key(stream)).expect("Writable for a stream that sends");
            assert!(sending.is_waiting, "Writable though nothing was refused");
            sending.is_waiting = false;
        }
        if let StreamEvent::PeerClosed { stream } = event {
            assert_eq!(self.left(stream), 0, "PeerClosed before the last byte was consumed");
        }
        self.events.push(event);
    }
}

impl Pattern {
    fn has_more(&self) -> bool {
        self.sent < self.total
    }
}

impl Source for Pattern {
    fn next(&mut self, room: usize) -> Option<Record> {
        let left = self.total - self.sent;
        let most = if self.random.random_bool(0.2) { 100 } else { 70_000 };
        let length = self.random.random_range(1..=most).min(left).min(room as u64);
        if length == 0 || (room < 60 && length < left && self.random.random_bool(0.5)) {
            return None;
        }
        let record = Record { start: self.sent, length: length as u32 };
        self.sent += length;
        self.committed.push_back(record);
        Some(record)
    }

    fn write(&mut self, start: u64, out: &mut [u8]) {
        assert!(start >= self.acknowledged, "{start} was acknowledged, up to {}", self.acknowledged);
        assert!(start + out.len() as u64 <= self.sent, "{} bytes from {start} of {}", out.len(), self.sent);
        for (position, byte) in out.iter_mut().enumerate() {
            *byte = byte_at(start + position as u64);
        }
    }

    fn handle_acknowledged(&mut self, through: u64) {
        assert!(through > self.acknowledged && through <= self.sent, "{through} of {}", self.sent);
        self.acknowledged = through;
        while self.committed.front().is_some_and(|record| record.end() <= through) {
            self.committed.pop_front();
        }
    }
}

/// A source that has nothing.
pub(crate) struct Nothing;

impl Source for Nothing {
    fn next(&mut self, _room: usize) -> Option<Record> {
        None
    }

    fn write(&mut self, _start: u64, _out: &mut [u8]) {}

    fn handle_acknowledged(&mut self, _through: u64) {}
}

/// The byte at `offset` of every stream.
fn byte_at(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

pub(crate) fn key(stream: StreamId) -> u64 {
    u64::from(stream.generation) << 32 | u64::from(stream.index)
}

fn stream(key: u64) -> StreamId {
    StreamId { index: key as u32, generation: (key >> 32) as u32 }
}
