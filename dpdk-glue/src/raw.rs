//! Plain Ethernet frames between two ports: what the ports themselves can do, and with it the limit of everything that is
//! built on them.
//!
//! One side is the [`initiator`], the other the [`responder`]. The initiator measures round trips (one frame at a time), or
//! sends in bulk for the responder to count. With [`Touch`], whoever receives also does what moving data makes mandatory: one copy
//! into as much memory as the data takes, and the passes over it that the protocols demand. That is the honest limit
//! for moving data; frames that nobody looks at move faster than any data can.

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use softrdma_stack::port::{BURST, Frame, Packet, Port, ReceiveQueue, TransmitOffload, TransmitQueue};

mod message;
mod passes;

use message::{Kind, Message, Tally};
use passes::Passes;
pub use passes::{Touch, internet_checksum};

/// Smallest frame: what Ethernet has as its smallest, without the trailing checksum.
pub const SMALLEST_FRAME: usize = 60;
/// Rounds of finding nothing after which the CPU is offered to others.
const PATIENT_ROUNDS: u32 = 1_000;
/// Bursts from one look at the clock to the next: a look costs as much as a small frame.
const BURSTS_PER_CLOCK: usize = 32;
/// Spins of a receiver of bulk that has run ahead of the sender: each look takes a cache line from the one at work.
const EMPTY_RING_SPINS: u32 = 8;
/// Spins of a sender of bulk that has run ahead of the receiver, likewise, and looks before it lets others run.
const FULL_RING_SPINS: u32 = 4;
const FULL_RING_LOOKS: u32 = 256;
/// Rounds of finding nothing after which the clock is read.
const CLOCK_ROUNDS: u32 = 1024;
/// How long a ping may stay unanswered before it counts as lost and the next one leaves.
const PING_TIMEOUT: Duration = Duration::from_millis(100);
/// How often the end of a run is announced until it is acknowledged.
const END_PERIOD: Duration = Duration::from_millis(20);
/// How long a responder stays for an initiator that may not have got its answer.
const LINGER: Duration = Duration::from_millis(500);
/// Longest round trip that is told apart from longer ones, in nanoseconds.
const LONGEST_ROUND_TRIP_NS: u64 = 10_000_000_000;

/// How frames travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// One frame at a time, there and back.
    PingPong,
    /// As many as go, one way.
    Bulk,
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// After this many frames, warm-up not counted.
    Frames(u64),
    /// After this time, warm-up included.
    Time(Duration),
}

/// A run. Both sides are given the same.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes in a frame, Ethernet header included, trailing checksum not; at least [`SMALLEST_FRAME`].
    pub frame_size: usize,
    /// How frames travel.
    pub traffic: Traffic,
    /// When the run ends.
    pub limit: Limit,
    /// Frames before measuring begins.
    pub warm_up: u64,
    /// What receivers do with a frame; `None`: nothing.
    pub touch: Option<Touch>,
    /// How long a side waits for the other before it gives up.
    pub patience: Duration,
}

impl Config {
    /// A run of `traffic` with frames of `frame_size` bytes, a second long.
    pub fn new(traffic: Traffic, frame_size: usize) -> Self {
        let warm_up = match traffic {
            Traffic::PingPong => 1_000,
            Traffic::Bulk => 20_000,
        };
        let (limit, patience) = (Limit::Time(Duration::from_secs(1)), Duration::from_secs(10));
        Self { frame_size, traffic, limit, warm_up, touch: None, patience }
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// Round trips in nanoseconds; empty for bulk. One way is half of it.
    pub round_trips_ns: Histogram<u64>,
    /// Frames that arrived while measuring: pongs at the initiator, or what the responder counted.
    pub frames: u64,
    /// Bytes in them, Ethernet headers included.
    pub bytes: u64,
    /// Length of the measurement.
    pub elapsed: Duration,
    /// Frames that were sent and did not arrive.
    pub lost: u64,
}

impl Report {
    /// Frames per second.
    pub fn frames_per_second(&self) -> f64 {
        self.frames as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Bits of frame per second, in units of 10^9.
    pub fn throughput_gbps(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e9 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Why a run did not come to an end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RawError {
    /// The frame size is out of range.
    #[error(
        "frames of {bytes} bytes cannot be sent: between {SMALLEST_FRAME} and {largest} bytes (the MTU and its header) can"
    )]
    FrameSize {
        /// What was asked for.
        bytes: usize,
        /// What the port takes.
        largest: usize,
    },
    /// Queue 0 is in use.
    #[error("the port's queue 0 is taken: raw runs want it for themselves")]
    QueueTaken,
    /// The other side is silent.
    #[error("the other side was silent for {waited_ms} ms: is it running, with the same fabric and the link up?")]
    Silent {
        /// How long it was waited for.
        waited_ms: u128,
    },
}

/// Runs the side that sends first and measures.
pub fn initiator<P: Port>(port: &mut P, config: &Config) -> Result<Report, RawError> {
    let mut end = End::new(port, config)?;
    end.meet()?;
    match config.traffic {
        Traffic::PingPong => end.ping(config),
        Traffic::Bulk => end.flood(config),
    }
}

/// Runs the side that answers, until the initiator is done. The report is of what arrived in bulk.
pub fn responder<P: Port>(port: &mut P, config: &Config) -> Result<Report, RawError> {
    End::new(port, config)?.respond(config)
}

/// One end of the link at work.
struct End<R: ReceiveQueue, T: TransmitQueue> {
    receive: R,
    transmit: T,
    packets: Vec<R::Packet>,
    address: [u8; 6],
    frame_size: usize,
    patience: Duration,
    passes: Option<Passes>,
    /// Tells the initiator's runs apart: a message of an earlier run may still be under way.
    run: u64,
}

impl<R: ReceiveQueue, T: TransmitQueue> End<R, T> {
    fn new<P: Port<Receive = R, Transmit = T>>(port: &mut P, config: &Config) -> Result<Self, RawError> {
        let largest = port.capabilities().mtu + message::ETHERNET_HEADER;
        if !(SMALLEST_FRAME..=largest).contains(&config.frame_size) {
            return Err(RawError::FrameSize { bytes: config.frame_size, largest });
        }
        let receive = port.take_receive_queue(0).ok_or(RawError::QueueTaken)?;
        let transmit = port.take_transmit_queue(0).ok_or(RawError::QueueTaken)?;
        Ok(Self {
            receive,
            transmit,
            packets: Vec::with_capacity(2 * BURST),
            address: port.hardware_address(),
            frame_size: config.frame_size,
            patience: config.patience,
            passes: config.touch.map(Passes::new),
            run: 0,
        })
    }

    /// Greets until greeted: a link takes its time to come up.
    fn meet(&mut self) -> Result<(), RawError> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.run = since_1970.as_nanos() as u64;
        self.ask(Kind::Hello, Kind::Welcome).map(|_| ())
    }

    fn ping(mut self, config: &Config) -> Result<Report, RawError> {
        let mut report = Report::empty();
        let begin = Instant::now();
        let (mut sent, mut measured_from) = (0u64, begin);
        let mut sent_at = begin;
        loop {
            let is_over = match config.limit {
                Limit::Frames(frames) => sent >= frames + config.warm_up,
                Limit::Time(time) => sent_at - begin >= time,
            };
            if is_over {
                break;
            }
            self.send(Message { kind: Kind::Ping, sequence: sent, tally: Tally::default() }, self.frame_size)?;
            sent += 1;
            let arrived = self.await_pong(sent - 1, sent_at + PING_TIMEOUT);
            // One clock read a round trip: the end of one is the beginning of the next.
            let now = Instant::now();
            if sent > config.warm_up {
                match arrived {
                    true => {
                        report.round_trips_ns.saturating_record((now - sent_at).as_nanos() as u64);
                        report.frames += 1;
                    }
                    false => report.lost += 1,
                }
            } else {
                measured_from = now;
            }
            sent_at = now;
        }
        report.bytes = report.frames * self.frame_size as u64;
        report.elapsed = sent_at - measured_from;
        self.ask(Kind::End, Kind::Result)?;
        self.say_goodbye();
        Ok(report)
    }

    /// Whether pong number `sequence` came before `deadline`.
    fn await_pong(&mut self, sequence: u64, deadline: Instant) -> bool {
        let mut rounds = 0;
        loop {
            self.packets.clear();
            if self.receive.receive(&mut self.packets) == 0 {
                idle(&mut rounds);
                // A clock read now and then is enough to notice a loss.
                if rounds.is_multiple_of(CLOCK_ROUNDS) && Instant::now() >= deadline {
                    return false;
                }
                continue;
            }
            for packet in &self.packets {
                let message = Message::read(packet);
                touch(&mut self.passes, packet);
                if message.is_some_and(|message| message.kind == Kind::Pong && message.sequence == sequence) {
                    return true;
                }
            }
        }
    }

    fn flood(mut self, config: &Config) -> Result<Report, RawError> {
        let begin = Instant::now();
        let (wanted, time) = match config.limit {
            Limit::Frames(frames) => (frames + config.warm_up, Duration::MAX),
            Limit::Time(time) => (u64::MAX, time),
        };
        let mut sent = 0u64;
        while sent < wanted && begin.elapsed() < time {
            for _ in 0..BURSTS_PER_CLOCK {
                for _ in 0..BURST {
                    let message = Message { kind: Kind::Data, sequence: sent, tally: Tally::default() };
                    sent += u64::from(self.offer(message, self.frame_size));
                }
                if self.transmit.flush() > 0 {
                    self.drain()?;
                }
                if sent >= wanted {
                    break;
                }
            }
        }
        // What still waits for room is part of the run.
        self.drain()?;
        let tally = self.ask(Kind::End, Kind::Result)?;
        self.say_goodbye();
        Ok(Report { lost: sent.saturating_sub(tally.total), ..Report::of(&tally) })
    }

    /// Waits until the port has taken all that is queued. More is not begun meanwhile: the fewer buffers are under way, the more
    /// of them are in the cache.
    fn drain(&mut self) -> Result<(), RawError> {
        for _ in 0..FULL_RING_LOOKS {
            spin(FULL_RING_SPINS);
            if self.transmit.flush() == 0 {
                return Ok(());
            }
        }
        self.wait_for(|end| (end.transmit.flush() == 0).then_some(()))
    }

    fn respond(mut self, config: &Config) -> Result<Report, RawError> {
        let mut tally = Tally::default();
        let (mut measured_from, mut last) = (Instant::now(), Instant::now());
        let (mut has_ended, mut is_active, mut rounds) = (false, false, 0);
        let mut packets = std::mem::take(&mut self.packets);
        loop {
            self.receive.release(&mut packets);
            if self.receive.receive(&mut packets) == 0 {
                self.transmit.flush();
                idle(&mut rounds);
                if tally.total > 0 {
                    spin(EMPTY_RING_SPINS);
                }
                if rounds.is_multiple_of(CLOCK_ROUNDS) {
                    // The clock is read when there is time for it.
                    if std::mem::take(&mut is_active) {
                        last = Instant::now();
                    }
                    let silence = last.elapsed();
                    if has_ended && silence >= LINGER {
                        return Ok(Report::of(&tally));
                    }
                    if silence >= self.patience {
                        return Err(RawError::Silent { waited_ms: silence.as_millis() });
                    }
                }
                continue;
            }
            is_active = true;
            if tally.total >= config.warm_up && self.passes.is_none() && packets.iter().all(is_data) {
                tally.count(&packets);
                continue;
            }
            for packet in &packets {
                // Of bulk there is too much for a whole look at each.
                if is_data(packet) {
                    if self.count_one(packet, config.warm_up, &mut tally) {
                        measured_from = Instant::now();
                    }
                    continue;
                }
                let Some(message) = Message::read(packet) else { continue };
                match message.kind {
                    Kind::Ping => {
                        touch(&mut self.passes, packet);
                        self.send(Message { kind: Kind::Pong, ..message }, packet.length())?;
                    }
                    // A goodbye was lost. The next call of the responder answers, as the initiator goes on asking.
                    Kind::Hello if has_ended && message.sequence != self.run => return Ok(Report::of(&tally)),
                    Kind::Hello => {
                        (tally, measured_from, self.run) = (Tally::default(), Instant::now(), message.sequence);
                        self.send(Message { kind: Kind::Welcome, ..message }, SMALLEST_FRAME)?;
                    }
                    Kind::End if message.sequence == self.run => {
                        // It travels right behind the last frame. Were it lost and sent again, the figure would be too low.
                        if !has_ended {
                            tally.nanoseconds = measured_from.elapsed().as_nanos() as u64;
                        }
                        has_ended = true;
                        self.send(Message { kind: Kind::Result, tally, ..message }, SMALLEST_FRAME)?;
                    }
                    Kind::Goodbye if has_ended && message.sequence == self.run => return Ok(Report::of(&tally)),
                    Kind::Data | Kind::Goodbye | Kind::End | Kind::Pong | Kind::Welcome | Kind::Result => {}
                }
            }
        }
    }

    /// Takes one frame of bulk; whether it was the last of the warm-up.
    fn count_one(&mut self, packet: &R::Packet, warm_up: u64, tally: &mut Tally) -> bool {
        touch(&mut self.passes, packet);
        if tally.total >= warm_up {
            tally.count(std::slice::from_ref(packet));
            return false;
        }
        tally.total += 1;
        tally.total == warm_up
    }

    /// Sends `question` until `answer` comes.
    fn ask(&mut self, question: Kind, answer: Kind) -> Result<Tally, RawError> {
        let begin = Instant::now();
        let mut asked: Option<Instant> = None;
        let mut rounds = 0;
        loop {
            let now = Instant::now();
            if now - begin >= self.patience {
                return Err(RawError::Silent { waited_ms: self.patience.as_millis() });
            }
            if asked.is_none_or(|asked| now - asked >= END_PERIOD) {
                self.send(Message { kind: question, sequence: self.run, tally: Tally::default() }, SMALLEST_FRAME)?;
                asked = Some(now);
            }
            self.transmit.flush();
            self.packets.clear();
            if self.receive.receive(&mut self.packets) == 0 {
                idle(&mut rounds);
            }
            let answers = self.packets.iter().filter_map(Message::read);
            let is_it = |message: &Message| message.kind == answer && message.sequence == self.run;
            if let Some(message) = answers.into_iter().find(is_it) {
                return Ok(message.tally);
            }
        }
    }

    fn say_goodbye(&mut self) {
        let goodbye = Message { kind: Kind::Goodbye, sequence: self.run, tally: Tally::default() };
        let _ = self.send(goodbye, SMALLEST_FRAME);
        let begin = Instant::now();
        while self.transmit.flush() > 0 && begin.elapsed() < LINGER {
            std::hint::spin_loop();
        }
        // A port that closes takes the frames on their way with it.
        std::thread::sleep(Duration::from_millis(5));
    }

    fn send(&mut self, message: Message, length: usize) -> Result<(), RawError> {
        self.send_queued(message, length)?;
        self.transmit.flush();
        Ok(())
    }

    /// Sends with the burst if there is room, which is not waited for: looking at a full ring takes a cache line from the
    /// receiver, who is at work on it, and preparing the next frame is a better use of the time. Whether there was.
    #[inline]
    fn offer(&mut self, message: Message, length: usize) -> bool {
        let Some(mut frame) = self.transmit.frame(length) else { return false };
        message.write(self.address, frame.bytes_mut());
        self.transmit.send(frame, TransmitOffload::default()).is_ok()
    }

    /// Sends with the burst, waiting for room.
    #[inline]
    fn send_queued(&mut self, message: Message, length: usize) -> Result<(), RawError> {
        let mut frame = match self.transmit.frame(length) {
            Some(frame) => frame,
            None => self.wait_for(|end| end.transmit.frame(length))?,
        };
        message.write(self.address, frame.bytes_mut());
        let Err(refused) = self.transmit.send(frame, TransmitOffload::default()) else { return Ok(()) };
        let mut waiting = Some(refused);
        self.wait_for(|end| match waiting.take().map(|frame| end.transmit.send(frame, TransmitOffload::default())) {
            Some(Err(back)) => {
                waiting = Some(back);
                None
            }
            Some(Ok(())) | None => Some(()),
        })
    }

    /// Tries `attempt`, with what is queued leaving meanwhile, until it succeeds.
    #[cold]
    fn wait_for<V>(&mut self, mut attempt: impl FnMut(&mut Self) -> Option<V>) -> Result<V, RawError> {
        let begin = Instant::now();
        let mut rounds = 0;
        loop {
            self.transmit.flush();
            if let Some(value) = attempt(self) {
                return Ok(value);
            }
            idle(&mut rounds);
            if rounds.is_multiple_of(CLOCK_ROUNDS) && begin.elapsed() >= self.patience {
                return Err(RawError::Silent { waited_ms: self.patience.as_millis() });
            }
        }
    }
}

impl Report {
    fn empty() -> Self {
        let round_trips_ns =
            Histogram::new_with_bounds(1, LONGEST_ROUND_TRIP_NS, 3).expect("constant bounds are valid");
        Self { round_trips_ns, frames: 0, bytes: 0, elapsed: Duration::ZERO, lost: 0 }
    }

    fn of(tally: &Tally) -> Self {
        let elapsed = Duration::from_nanos(tally.nanoseconds);
        Self { frames: tally.frames, bytes: tally.bytes, elapsed, ..Self::empty() }
    }
}

fn is_data(packet: &impl Packet) -> bool {
    Message::kind(packet) == Some(Kind::Data)
}

fn touch(passes: &mut Option<Passes>, packet: &impl Packet) {
    if let Some(passes) = passes {
        black_box(passes.run(packet));
    }
}

/// Lets others run now and then, for machines with fewer CPUs than sides. Otherwise it looks again at once: what a CPU's pause
/// instruction saves here, it adds to every round trip.
fn spin(times: u32) {
    for _ in 0..times {
        std::hint::spin_loop();
    }
}

fn idle(rounds: &mut u32) {
    *rounds = rounds.wrapping_add(1);
    std::hint::spin_loop();
    if rounds.is_multiple_of(PATIENT_ROUNDS) {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests;
