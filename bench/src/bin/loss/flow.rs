//! One flow from the sending host to the receiving one: of plain kernel TCP, or of softrdma.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{Host, INTERFACE, KERNEL_RECEIVER, Rig, last_line, stop};
use crate::scenario::Scenario;

/// What the flows are made with.
pub(crate) struct Programs {
    pub(crate) wire: PathBuf,
    perf: PathBuf,
    bulk: PathBuf,
}

/// Seconds of a flow: those in which it finds its speed, and those that count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) settle: f64,
    pub(crate) seconds: f64,
}

/// Two processes, of which the second tells the result or the first does.
pub(crate) struct Flow {
    processes: [Child; 2],
    /// Which of them tells the result; the other ends by itself when this one is done.
    teller: usize,
    patience: Duration,
}

/// What came of a flow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Payload in 10^9 bits a second.
    pub(crate) gbps: f64,
    /// Segments that softrdma sent again.
    retransmissions: Option<u64>,
    cpu_seconds: Option<f64>,
    pub(crate) kernel_retransmissions: u64,
    /// What the wire says.
    pub(crate) wire: Value,
}

/// Messages of our flow: large enough that their number costs nothing, enough of them that the pipe never runs dry.
const MESSAGE: &str = "64K";
const DEPTH: &str = "128";

/// What a receiver lets a peer send ahead, of softrdma; the kernel finds out by itself, up to 6 MB by default.
const WINDOW: u32 = 6 << 20;

impl Programs {
    pub(crate) fn new(directory: &Path) -> Result<Self, String> {
        let find = |name: &str| {
            let path = directory.join(name);
            if path.is_file() { Ok(path) } else { Err(format!("no {}: run bench/loss.sh", path.display())) }
        };
        Ok(Self { wire: find("wire")?, perf: find("softrdma-perf")?, bulk: find("bulk_tcp")? })
    }
}

impl Times {
    pub(crate) fn new(scenario: &Scenario, quick: bool) -> Self {
        Self { settle: scenario.settle_seconds(), seconds: if quick { 2.0 } else { 4.0 } }
    }
}

impl Flow {
    /// Plain TCP with CUBIC. It goes on for `linger` seconds after it was measured.
    pub(crate) fn of_kernel(programs: &Programs, rig: &Rig, times: Times, linger: f64) -> Result<Self, String> {
        let address = format!("{KERNEL_RECEIVER}:18516");
        let [settle, seconds, lingers] = [times.settle, times.seconds, linger].map(|time| time.to_string());
        let receiver = rig
            .command(Host::Receiver, programs.bulk.as_os_str())
            .args(["receive", &address, "--settle", &settle, "--seconds", &seconds, "--linger", &lingers])
            .stdout(Stdio::piped())
            .spawn();
        let mut receiver = receiver.map_err(|error| format!("bulk_tcp: {error}"))?;
        let sender = rig
            .command(Host::Sender, programs.bulk.as_os_str())
            .args(["send", &address, "--congestion", "cubic"])
            .spawn()
            .map_err(|error| {
                stop(&mut receiver, Signal::KILL);
                format!("bulk_tcp: {error}")
            })?;
        let patience = Duration::from_secs_f64(times.settle + times.seconds + linger + 20.0);
        Ok(Self { processes: [receiver, sender], teller: 0, patience })
    }

    /// Writes of softrdma, run to completion, over AF_PACKET on the wire's interfaces.
    pub(crate) fn of_ours(programs: &Programs, rig: &Rig, times: Times) -> Result<Self, String> {
        let server_config = configuration("server", "192.0.2.1")?;
        let client_config = configuration("client", "192.0.2.2")?;
        let server = rig
            .command(Host::Receiver, programs.perf.as_os_str())
            .args(["server", "--once", "--listen", "192.0.2.1", "--config"])
            .arg(&server_config)
            .stderr(Stdio::null())
            .spawn();
        let mut server = server.map_err(|error| format!("softrdma-perf: {error}"))?;
        // A connection request to a port that is not open yet is answered with a reset.
        std::thread::sleep(Duration::from_millis(700));
        let [settle, seconds] = [times.settle, times.seconds].map(|time| time.to_string());
        let client = rig
            .command(Host::Sender, programs.perf.as_os_str())
            .args(["client", "192.0.2.1", "--op", "write", "--size", MESSAGE, "--depth", DEPTH])
            .args(["--warm-up", &settle, "--duration", &seconds, "--skip-latency", "--json", "--quiet", "--config"])
            .arg(&client_config)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                stop(&mut server, Signal::KILL);
                format!("softrdma-perf: {error}")
            })?;
        let patience = Duration::from_secs_f64(times.settle + times.seconds + 30.0);
        Ok(Self { processes: [server, client], teller: 1, patience })
    }

    /// Waits for the end of both processes.
    pub(crate) fn finish(mut self) -> Result<Outcome, String> {
        let begun = Instant::now();
        for index in [self.teller, 1 - self.teller] {
            while matches!(self.processes[index].try_wait(), Ok(None)) {
                if begun.elapsed() > self.patience {
                    return Err(format!("a flow did not end in {:?}", self.patience));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let mut said = String::new();
        if let Some(output) = &mut self.processes[self.teller].stdout {
            std::io::Read::read_to_string(output, &mut said).map_err(|error| error.to_string())?;
        }
        let row = last_line(&said).ok_or_else(|| format!("a flow ended with '{said}' instead of a result"))?;
        let gbps = row["throughput_gbps"].as_f64().ok_or_else(|| format!("no throughput in {row}"))?;
        if row["errors"].as_u64().unwrap_or(0) > 0 {
            return Err(format!("errors in {row}"));
        }
        Ok(Outcome {
            gbps,
            retransmissions: row["retransmitted_segments"].as_u64(),
            cpu_seconds: row["cpu_seconds"].as_f64(),
            ..Outcome::default()
        })
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        for process in &mut self.processes {
            stop(process, Signal::KILL);
            let _ = process.wait();
        }
    }
}

impl Outcome {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "throughput_gbps": self.gbps,
            "retransmitted_segments": self.retransmissions.unwrap_or(self.kernel_retransmissions),
            "cpu_seconds": self.cpu_seconds,
            "wire": self.wire,
        })
    }
}

/// A file that says what our device of one end is.
fn configuration(end: &str, address: &str) -> Result<PathBuf, String> {
    let file = std::env::temp_dir().join(format!("softrdma-loss-{}-{end}.toml", std::process::id()));
    let text = format!(
        "scheme = \"softrdma\"\nthreads = \"c2\"\naddresses = [\"{address}/24\"]\n\
         [port]\npool_packets = 32768\n[port.device.af_packet]\ninterface = \"{INTERFACE}\"\n\
         [eal]\nhuge_pages = \"off\"\nmemory_mib = 256\n[limits]\nsocket_buffer_bytes = {WINDOW}\n"
    );
    fs::write(&file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    Ok(file)
}
