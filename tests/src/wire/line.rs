//! One direction of a wire.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use softrdma_stack::time::Instant;

use super::settings::{Settings, SettingsError, Trouble};

/// Frames on their way at a time; more are dropped as by a full queue. At 1514 bytes that is 100 MB.
const MAX_FRAMES: usize = 65_536;

/// Bytes of an Ethernet header, which corruption spares: a frame for somebody else is a lost frame, not a corrupt one.
const ETHERNET_HEADER: usize = 14;

/// One direction of a wire. What happens to a frame depends on the seed and on how many IP packets came before it, not on the
/// time.
#[derive(Debug)]
pub struct Line {
    settings: Settings,
    random: SmallRng,
    /// When the medium has carried all that waits for it.
    free_at: u64,
    /// Packets that are still to be lost with the one that began the burst.
    burst_left: u32,
    /// Frames on their way by time of arrival; those of one time in the order in which they came.
    flying: BinaryHeap<Reverse<Flight>>,
    sequence: u64,
    frames: Vec<Vec<u8>>,
    unused: Vec<usize>,
    counters: Counters,
}

/// Time of arrival in nanoseconds, number, and which of the line's frames it is.
type Flight = (u64, u64, usize);

/// What a line has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that came in.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that found the queue full.
    pub queue_drops: u64,
    /// Frames lost alone.
    pub lost: u64,
    /// Frames lost in bursts.
    pub lost_in_bursts: u64,
    /// Frames held back.
    pub held_back: u64,
    /// Frames that arrived twice.
    pub duplicated: u64,
    /// Frames with a bit turned.
    pub corrupted: u64,
    /// Frames that went out, second copies included.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Most bytes that waited for the medium.
    pub longest_queue: u64,
    /// How much later than they should frames were taken out, at most and in all.
    pub latest: Duration,
    /// See [`Self::latest`].
    pub late: Duration,
}

/// What is to become of one packet.
struct Fate {
    is_lost: bool,
    held: u64,
    is_doubled: bool,
    /// Which of its bits is turned, as a fraction of all.
    turned: Option<f64>,
}

impl Line {
    /// A line at rest.
    pub fn new(settings: Settings, seed: u64) -> Result<Self, SettingsError> {
        settings.validate()?;
        Ok(Self {
            settings,
            random: SmallRng::seed_from_u64(seed),
            free_at: 0,
            burst_left: 0,
            flying: BinaryHeap::new(),
            sequence: 0,
            frames: Vec::new(),
            unused: Vec::new(),
            counters: Counters::default(),
        })
    }

    /// Takes a frame, from its Ethernet header on, without its check sequence.
    pub fn handle_frame(&mut self, now: Instant, frame: &[u8]) {
        let now = now.as_nanoseconds();
        self.counters.frames += 1;
        self.counters.bytes += frame.len() as u64;
        let waiting = self.settings.carried(self.free_at.saturating_sub(now)) + frame.len() as u64;
        if waiting > self.settings.queue_bytes || self.flying.len() + 1 >= MAX_FRAMES {
            self.counters.queue_drops += 1;
            return;
        }
        self.counters.longest_queue = self.counters.longest_queue.max(waiting);
        self.free_at = self.free_at.max(now) + self.settings.transmission(frame.len());
        let fate = if is_ip(frame) { self.fate() } else { Fate::good() };
        if fate.is_lost {
            return;
        }
        let arrival = self.free_at + nanoseconds(self.settings.delay) + fate.held;
        let slot = self.fly(arrival, frame);
        if let Some(turned) = fate.turned {
            turn_bit(&mut self.frames[slot], turned);
            self.counters.corrupted += 1;
        }
        if fate.is_doubled {
            self.fly(arrival, frame);
            self.counters.duplicated += 1;
        }
    }

    /// The next frame that has arrived at the other side by `now`, if there is one.
    pub fn poll_frame(&mut self, now: Instant) -> Option<&[u8]> {
        let now = now.as_nanoseconds();
        let Reverse((arrival, _, slot)) = *self.flying.peek()?;
        let late = Duration::from_nanos(now.checked_sub(arrival)?);
        self.flying.pop();
        self.unused.push(slot);
        let frame = &self.frames[slot];
        self.counters.delivered += 1;
        self.counters.delivered_bytes += frame.len() as u64;
        self.counters.latest = self.counters.latest.max(late);
        self.counters.late += late;
        Some(frame)
    }

    /// When the next frame arrives.
    pub fn deadline(&self) -> Option<Instant> {
        self.flying.peek().map(|Reverse((arrival, ..))| Instant::from_nanoseconds(*arrival))
    }

    /// What it has done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Puts a frame under way; gives its slot.
    fn fly(&mut self, arrival: u64, frame: &[u8]) -> usize {
        let slot = self.unused.pop().unwrap_or_else(|| {
            self.frames.push(Vec::new());
            self.frames.len() - 1
        });
        self.frames[slot].clear();
        self.frames[slot].extend_from_slice(frame);
        self.flying.push(Reverse((arrival, self.sequence, slot)));
        self.sequence += 1;
        slot
    }

    /// Draws as many numbers for each packet, whatever becomes of it, so that its successors' fates do not depend on it.
    fn fate(&mut self) -> Fate {
        let Trouble { loss, burst, burst_frames, reorder, reorder_delay, duplicate, corrupt } = self.settings.trouble;
        let [lost, bursts, held, held_for, doubled, corrupted, turned] = self.random.random::<[f64; 7]>();
        if self.burst_left == 0 && bursts < burst {
            self.burst_left = burst_frames;
        }
        let in_burst = self.burst_left > 0;
        self.burst_left = self.burst_left.saturating_sub(1);
        let is_lost = in_burst || lost < loss;
        self.counters.lost_in_bursts += u64::from(in_burst);
        self.counters.lost += u64::from(is_lost && !in_burst);
        let is_held = !is_lost && held < reorder;
        self.counters.held_back += u64::from(is_held);
        Fate {
            is_lost,
            held: if is_held { (nanoseconds(reorder_delay) as f64 * held_for) as u64 } else { 0 },
            is_doubled: doubled < duplicate,
            turned: (corrupted < corrupt).then_some(turned),
        }
    }
}

impl Fate {
    fn good() -> Self {
        Self { is_lost: false, held: 0, is_doubled: false, turned: None }
    }
}

impl Counters {
    /// As JSON, times in microseconds.
    pub fn to_json(&self) -> Value {
        let microseconds = |time: Duration| time.as_nanos() as f64 / 1000.0;
        json!({
            "frames": self.frames,
            "bytes": self.bytes,
            "queue_drops": self.queue_drops,
            "lost": self.lost,
            "lost_in_bursts": self.lost_in_bursts,
            "held_back": self.held_back,
            "duplicated": self.duplicated,
            "corrupted": self.corrupted,
            "delivered": self.delivered,
            "delivered_bytes": self.delivered_bytes,
            "longest_queue_bytes": self.longest_queue,
            "latest_us": microseconds(self.latest),
            "mean_late_us": microseconds(self.late) / self.delivered.max(1) as f64,
        })
    }
}

/// Whether an Ethernet frame carries IPv4 or IPv6.
fn is_ip(frame: &[u8]) -> bool {
    matches!(frame.get(12..14), Some([0x08, 0x00] | [0x86, 0xdd]))
}

/// Turns the bit at `fraction` of the bits behind the Ethernet header.
fn turn_bit(frame: &mut [u8], fraction: f64) {
    let bits = frame.len().saturating_sub(ETHERNET_HEADER) * 8;
    let bit = (bits as f64 * fraction) as usize;
    if let Some(byte) = frame.get_mut(ETHERNET_HEADER + bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}
