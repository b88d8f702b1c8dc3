//! `wire`: a bad wire between two TAP interfaces. The wire itself: `softrdma_tests::wire`.

#![forbid(unsafe_code)]

use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, Parser};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use serde_json::json;
use softrdma_stack::time::Instant;
use softrdma_tests::wire::tap::{Place, Tap};
use softrdma_tests::wire::{Line, Settings, Trouble};

const EXAMPLE: &str = "\
Example, two hosts as namespaces, a ping across:
  ip netns add one; ip netns add two
  wire --left tap0@one --right tap0@two --rate 1G --delay-us 5000 --loss 0.01 --seed 7 &
  ip -n one addr add 10.0.0.1/24 dev tap0; ip -n two addr add 10.0.0.2/24 dev tap0
  ip netns exec one ping 10.0.0.2
  kill %1      # the wire says what it did, as one JSON object; the interfaces go with it

What happens to a packet depends on the seed, the direction and how many packets came before it.";

/// Frames moved in one direction before the other has its turn.
const BATCH: usize = 64;

/// The largest frame: an IP packet of 65,535 bytes behind an Ethernet header with a VLAN tag.
const LARGEST_FRAME: usize = 65_553;

/// A wire between two TAP interfaces: a rate, a queue, a delay, and by seed losses, reordering, duplicates and wrong bits.
#[derive(Debug, Parser)]
#[command(name = "wire", after_help = EXAMPLE, max_term_width = 120)]
struct Arguments {
    /// One end: the interface that is made, and the network namespace (of `ip netns`) that it is moved to.
    #[arg(long, value_name = "NAME[@NAMESPACE]")]
    left: Place,
    /// The other end.
    #[arg(long, value_name = "NAME[@NAMESPACE]")]
    right: Place,
    /// Bytes of the largest IP packet.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(576..=65535))]
    mtu: u32,
    /// Seed of all that is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Ends by itself after so many seconds [default: at SIGINT or SIGTERM].
    #[arg(long)]
    seconds: Option<f64>,
    /// Closer than this to the next frame's time it spins instead of sleeping: precision costs a CPU.
    #[arg(long, default_value_t = 60, value_name = "MICROSECONDS")]
    spin_us: u64,
    #[command(flatten)]
    line: LineArguments,
}

/// Both directions behave alike, each with chance of its own.
#[derive(Args, Debug)]
#[command(next_help_heading = "Each direction")]
struct LineArguments {
    /// Bits a second, with what Ethernet adds to a frame (24 bytes); K, M or G may follow [default: unlimited].
    #[arg(long, value_parser = parse_rate, value_name = "BITS")]
    rate: Option<u64>,
    /// Kilobytes (1024 bytes) that may wait for the line; what comes then is dropped.
    #[arg(long, default_value_t = 1024, value_name = "KILOBYTES")]
    queue_kb: u64,
    /// One way, in microseconds.
    #[arg(long, default_value_t = 0, value_name = "MICROSECONDS")]
    delay_us: u64,
    /// Probability that a packet is lost.
    #[arg(long, default_value_t = 0.0, value_name = "PROBABILITY")]
    loss: f64,
    /// Probability that a packet begins a burst of losses.
    #[arg(long, default_value_t = 0.0, value_name = "PROBABILITY")]
    burst: f64,
    /// Packets of a burst.
    #[arg(long, default_value_t = 8, value_name = "COUNT")]
    burst_frames: u32,
    /// Probability that a packet is held back.
    #[arg(long, default_value_t = 0.0, value_name = "PROBABILITY")]
    reorder: f64,
    /// Longest time that it is held back; each time is as likely.
    #[arg(long, default_value_t = 100, value_name = "MICROSECONDS")]
    reorder_us: u64,
    /// Probability that a packet arrives twice.
    #[arg(long, default_value_t = 0.0, value_name = "PROBABILITY")]
    duplicate: f64,
    /// Probability that a packet arrives with a wrong bit.
    #[arg(long, default_value_t = 0.0, value_name = "PROBABILITY")]
    corrupt: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wire: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(|error| error.to_string())?;
    }
    // By default the kernel lets a thread sleep 50 us longer than it asked for.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).map_err(|error| error.to_string())?;
    let settings = arguments.line.settings();
    let line = |seed: u64| Line::new(settings, seed).map_err(|error| error.to_string());
    // Neighbouring seeds must not share a direction.
    let lines = [line(arguments.seed.wrapping_mul(2))?, line(arguments.seed.wrapping_mul(2) + 1)?];
    let taps = [Tap::new(&arguments.left, arguments.mtu)?, Tap::new(&arguments.right, arguments.mtu)?];
    let mut wire = Wire { taps, lines, refused: [0; 2], start: std::time::Instant::now() };
    eprintln!("wire: {} and {} are up", arguments.left.name, arguments.right.name);
    let end = arguments.seconds.map(Duration::from_secs_f64);
    while !stop.load(Ordering::Relaxed) && end.is_none_or(|end| wire.start.elapsed() < end) {
        if !wire.step()? {
            wire.wait(Duration::from_micros(arguments.spin_us))?;
        }
    }
    println!("{}", wire.report());
    Ok(())
}

impl LineArguments {
    fn settings(&self) -> Settings {
        Settings {
            rate: self.rate,
            queue_bytes: self.queue_kb * 1024,
            delay: Duration::from_micros(self.delay_us),
            trouble: Trouble {
                loss: self.loss,
                burst: self.burst,
                burst_frames: self.burst_frames,
                reorder: self.reorder,
                reorder_delay: Duration::from_micros(self.reorder_us),
                duplicate: self.duplicate,
                corrupt: self.corrupt,
            },
        }
    }
}

/// Two interfaces, left and right, and the lines between: from left to right, from right to left.
struct Wire {
    taps: [Tap; 2],
    lines: [Line; 2],
    /// Frames that the kernel did not take, by line.
    refused: [u64; 2],
    start: std::time::Instant,
}

impl Wire {
    fn now(&self) -> Instant {
        Instant::from_nanoseconds(self.start.elapsed().as_nanos() as u64)
    }

    /// Moves what is there to be moved; whether there was anything.
    fn step(&mut self) -> Result<bool, String> {
        let mut moved = false;
        let mut frame = [0; LARGEST_FRAME];
        for from in 0..2 {
            for _ in 0..BATCH {
                let length = self.taps[from].receive(&mut frame);
                let Some(length) = length.map_err(|error| format!("an interface is gone: {error}"))? else { break };
                let now = self.now();
                self.lines[from].handle_frame(now, &frame[..length]);
                moved = true;
            }
            let now = self.now();
            for _ in 0..BATCH {
                let Some(frame) = self.lines[from].poll_frame(now) else { break };
                self.refused[from] += u64::from(!self.taps[1 - from].send(frame));
                moved = true;
            }
        }
        Ok(moved)
    }

    /// Sleeps until shortly before the next frame's time, or until a frame comes.
    fn wait(&self, spin: Duration) -> Result<(), String> {
        /// Longest sleep: signals are looked at in between.
        const LONGEST: Duration = Duration::from_millis(100);
        let now = self.now();
        let next = self.lines.iter().filter_map(Line::deadline).min();
        let time = next.map_or(LONGEST, |next| next.saturating_since(now).min(LONGEST));
        if time <= spin {
            std::hint::spin_loop();
            return Ok(());
        }
        let time = time - if next.is_some() { spin } else { Duration::ZERO };
        let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let [left, right] = &self.taps;
        let mut descriptors = [left, right].map(|tap| PollFd::new(tap.descriptor(), PollFlags::IN));
        match rustix::event::poll(&mut descriptors, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(format!("cannot wait: {error}")),
        }
    }

    fn report(&self) -> serde_json::Value {
        let line = |index: usize| {
            let mut report = self.lines[index].counters().to_json();
            report["refused"] = self.refused[index].into();
            report
        };
        json!({
            "seconds": self.start.elapsed().as_secs_f64(),
            "left_to_right": line(0),
            "right_to_left": line(1),
        })
    }
}

fn parse_rate(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix(['K', 'M', 'G']) {
        None => (text, 1.0),
        Some(number) if text.ends_with('K') => (number, 1e3),
        Some(number) if text.ends_with('M') => (number, 1e6),
        Some(number) => (number, 1e9),
    };
    let bits = number.parse::<f64>().ok().map(|number| number * unit).filter(|bits| (1000.0..1e12).contains(bits));
    bits.map(|bits| bits as u64).ok_or_else(|| format!("'{text}' is no rate: write 1000 to 999G, as in 1G or 2.5M"))
}
