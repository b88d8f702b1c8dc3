//! The two halves as two threads have them.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::SMALL_BURST_PACKETS;
use super::receive_half::ReceiveHalf;
use super::sending::Sending;
use super::shared::Mail;
use crate::port::Port;
use crate::stream::{
    Activity, ConnectError, Engine, EngineStatistics, Halves, ListenError, ListenerId, ReceiveEngine, ReceiveStreams,
    Source, StreamId, Streams, Transmitted,
};
use crate::time::Instant;

/// Messages that lie between the halves without an allocation: a few bursts' worth.
const MAIL: usize = 1024;
/// Messages of the receive half that are handled in one poll.
const MAIL_BUDGET: usize = 1024;

struct Receiving<P: Port>(ReceiveHalf<P>, Inbox<P>);

/// What the send half left for the receive half.
type Inbox<P> = Arc<Mail<super::receive_half::PacketOf<P>>>;

struct SendingAlone<P: Port>(Sending<P>, Inbox<P>);

pub(super) fn split<P: Port>(mut receive: ReceiveHalf<P>, mut sending: Sending<P>) -> Halves {
    receive.tells_first = true;
    let to_send = receive.to_send.share(MAIL);
    let to_receive = sending.to_receive.share(MAIL);
    let mail = Arc::new(Mail { to_send, to_receive });
    Halves {
        receive: Box::new(Receiving(receive, mail.clone())),
        send: Box::new(SendingAlone(sending, mail.clone())),
        mail,
    }
}

impl<P: Port> Receiving<P> {
    fn handle_messages(&mut self, now: Instant, streams: &mut dyn ReceiveStreams) -> usize {
        let mut events = 0;
        while let Some(message) = self.1.to_receive.pop() {
            events += self.0.handle_message(now, message, streams);
        }
        events
    }
}

impl<P: Port> ReceiveEngine for Receiving<P> {
    fn poll(&mut self, now: Instant, streams: &mut dyn ReceiveStreams) -> Activity {
        let received = self.0.receive();
        // What the other half left before the peer could answer is here by now, in both layers.
        streams.handle_burst();
        let mut events = self.handle_messages(now, streams);
        // Of a larger one the last acknowledgement says it all, and the other half is not asked to look at every one.
        events += self.0.handle_burst(now, received <= SMALL_BURST_PACKETS, streams);
        self.0.tell_acknowledgements();
        events += self.0.serve_touched(streams);
        Activity { received, events }
    }

    fn resume(&mut self, stream: StreamId) {
        self.0.resume(stream.into());
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        (self.0.has_touched() || !self.1.to_receive.is_empty()).then_some(now)
    }
}

impl<P: Port> Engine for SendingAlone<P> {
    fn connect(&mut self, now: Instant, remote: SocketAddr, local: Option<IpAddr>) -> Result<StreamId, ConnectError> {
        self.0.begin_connection(now, remote, local)
    }

    fn listen(&mut self, _now: Instant, local: SocketAddr, backlog: usize) -> Result<ListenerId, ListenError> {
        self.0.add_listener(local, backlog)
    }

    fn listener_address(&self, listener: ListenerId) -> Option<SocketAddr> {
        self.0.listener_address(listener)
    }

    fn close_listener(&mut self, _now: Instant, listener: ListenerId) {
        self.0.close_listener(listener);
    }

    fn poll(&mut self, now: Instant, streams: &mut dyn Streams) -> Activity {
        let mut events = self.0.poll(now, streams);
        for _ in 0..MAIL_BUDGET {
            let Some(message) = self.1.to_send.pop() else { break };
            events += self.0.handle_message(now, message, streams);
        }
        self.0.flush_frames();
        Activity { received: 0, events }
    }

    fn transmit(&mut self, now: Instant, stream: StreamId, source: &mut dyn Source) -> Transmitted {
        self.0.transmit(now, stream, source)
    }

    fn flush(&mut self, now: Instant) {
        self.0.flush(now);
    }

    fn resume(&mut self, _stream: StreamId) {}

    fn segment_size(&self, stream: StreamId) -> usize {
        self.0.segment_size(stream)
    }

    fn addresses(&self, stream: StreamId) -> Option<(SocketAddr, SocketAddr)> {
        self.0.addresses(stream)
    }

    fn local_addresses(&self) -> Vec<IpAddr> {
        self.0.local_addresses()
    }

    fn close(&mut self, now: Instant, stream: StreamId) {
        self.0.close_stream(now, stream);
    }

    fn abort(&mut self, now: Instant, stream: StreamId) {
        self.0.abort_stream(now, stream);
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        if self.1.to_send.is_empty() { self.0.next_deadline(now) } else { Some(now) }
    }

    fn readiness(&self) -> Option<Arc<OwnedFd>> {
        self.0.readiness()
    }

    fn statistics(&self) -> EngineStatistics {
        self.0.statistics()
    }
}
