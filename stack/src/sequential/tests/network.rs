//! Below TCP: addresses, neighbours, gateways, ping, captures.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet,
    Icmpv6Repr, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpControl, TcpPacket, TcpRepr,
};

use super::bare::{Bare, ITS, OURS, arp, segment};
use super::world::{Host, Plan, World, config};
use crate::memory_port::{Impairments, wire};
use crate::pcap::PcapWriter;
use crate::port::Port;
use crate::sequential::{SequentialConfig, SequentialEngine, SequentialError};
use crate::stream::{Engine, StreamEvent};
use crate::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

fn exchange(world: &mut World, remote: &str) {
    for host in &mut world.hosts {
        host.application.plan = Plan { to_send: 100_000, expected: 100_000, closes: true, ..Plan::default() };
    }
    let now = world.wire.now();
    world.hosts[0].connect(now, remote);
    let closed = |host: &Host| host.application.has(|event| matches!(event, StreamEvent::Closed { .. }));
    world.expect("an exchange", MINUTE, |hosts| hosts.iter().all(closed));
}

#[test]
fn ipv6_with_neighbour_discovery() {
    let configs = [config(&["fd00::1/64"], 1), config(&["fd00::2/64"], 2)];
    let mut world = World::new(1, Impairments::default(), configs);
    world.hosts[1].listen("[fd00::2]:7", 1);
    let stream = world.hosts[0].connect(Instant::ZERO, "[fd00::2]:7");
    world.expect("connected", MINUTE, |hosts| !hosts[0].application.events.is_empty());
    assert_eq!(world.hosts[0].engine.segment_size(stream), 1440, "an IPv6 header is 40 bytes");
    exchange(&mut world, "[fd00::2]:7");
}

#[test]
fn ipv6_with_checksums_left_to_the_port_and_a_bad_wire() {
    let configs = [config(&["fd00::1/64"], 1), config(&["fd00::2/64"], 2)];
    let impairments = Impairments {
        checksum_offload: true,
        // Longer than a neighbour solicitation: those are rare, and losing one costs a second.
        corrupt_longer_than: 90,
        corrupt: 0.01,
        loss: 0.01,
        ..Impairments::default()
    };
    let mut world = World::new(3, impairments, configs);
    world.hosts[1].listen("[::]:7", 1);
    exchange(&mut world, "[fd00::2]:7");
}

#[test]
fn two_addresses_and_two_families_at_once() {
    let configs = [
        config(&["10.0.0.1/24", "10.1.0.1/24", "fd00::1/64"], 1),
        config(&["10.0.0.2/24", "10.1.0.2/24", "fd00::2/64"], 2),
    ];
    let mut world = World::new(1, Impairments::default(), configs);
    world.hosts[1].listen("[::]:7", 4);
    let now = world.wire.now();
    for remote in ["10.0.0.2:7", "10.1.0.2:7", "[fd00::2]:7"] {
        world.hosts[0].connect(now, remote);
    }
    world.expect("three streams", MINUTE, |hosts| hosts[1].application.order.len() == 3);
    for event in &world.hosts[1].application.events {
        let StreamEvent::Incoming { local, remote, .. } = event else { panic!("{event:?}") };
        let expected = match local.ip().to_string().as_str() {
            "10.0.0.2" => "10.0.0.1",
            "10.1.0.2" => "10.1.0.1",
            _ => "fd00::1",
        };
        assert_eq!(remote.ip().to_string(), expected, "the source is on the network of the destination");
    }
    assert_eq!(world.hosts[0].engine.local_addresses().len(), 3);
}

#[test]
fn a_listener_at_one_address_does_not_hear_the_other() {
    let configs = [config(&["10.0.0.1/24"], 1), config(&["10.0.0.2/24", "10.0.0.3/24"], 2)];
    let mut world = World::new(1, Impairments::default(), configs);
    let first = world.hosts[1].listen("10.0.0.2:7", 4);
    let second = world.hosts[1].listen("10.0.0.3:7", 4);
    world.hosts[0].connect(Instant::ZERO, "10.0.0.3:7");
    world.expect("a stream", MINUTE, |hosts| hosts[1].application.order.len() == 1);
    let StreamEvent::Incoming { listener, .. } = world.hosts[1].application.events[0] else { panic!("no stream") };
    assert!(listener == second && listener != first);
}

#[test]
fn ping_is_answered() {
    let mut bare = Bare::new(config(&["10.0.0.2/24"], 1), Impairments::default());
    bare.introduce();
    let data = [7; 56];
    let icmp = Icmpv4Repr::EchoRequest { ident: 1, seq_no: 2, data: &data };
    let ip = Ipv4Repr {
        src_addr: [10, 0, 0, 1].into(),
        dst_addr: [10, 0, 0, 2].into(),
        next_header: IpProtocol::Icmp,
        payload_len: icmp.buffer_len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; ip.buffer_len() + icmp.buffer_len()];
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes), &checksums);
    icmp.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes[20..]), &checksums);
    bare.send(ITS, EthernetProtocol::Ipv4, &bytes);
    let answers = bare.answers();
    let packet = Icmpv4Packet::new_checked(&answers[0][34..]).expect("ICMP");
    let reply = Icmpv4Repr::parse(&packet, &checksums).expect("a good reply");
    assert_eq!(reply, Icmpv4Repr::EchoReply { ident: 1, seq_no: 2, data: &data });
}

#[test]
fn ping_over_ipv6_is_answered_after_asking_for_the_neighbour() {
    let mut bare = Bare::new(config(&["fd00::2/64"], 1), Impairments::default());
    let (ours, its) = ("fd00::1".parse().expect("an address"), "fd00::2".parse().expect("an address"));
    let icmp = Icmpv6Repr::EchoRequest { ident: 1, seq_no: 2, data: &[9; 20] };
    let ip = Ipv6Repr {
        src_addr: ours,
        dst_addr: its,
        next_header: IpProtocol::Icmpv6,
        payload_len: icmp.buffer_len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; ip.buffer_len() + icmp.buffer_len()];
    ip.emit(&mut Ipv6Packet::new_unchecked(&mut bytes));
    icmp.emit(&ours, &its, &mut Icmpv6Packet::new_unchecked(&mut bytes[40..]), &ChecksumCapabilities::default());
    bare.send(ITS, EthernetProtocol::Ipv6, &bytes);
    let answers = bare.answers();
    let frame = EthernetFrame::new_checked(answers[0].as_slice()).expect("a frame");
    assert_eq!(frame.dst_addr().as_bytes()[..3], [0x33, 0x33, 0xff], "a neighbour solicitation, by multicast");
}

#[test]
fn what_is_on_no_network_of_ours_goes_to_the_gateway() {
    let mut configuration = config(&["10.0.0.2/24"], 1);
    configuration.gateways = vec!["10.0.0.254".parse().expect("an address")];
    let mut bare = Bare::new(configuration, Impairments::default());
    let remote = "192.168.99.99:80".parse().expect("an address");
    bare.engine.connect(bare.now, remote, None).expect("a route by the gateway");
    let asked = bare.answers();
    let request = ArpPacket::new_checked(&asked[0][14..]).expect("ARP");
    assert_eq!(request.target_protocol_addr(), [10, 0, 0, 254], "it asks for the gateway");
    bare.send(ITS, EthernetProtocol::Arp, &arp(ArpOperation::Reply, [10, 0, 0, 254]));
    let sent = bare.answers();
    let frame = EthernetFrame::new_checked(sent[0].as_slice()).expect("a frame");
    assert_eq!(frame.dst_addr(), OURS);
    let packet = Ipv4Packet::new_checked(frame.payload()).expect("IPv4");
    assert_eq!(packet.dst_addr().octets(), [192, 168, 99, 99]);
}

/// The destinations of the IPv4 packets among `frames`.
fn destinations(frames: &[Vec<u8>]) -> Vec<[u8; 4]> {
    let ipv4 = frames.iter().filter(|frame| frame[12..14] == [0x08, 0x00]);
    ipv4.map(|frame| Ipv4Packet::new_unchecked(&frame[14..]).dst_addr().octets()).collect()
}

#[test]
fn each_connection_that_waits_for_a_neighbour_goes_on_when_its_own_is_known() {
    let mut bare = Bare::new(config(&["10.0.0.2/24"], 1), Impairments::default());
    for remote in ["10.0.0.3:80", "10.0.0.4:80"] {
        bare.engine.connect(bare.now, remote.parse().expect("an address"), None).expect("a beginning");
    }
    assert_eq!(destinations(&bare.answers()), [[0; 4]; 0], "nobody is known");
    bare.send(ITS, EthernetProtocol::Arp, &arp(ArpOperation::Reply, [10, 0, 0, 4]));
    assert_eq!(destinations(&bare.answers()), [[10, 0, 0, 4]]);
    bare.send(ITS, EthernetProtocol::Arp, &arp(ArpOperation::Reply, [10, 0, 0, 3]));
    assert_eq!(destinations(&bare.answers()), [[10, 0, 0, 3]], "and it was not forgotten");
}

#[test]
fn frames_about_neighbours_wake_no_connection_that_waits_for_none() {
    const MANY: u16 = 20;
    let mut bare = Bare::new(config(&["10.0.0.2/24", "fd00::2/64"], 1), Impairments::default());
    bare.engine.listen(bare.now, "10.0.0.2:7".parse().expect("an address"), MANY.into()).expect("a listener");
    bare.introduce();
    for port in 1000..1000 + MANY {
        bare.send_segment(&segment(port, TcpControl::Syn, 99));
        let answers = bare.answers();
        let theirs = TcpPacket::new_checked(&answers[0][34..]).expect("a SYN-ACK").seq_number();
        bare.send_segment(&TcpRepr { ack_number: Some(theirs + 1), ..segment(port, TcpControl::None, 100) });
        bare.answers();
    }
    assert_eq!(bare.nobody.events.len(), usize::from(MANY), "all are established");
    let mut for_another = arp(ArpOperation::Request, [10, 0, 0, 1]);
    for_another[24..28].copy_from_slice(&[10, 0, 0, 77]);
    let mut datagram = [0; 48];
    (datagram[0], datagram[5], datagram[6], datagram[7]) = (0x60, 8, 17, 64);
    for (kind, payload) in [
        (EthernetProtocol::Arp, for_another.as_slice()),
        (EthernetProtocol::Arp, &arp(ArpOperation::Request, [10, 0, 0, 1])),
        (EthernetProtocol::Ipv6, &datagram),
    ] {
        assert!(!bare.engine.sockets.is_any_due());
        bare.send(EthernetAddress::BROADCAST, kind, payload);
        bare.engine.poll(bare.now, &mut bare.nobody);
        assert!(!bare.engine.sockets.is_any_due(), "{kind} makes sockets be looked at");
        bare.answers();
    }
}

#[test]
fn configurations_that_cannot_be_say_why() {
    let make = |change: &dyn Fn(&mut SequentialConfig)| {
        let mut configuration = config(&["10.0.0.2/24"], 1);
        change(&mut configuration);
        let (port, ..) = wire(1, Impairments::default());
        SequentialEngine::new(port, configuration, Instant::ZERO).err().map(|error| error.to_string())
    };
    let gateway = |text: &str| vec![text.parse().expect("an address")];
    assert_eq!(make(&|_| {}), None);
    let wrong = |change: &dyn Fn(&mut SequentialConfig), part: &str| {
        let message = make(change).expect("an error");
        assert!(message.contains(part), "`{message}` does not name {part}");
    };
    wrong(&|config| config.addresses.clear(), "0 entries");
    wrong(&|config| config.addresses[0].1 = 33, "10.0.0.2/33");
    wrong(&|config| config.addresses[0].0 = "224.0.0.1".parse().unwrap(), "224.0.0.1");
    wrong(&|config| config.gateways = gateway("10.9.0.1"), "10.9.0.1");
    wrong(&|config| config.mtu = Some(100), "100");
    wrong(&|config| config.max_connections = 0, "max_connections");
    wrong(&|config| config.socket_buffer_bytes = 1, "socket_buffer_bytes");
    wrong(&|config| config.keep_alive_interval = MINUTE * 2, "keep_alive_interval");
    let (mut port, ..) = wire(1, Impairments::default());
    port.take_receive_queue(0);
    let error = SequentialEngine::new(port, config(&["10.0.0.2/24"], 1), Instant::ZERO).err();
    assert_eq!(error, Some(SequentialError::QueueTaken));
}

/// A file in memory that outlives its writer.
#[derive(Clone, Default)]
struct SharedFile(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for SharedFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("a whole file").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_capture_holds_every_frame_once() {
    let file = SharedFile::default();
    let mut first = config(&["10.0.0.1/24"], 1);
    first.capture = Some(Box::new(PcapWriter::new(file.clone(), Duration::ZERO, 65_535).expect("a header")));
    let mut world = World::new(1, Impairments::default(), [first, config(&["10.0.0.2/24"], 2)]);
    world.hosts[1].listen("10.0.0.2:7", 1);
    exchange(&mut world, "10.0.0.2:7");
    let port = world.hosts[0].engine.statistics().port.expect("a port");
    let bytes = file.0.lock().expect("a whole file").clone();
    let (mut at, mut frames) = (24, 0);
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().expect("four bytes"));
        at += 16 + length as usize;
        frames += 1;
    }
    assert_eq!(at, bytes.len());
    assert_eq!(frames, port.received_packets + port.transmitted_packets);
}
