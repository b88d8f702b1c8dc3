//! Ends of our own: plain users of sockets, run as processes of their own with and without the library. Nothing in here knows of
//! it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use clap::Subcommand;
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

/// Bytes of a message.
pub(crate) const MESSAGE: usize = 100;
/// Round trips that come before what is measured.
const WARM_UP: u32 = 2000;
/// In place of its number: how many messages have come?
const QUESTION: u64 = u64::MAX;
/// How often a clock is looked at, in messages.
const BATCH: u64 = 64;

#[derive(Debug, Subcommand)]
pub(crate) enum End {
    /// Reads messages, one read each, and tells how many there were when it is asked.
    Sink { port: u16 },
    /// Sends every message back; one connection at a time.
    Echo { port: u16 },
    /// Sends every message back; all connections at once, by epoll.
    Crowd { port: u16 },
    /// Writes messages, one write each; prints how many a second arrived.
    Stream {
        port: u16,
        /// Without it: once for every number of seconds that standard input brings, each on a new connection.
        #[arg(long)]
        seconds: Option<f64>,
    },
    /// Prints how many round trips a second there were.
    Ping {
        port: u16,
        /// Without it: once for every number of seconds that standard input brings, each on a new connection.
        #[arg(long)]
        seconds: Option<f64>,
    },
    /// Prints how often a second a connection was opened, used for one request, and closed.
    Connects {
        port: u16,
        #[arg(long)]
        seconds: f64,
    },
    /// Some busy connections, beside idle ones; prints the rate of the busy ones for every number of seconds that standard
    /// input brings, and stays until that ends.
    Visit {
        port: u16,
        #[arg(long)]
        busy: usize,
        #[arg(long)]
        idle: usize,
        /// Round trips of each idle connection before it is idle.
        #[arg(long)]
        round_trips: u32,
    },
}

pub(crate) fn run(end: End) -> io::Result<()> {
    match end {
        End::Sink { port } => sink(port),
        End::Echo { port } => echo(port),
        End::Crowd { port } => crowd(port),
        End::Stream { port, seconds } => stream(port, seconds),
        End::Ping { port, seconds } => ping(port, seconds),
        End::Connects { port, seconds } => connects(port, seconds),
        End::Visit { port, busy, idle, round_trips } => visit(port, [busy, idle], round_trips),
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(local(port))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Prints what `run` measures: in so many `seconds`, or, if that is not said, in each number of them that standard input
/// brings. Processes that live at the same time take turns like that.
fn measure(seconds: Option<f64>, mut run: impl FnMut(Duration) -> io::Result<f64>) -> io::Result<()> {
    if let Some(seconds) = seconds {
        println!("{}", run(Duration::from_secs_f64(seconds))?);
        return Ok(());
    }
    for line in io::stdin().lines() {
        let seconds = line?.parse().map_err(io::Error::other)?;
        println!("{}", run(Duration::from_secs_f64(seconds))?);
    }
    Ok(())
}

/// Whether a whole message came; not so at the end of the connection.
fn read_message(stream: &mut TcpStream, message: &mut [u8; MESSAGE]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < MESSAGE {
        match stream.read(&mut message[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => filled += length,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn sink(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(local(port))?;
    loop {
        let (mut stream, _) = listener.accept()?;
        let (mut message, mut count) = ([0; MESSAGE], 0_u64);
        while read_message(&mut stream, &mut message)? {
            if message[..8] == QUESTION.to_le_bytes() {
                stream.write_all(&count.to_le_bytes())?;
            } else if message[..8] == count.to_le_bytes() {
                count += 1;
            } else {
                return Err(io::Error::other(format!("message {count} is another one")));
            }
        }
    }
}

fn stream(port: u16, seconds: Option<f64>) -> io::Result<()> {
    measure(seconds, |time| {
        let mut stream = connect(port)?;
        let mut message = [0xA5; MESSAGE];
        let mut send = |stream: &mut TcpStream, number: u64| {
            message[..8].copy_from_slice(&number.to_le_bytes());
            stream.write_all(&message)
        };
        let (begun, mut count) = (Instant::now(), 0_u64);
        while !count.is_multiple_of(BATCH) || begun.elapsed() < time {
            send(&mut stream, count)?;
            count += 1;
        }
        send(&mut stream, QUESTION)?;
        let mut arrived = [0; 8];
        stream.read_exact(&mut arrived)?;
        let taken = begun.elapsed();
        if u64::from_le_bytes(arrived) != count {
            return Err(io::Error::other(format!("{} of {count} messages arrived", u64::from_le_bytes(arrived))));
        }
        Ok(count as f64 / taken.as_secs_f64())
    })
}

fn echo(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(local(port))?;
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut message = [0; MESSAGE];
        while read_message(&mut stream, &mut message)? {
            stream.write_all(&message)?;
        }
    }
}

/// A message there and back, compared.
fn round_trip(stream: &mut TcpStream, number: u64) -> io::Result<()> {
    let (mut message, mut answer) = ([0x5A; MESSAGE], [0; MESSAGE]);
    message[..8].copy_from_slice(&number.to_le_bytes());
    stream.write_all(&message)?;
    if !read_message(stream, &mut answer)? {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    if answer == message { Ok(()) } else { Err(io::Error::other(format!("other bytes came back as message {number}"))) }
}

fn ping(port: u16, seconds: Option<f64>) -> io::Result<()> {
    measure(seconds, |time| {
        let mut stream = connect(port)?;
        for number in 0..WARM_UP {
            round_trip(&mut stream, number.into())?;
        }
        let (begun, mut count) = (Instant::now(), 0_u64);
        while !count.is_multiple_of(BATCH) || begun.elapsed() < time {
            round_trip(&mut stream, count)?;
            count += 1;
        }
        Ok(count as f64 / begun.elapsed().as_secs_f64())
    })
}

fn connects(port: u16, seconds: f64) -> io::Result<()> {
    let (begun, time, mut count) = (Instant::now(), Duration::from_secs_f64(seconds), 0_u64);
    while begun.elapsed() < time {
        round_trip(&mut connect(port)?, count)?;
        count += 1;
    }
    println!("{}", count as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

/// Many connections in one thread. The token of a connection is its place in the list; the listener's is behind all.
fn crowd(port: u16) -> io::Result<()> {
    const LISTENER: Token = Token(usize::MAX);
    let mut poll = Poll::new()?;
    let mut listener = mio::net::TcpListener::bind(local(port))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut streams: Vec<Option<mio::net::TcpStream>> = Vec::new();
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&listener, &poll, &mut streams)?;
            } else {
                answer_all(event, &mut streams)?;
            }
        }
    }
}

fn accept_all(
    listener: &mio::net::TcpListener,
    poll: &Poll,
    streams: &mut Vec<Option<mio::net::TcpStream>>,
) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nodelay(true)?;
                poll.registry().register(&mut stream, Token(streams.len()), Interest::READABLE)?;
                streams.push(Some(stream));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Sends back what is there, until there is no more: events come once only. What is sent back is little enough to fit.
fn answer_all(event: &Event, streams: &mut [Option<mio::net::TcpStream>]) -> io::Result<()> {
    let place = &mut streams[event.token().0];
    let Some(stream) = place else { return Ok(()) };
    let mut bytes = [0; 16 * MESSAGE];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => {
                *place = None;
                return Ok(());
            }
            Ok(length) => stream.write_all(&bytes[..length])?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn visit(port: u16, [busy, idle]: [usize; 2], round_trips: u32) -> io::Result<()> {
    let mut active = (0..busy).map(|_| connect(port)).collect::<io::Result<Vec<_>>>()?;
    for stream in &mut active {
        (0..WARM_UP).try_for_each(|number| round_trip(stream, number.into()))?;
    }
    let mut idlers = Vec::with_capacity(idle);
    for _ in 0..idle {
        let mut stream = connect(port)?;
        (0..round_trips).try_for_each(|number| round_trip(&mut stream, number.into()))?;
        idlers.push(stream);
    }
    measure(None, |time| rate_of_all(&mut active, time))?;
    // Whether they work still.
    idlers.iter_mut().try_for_each(|stream| round_trip(stream, u64::MAX))
}

/// Round trips a second of all together: each has a message on its way at a time.
fn rate_of_all(streams: &mut [TcpStream], time: Duration) -> io::Result<f64> {
    let message = [0x3C; MESSAGE];
    let mut answer = [0; MESSAGE];
    let (begun, mut count) = (Instant::now(), 0_u64);
    while begun.elapsed() < time && !streams.is_empty() {
        for stream in streams.iter_mut() {
            stream.write_all(&message)?;
        }
        for stream in streams.iter_mut() {
            if !read_message(stream, &mut answer)? || answer != message {
                return Err(io::Error::other("not the message came back"));
            }
            count += 1;
        }
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}
