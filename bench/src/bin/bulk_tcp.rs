//! `bulk_tcp`: one flow of plain kernel TCP, as fast as it goes, between two processes: what softrdma's goodput over a bad wire is
//! measured against. The receiver counts, after a time for the flow to settle.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of a read or write.
const CHUNK: usize = 256 << 10;

/// One flow of plain kernel TCP, as fast as it goes.
#[derive(Debug, Parser)]
#[command(name = "bulk_tcp", max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Takes one flow and prints what arrived, as one JSON object.
    Receive {
        /// Where to listen.
        address: SocketAddr,
        /// Seconds from the first byte that are not counted.
        #[arg(long, default_value_t = 0.5)]
        settle: f64,
        /// Seconds that are counted after that.
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Seconds that the flow goes on after that, uncounted, for the sake of others.
        #[arg(long, default_value_t = 0.0)]
        linger: f64,
    },
    /// Sends until the receiver has had enough.
    Send {
        /// Where the receiver listens.
        address: SocketAddr,
        /// The congestion control to ask the kernel for.
        #[arg(long, default_value = "cubic")]
        congestion: String,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().role {
        Role::Receive { address, settle, seconds, linger } => receive(address, [settle, seconds, linger]),
        Role::Send { address, congestion } => send(address, &congestion),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulk_tcp: {error}");
            ExitCode::FAILURE
        }
    }
}

fn receive(address: SocketAddr, times: [f64; 3]) -> io::Result<()> {
    let [settle, seconds, linger] = times.map(Duration::from_secs_f64);
    let (mut stream, _) = TcpListener::bind(address)?.accept()?;
    let mut chunk = vec![0; CHUNK];
    let first = stream.read(&mut chunk)?;
    if first == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    count(&mut stream, &mut chunk, settle)?;
    let (bytes, time) = count(&mut stream, &mut chunk, seconds)?;
    let gigabits = bytes as f64 * 8.0 / time.as_nanos() as f64;
    println!("{}", json!({ "throughput_gbps": gigabits, "bytes": bytes, "seconds": time.as_secs_f64() }));
    count(&mut stream, &mut chunk, linger)?;
    Ok(())
}

/// Bytes that arrive in about `time`, and the time it was.
fn count(stream: &mut TcpStream, chunk: &mut [u8], time: Duration) -> io::Result<(u64, Duration)> {
    // A flow that has come to a halt is waited for no longer than this at a time.
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let begun = Instant::now();
    let mut bytes = 0;
    while begun.elapsed() < time {
        match stream.read(chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => bytes += length as u64,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((bytes, begun.elapsed()))
}

fn send(address: SocketAddr, congestion: &str) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_congestion(congestion.as_bytes())?;
    connect(&socket, address)?;
    let mut stream = TcpStream::from(socket);
    let chunk = vec![0xA5; CHUNK];
    loop {
        match stream.write(&chunk) {
            Ok(_) => {}
            // The receiver has had enough.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Connects as soon as the receiver listens.
fn connect(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let begun = Instant::now();
    loop {
        match socket.connect(&address.into()) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            outcome => return outcome,
        }
    }
}
