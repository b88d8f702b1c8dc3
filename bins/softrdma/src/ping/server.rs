//! The side that reads the data and writes it back.

use std::net::SocketAddr;
use std::time::Duration;

use softrdma_bins_common::output;
use softrdma_verbs::{
    CmEventKind, CmId, Device, EventChannel, Operation, Payload, RemoteAddress, SegmentList, Stag, TaggedOffset,
};

use super::LARGEST;
use super::announcement::Announcement;
use super::end::{End, PingError, make, outcome};

pub(super) fn run(
    device: &Device,
    listen: SocketAddr,
    count: Option<u64>,
    persistent: bool,
    timeout: Duration,
    show: bool,
) -> Result<(), PingError> {
    let events = EventChannel::new(device).map_err(|error| make("make an event channel", error))?;
    let listener = CmId::new(&events);
    let address = listener.listen(listen, None).map_err(|source| PingError::Listen { address: listen, source })?;
    output::line(format_args!("listening on {address}"));
    loop {
        let client = next_client(&events);
        let peer = client.remote_address();
        let done = match serve(device, &events, client, timeout, show) {
            Ok(rounds) => rounds,
            Err(error) if persistent => {
                eprintln!("softrdma: {error}");
                continue;
            }
            Err(error) => return Err(error),
        };
        output::line(format_args!("{done} rounds with {}", peer.map_or_else(String::new, |peer| peer.to_string())));
        match count {
            _ if persistent => {}
            Some(expected) if expected != done => return Err(PingError::Rounds { done, expected }),
            _ => return Ok(()),
        }
    }
}

/// However long it takes to come.
fn next_client(events: &EventChannel) -> CmId {
    loop {
        if let Some(event) = events.get(Duration::from_secs(3600))
            && matches!(event.kind, CmEventKind::ConnectRequest { .. })
        {
            return event.id;
        }
    }
}

/// Serves one client until it leaves; gives the rounds it had.
fn serve(
    device: &Device,
    events: &EventChannel,
    client: CmId,
    timeout: Duration,
    show: bool,
) -> Result<u64, PingError> {
    let mut end = End::new(device, client, LARGEST, timeout)?;
    end.id.accept(&End::parameters()).map_err(|error| make("accept the client", error))?;
    match outcome(events, &end.id, timeout).map(|event| event.kind) {
        Some(CmEventKind::Established { .. }) => {}
        Some(_) => return Err(PingError::Closed("before it was there")),
        None => return Err(PingError::Timeout { what: "connection", limit: timeout }),
    }
    let mut rounds = 0;
    loop {
        let source = match end.announcement("announcement of data to read") {
            Ok(source) => source,
            // Between rounds is where a client leaves.
            Err(PingError::Closed(_)) => return Ok(rounds),
            Err(error) => return Err(error),
        };
        round(&mut end, source, show)?;
        rounds += 1;
    }
}

fn round(end: &mut End, source: Announcement, show: bool) -> Result<(), PingError> {
    let length = source.length;
    check_length(length)?;
    let sinks = list(end, length);
    end.request("the Read", Operation::Read { sinks, source: remote(source), invalidate: None })?;
    if show {
        let mut data = vec![0; length as usize];
        end.source.read(0, &mut data).map_err(|error| make("read memory", error))?;
        output::line(format_args!("server ping data: {}", String::from_utf8_lossy(&data).trim_end_matches('\0')));
    }
    end.announce(Announcement::default())?;
    let sink = end.announcement("announcement of memory to write")?;
    check_length(sink.length)?;
    let payload = Payload::Segments(list(end, length.min(sink.length)));
    end.request("the Write", Operation::Write { payload, target: remote(sink), immediate: None })?;
    // A client that leaves right after its last round may close before this Send is acknowledged, and that is no failure;
    // what follows finds the connection closed.
    match end.announce(Announcement::default()) {
        Err(PingError::Closed(_)) => Ok(()),
        outcome => outcome,
    }
}

/// The bytes that were read, which are those to be written.
fn list(end: &End, length: u32) -> SegmentList {
    SegmentList::new(&[end.source.segment(0, length)]).unwrap_or_default()
}

fn remote(memory: Announcement) -> RemoteAddress {
    RemoteAddress { stag: Stag(memory.key), offset: TaggedOffset(memory.address) }
}

fn check_length(length: u32) -> Result<(), PingError> {
    if u64::from(length) > LARGEST {
        return Err(PingError::TooLong { length, limit: LARGEST });
    }
    Ok(())
}
