//! An echo server and its client on tokio, each with several threads: what epoll with edge triggers makes of a connection. Every
//! byte is compared. Run by `tests/smc/compat/tokio.sh`.

#![forbid(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Most bytes of one write.
const LARGEST_WRITE: usize = 40_000;
/// What a reader asks for at once.
const CHUNK: usize = 16 << 10;

/// An echo server and its client on tokio.
#[derive(Debug, Parser)]
#[command(name = "tokio_echo", max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Sends back what comes, on every connection, until it is ended.
    Server {
        /// Where to listen, on 127.0.0.1.
        port: u16,
    },
    /// Sends and compares what comes back.
    Client {
        /// Where the server listens, on 127.0.0.1.
        port: u16,
        /// Connections at once.
        #[arg(long, default_value_t = 100)]
        connections: u64,
        /// Bytes of each connection.
        #[arg(long, default_value_t = 1_000_000)]
        bytes: u64,
        /// Round trips of a few bytes that come first.
        #[arg(long, default_value_t = 200)]
        round_trips: u64,
        /// What the bytes and the sizes of writes follow from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().role {
        Role::Server { port } => serve(port).await,
        Role::Client { port, connections, bytes, round_trips, seed } => {
            ask(port, connections, bytes, round_trips, seed).await
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

async fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(local(port)).await?;
    loop {
        let (stream, peer) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = echo(stream).await {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

/// Until the peer sends no more; then it learns that neither do we.
async fn echo(stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    tokio::io::copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}

async fn ask(port: u16, connections: u64, bytes: u64, round_trips: u64, seed: u64) -> io::Result<()> {
    println!("seed {seed}");
    let mut tasks = JoinSet::new();
    for index in 0..connections {
        tasks.spawn(one(port, seed.wrapping_mul(connections).wrapping_add(index), bytes, round_trips));
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome??;
    }
    Ok(())
}

/// One connection: round trips first, then both directions at once, then an orderly end.
async fn one(port: u16, seed: u64, bytes: u64, round_trips: u64) -> io::Result<()> {
    let (mut reader, mut writer) = TcpStream::connect(local(port)).await?.into_split();
    let mut rng = SmallRng::seed_from_u64(seed);
    for turn in 0..round_trips {
        let mut sent = vec![0; rng.random_range(1..100)];
        rng.fill_bytes(&mut sent);
        let mut got = vec![0; sent.len()];
        writer.write_all(&sent).await?;
        reader.read_exact(&mut got).await?;
        if got != sent {
            return Err(io::Error::other(format!("seed {seed}: other bytes came back in round trip {turn}")));
        }
    }
    let sending = tokio::spawn(send(writer, seed, bytes));
    compare(reader, seed, bytes).await?;
    sending.await?
}

/// The bytes of a connection: two generators of one seed give the same, however the bytes are asked for.
struct Pattern(SmallRng);

impl Pattern {
    fn new(seed: u64) -> Self {
        Pattern(SmallRng::seed_from_u64(!seed))
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.0.random());
    }
}

async fn send(mut writer: OwnedWriteHalf, seed: u64, bytes: u64) -> io::Result<()> {
    let (mut pattern, mut sizes) = (Pattern::new(seed), SmallRng::seed_from_u64(seed));
    let mut left = bytes as usize;
    while left > 0 {
        let mut part = vec![0; sizes.random_range(1..=LARGEST_WRITE).min(left)];
        pattern.fill(&mut part);
        writer.write_all(&part).await?;
        left -= part.len();
        // A pause now and then, so that the other end finds nothing and sleeps.
        if sizes.random_ratio(1, 20) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    writer.shutdown().await
}

async fn compare(mut reader: OwnedReadHalf, seed: u64, bytes: u64) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let (mut got, mut wanted) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    loop {
        let length = reader.read(&mut got).await?;
        if length == 0 {
            break;
        }
        pattern.fill(&mut wanted[..length]);
        if got[..length] != wanted[..length] {
            return Err(io::Error::other(format!("seed {seed}: other bytes came back from byte {at} on")));
        }
        at += length as u64;
    }
    if at == bytes { Ok(()) } else { Err(io::Error::other(format!("seed {seed}: {at} of {bytes} bytes came back"))) }
}
