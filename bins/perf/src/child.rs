//! The other process of a pair: its task comes as one JSON line on standard input, what it says goes as JSON lines to standard
//! output. When its standard input ends, its parent is gone, and it ends too.

use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::net::SocketAddr;
use std::process::{Child as Process, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use softrdma_bins_common::device::DevicePlan;
use softrdma_bins_common::statistics_page::StatisticsPage;

use crate::endpoint::Endpoint;
use crate::failure::{Context, Failure};
use crate::raw::RawTask;
use crate::server::Server;

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    /// Serve one client, with up to `memory` bytes for messages in one direction.
    Serve { device: DevicePlan, listen: SocketAddr, memory: u64, timeout: Duration, verbose: u8 },
    /// Answer, or take, plain frames.
    Raw(RawTask),
}

/// What a child says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Saying {
    /// It is ready at this address.
    Listening(SocketAddr),
    /// It is ready where no address is needed.
    Ready,
    /// It cannot go on.
    Failed(String),
}

/// How long a child may take to end by itself.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A running child. It is reaped when dropped, and killed before that if it does not end.
pub(crate) struct Child {
    process: Process,
    /// Held open: its end tells the child that we are gone.
    input: Option<ChildStdin>,
    sayings: Receiver<String>,
}

impl Child {
    /// Starts this program again for `task`.
    pub(crate) fn start(task: &Task) -> Result<Self, Failure> {
        let program = std::env::current_exe().context(|| "cannot find this program's file")?;
        let mut process = Command::new(program)
            .arg("child")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context(|| "cannot start the second process")?;
        let input = process.stdin.take();
        let output = process.stdout.take();
        let (sender, sayings) = channel();
        let mut child = Self { process, input, sayings };
        if let Some(output) = output {
            // Ends with the child's output.
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        child.tell(task)?;
        Ok(child)
    }

    fn tell(&mut self, message: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(message).context(|| "cannot write the second process's task")?;
        line.push(b'\n');
        match &mut self.input {
            Some(input) => input.write_all(&line).context(|| "cannot tell the second process its task"),
            None => Ok(()),
        }
    }

    /// The child's next saying; `what` names it if it does not come.
    pub(crate) fn hear<T: DeserializeOwned>(&self, what: &str, limit: Duration) -> Result<T, Failure> {
        let line = match self.sayings.recv_timeout(limit) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                return Err(Failure::Timeout { what: format!("{what} from the second process"), limit });
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::Connection(format!("the second process ended instead of giving its {what}")));
            }
        };
        serde_json::from_str(&line).map_err(|error| Failure::Protocol(format!("{error} in '{line}'")))
    }

    /// Waits until it has said where it listens.
    pub(crate) fn address(&self, limit: Duration) -> Result<SocketAddr, Failure> {
        match self.hear("address", limit)? {
            Saying::Listening(address) => Ok(address),
            Saying::Failed(reason) => Err(Failure::Peer(reason)),
            Saying::Ready => Err(Failure::Protocol("the second process listens nowhere".to_owned())),
        }
    }

    /// Waits until it has ended by itself, which a failure of its must not hide.
    pub(crate) fn join(mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < END_TIMEOUT {
            if let Some(status) = self.process.try_wait().context(|| "cannot wait for the second process")? {
                return match status.success() {
                    true => Ok(()),
                    false => Err(Failure::Connection(format!("the second process failed ({status})"))),
                };
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(Failure::Timeout { what: "end of the second process".to_owned(), limit: END_TIMEOUT })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // By its handle, which stays ours until it is reaped: no other process can have its number.
        self.input.take();
        if let Ok(None) = self.process.try_wait() {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// The child's side.
pub(crate) fn run() -> ExitCode {
    let mut line = String::new();
    let task = match stdin().read_line(&mut line) {
        Ok(_) => serde_json::from_str::<Task>(&line),
        Err(error) => {
            eprintln!("softrdma-perf: no task on standard input: {error}");
            return ExitCode::from(2);
        }
    };
    let task = match task {
        Ok(task) => task,
        Err(error) => {
            eprintln!("softrdma-perf: `child` is started by `pair` and `raw`, not by hand: {error}");
            return ExitCode::from(2);
        }
    };
    end_with_parent();
    let outcome = match task {
        Task::Serve { device, listen, memory, timeout, verbose } => serve(&device, listen, memory, timeout, verbose),
        Task::Raw(task) => task.respond(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&Saying::Failed(failure.to_string()));
            eprintln!("softrdma-perf: the second process: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn serve(device: &DevicePlan, listen: SocketAddr, memory: u64, timeout: Duration, verbose: u8) -> Result<(), Failure> {
    softrdma_bins_common::logging::start(verbose);
    let endpoint = Endpoint::open(device, timeout)?;
    let _page = StatisticsPage::show(&endpoint.device, "softrdma-perf pair (server)");
    let server = Server::listen(endpoint, listen, memory)?;
    say(&Saying::Listening(server.address()));
    server.serve_one()
}

/// One line to the parent. That it does not listen any more is noticed by [`end_with_parent`].
pub(crate) fn say(message: &impl Serialize) {
    if let Ok(line) = serde_json::to_string(message) {
        let mut out = stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// Ends the process when standard input does.
fn end_with_parent() {
    std::thread::spawn(|| {
        let mut line = String::new();
        while stdin().read_line(&mut line).is_ok_and(|count| count > 0) {
            line.clear();
        }
        std::process::exit(3);
    });
}
