//! The EAL works once in a process, so every test runs its sides as processes of their own: this test program again, told by
//! an environment variable which side to play.

#![allow(dead_code, unreachable_pub)]

use std::io::Read;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use softrdma_dpdk_glue::{Eal, EalConfig, EthPort, EthReceiveQueue, EthTransmitQueue, HugePages, Mbuf};
use softrdma_stack::port::{Frame, Packet, Port, ReceiveQueue, TransmitOffload, TransmitQueue};

const ROLE: &str = "SOFTRDMA_TEST_ROLE";
const ARGUMENT: &str = "SOFTRDMA_TEST_ARGUMENT";
/// Longer than anything here takes, so that a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which side this process plays; `None`: it is the test itself.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// What the test told this side.
pub fn argument() -> String {
    std::env::var(ARGUMENT).unwrap_or_default()
}

/// A process that plays a side; killed if dropped before it ended.
pub struct Side {
    child: Option<Child>,
    role: String,
}

impl Side {
    /// Starts test `test` of this program as `role`.
    pub fn start(test: &str, role: &str, argument: &str) -> Self {
        let program = std::env::current_exe().expect("a running program has a path");
        Self::start_as(Command::new(program), test, role, argument)
    }

    /// The same in a network namespace of its own, which goes when the process does.
    pub fn start_in_namespace(test: &str, role: &str, argument: &str) -> Self {
        let mut command = Command::new("unshare");
        command.arg("--net").arg(std::env::current_exe().expect("a running program has a path"));
        Self::start_as(command, test, role, argument)
    }

    fn start_as(mut command: Command, test: &str, role: &str, argument: &str) -> Self {
        let child = command
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(ARGUMENT, argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this program can be started again");
        Self { child: Some(child), role: role.to_owned() }
    }

    /// Waits for the end of the side and sees to it that it was a good one.
    pub fn expect_success(mut self) -> String {
        let output = self.finish();
        let text = text(&output);
        assert!(output.status.success(), "{} ended with {}:\n{text}", self.role, output.status);
        text
    }

    /// Waits for the side to say `line`.
    pub fn expect_line(&mut self, line: &str) {
        if let Err(said) = self.await_line(line) {
            panic!("{} ended before it said {line:?}:\n{said}", self.role);
        }
    }

    /// Waits for the side to say `line`; what it said if it ended without.
    pub fn await_line(&mut self, line: &str) -> Result<(), String> {
        let child = self.child.as_mut().expect("it runs");
        let mut said = String::new();
        // Byte by byte, so that nothing is taken away from what is read at the end.
        let stdout = child.stdout.as_mut().expect("its output is piped");
        let mut byte = [0];
        while !said.lines().any(|said| said.ends_with(line)) || !said.ends_with('\n') {
            match stdout.read(&mut byte) {
                Ok(1) => said.push(char::from(byte[0])),
                _ => return Err(said),
            }
        }
        Ok(())
    }

    /// Tells a side that waits with [`input_ends`] to come to its end.
    pub fn end_input(&mut self) {
        drop(self.child.as_mut().and_then(|child| child.stdin.take()));
    }

    /// Ends the side without warning.
    pub fn kill(mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a killed child ends");
        }
    }

    /// Whether the side still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn finish(&mut self) -> Output {
        let begin = Instant::now();
        while self.is_running() {
            if begin.elapsed() > PATIENCE {
                let mut child = self.child.take().expect("it runs");
                child.kill().expect("a child can be killed");
                let output = child.wait_with_output().expect("a killed child ends");
                panic!("{} did not end within {PATIENCE:?}:\n{}", self.role, text(&output));
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.child.take().expect("ended once").wait_with_output().expect("its output can be read")
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Tells, whenever it is called, whether the test has called [`Side::end_input`] or is gone.
pub fn input_ends() -> impl Fn() -> bool {
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        seen.store(true, Ordering::Relaxed);
    });
    move || over.load(Ordering::Relaxed)
}

/// An EAL that needs nothing prepared.
pub fn eal() -> Eal {
    Eal::init(&EalConfig { huge_pages: HugePages::Off, memory_mib: 256, ..EalConfig::default() }).expect("DPDK starts")
}

/// A name that no other test run uses.
pub fn unique_name(test: &str) -> String {
    format!("softrdma-test-{test}-{}", std::process::id())
}

/// The queues of a port with one each way.
pub fn queues(port: &mut EthPort) -> (EthReceiveQueue, EthTransmitQueue) {
    let receive = port.take_receive_queue(0).expect("a fresh port has receive queue 0");
    let transmit = port.take_transmit_queue(0).expect("a fresh port has transmit queue 0");
    assert!(port.take_receive_queue(0).is_none() && port.take_transmit_queue(0).is_none(), "queues are taken once");
    (receive, transmit)
}

/// Bytes of frame `number` at `length`, different for each number and each place in it.
pub fn pattern(number: usize, length: usize) -> impl Iterator<Item = u8> {
    (0..length).map(move |index| (index.wrapping_mul(31) ^ number.wrapping_mul(17) ^ (index >> 8)) as u8)
}

/// Sends one frame of the pattern; waits for room.
pub fn send_pattern(queue: &mut EthTransmitQueue, number: usize, length: usize) {
    let begin = Instant::now();
    let mut frame = loop {
        match queue.frame(length) {
            Some(frame) => break frame,
            None => assert!(queue.flush() < usize::MAX && begin.elapsed() < PATIENCE, "the pool stays dry"),
        }
    };
    frame.bytes_mut().iter_mut().zip(pattern(number, length)).for_each(|(byte, value)| *byte = value);
    while let Err(back) = queue.send(frame, TransmitOffload::default()) {
        assert!(begin.elapsed() < PATIENCE, "the queue stays full");
        frame = back;
        thread::yield_now();
    }
}

/// Receives until `count` packets are there.
pub fn receive_exactly(receive: &mut EthReceiveQueue, transmit: &mut EthTransmitQueue, count: usize) -> Vec<Mbuf> {
    let mut packets = Vec::new();
    let begin = Instant::now();
    while packets.len() < count {
        transmit.flush();
        if receive.receive(&mut packets) == 0 {
            assert!(begin.elapsed() < PATIENCE, "{} of {count} packets arrived", packets.len());
            thread::yield_now();
        }
    }
    assert_eq!(packets.len(), count);
    packets
}

/// Why a test that needs root is skipped, unless this process is root and may make network namespaces.
pub fn lacks_root() -> Option<&'static str> {
    let may = Command::new("unshare").args(["--net", "ip", "link", "show", "lo"]).output();
    match may {
        Ok(output) if output.status.success() => None,
        _ => Some("skipped: it needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN), unshare and ip"),
    }
}

/// Runs `ip` with these words.
pub fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().expect("ip is installed");
    assert!(output.status.success(), "ip {words}: {}", text(&output));
}

/// All bytes of a packet.
pub fn bytes(packet: &Mbuf) -> Vec<u8> {
    packet.parts().flatten().copied().collect()
}
