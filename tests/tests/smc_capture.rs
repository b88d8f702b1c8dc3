//! What SMC's capture writes, and whether a dissector that is not ours understands it as we mean it.

use std::collections::HashMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use softrdma_smc::capture::{Capture, DEFAULT_SNAPSHOT_BYTES, End, Ending};
use softrdma_smc::wire::clc::{
    Accept, Confirm, Decline, DeclineReason, Endpoint, Ipv6Prefix, MAX_EMITTED, Message, Offer, Prefixes, Proposal,
    RdmaEndpoint, RoceAddress, SharedEndpoint, Subnet,
};
use softrdma_smc::wire::{
    AlertToken, BufferSize, DmbToken, ElementIndex, Gid, LinkId, Mac, Mtu, PeerId, Psn, Qpn, Rkey, RmbAddress, RoceGid,
};
use softrdma_tests::program::Scratch;
use softrdma_tests::skip;

const PEER: PeerId = PeerId(0x1234_0200_00ab_cdef);
const MAC: Mac = Mac([2, 0, 0, 0xab, 0xcd, 0xef]);

fn gid() -> RoceGid {
    RoceGid(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7))
}

fn rdma() -> RoceAddress {
    RoceAddress { gid: gid(), mac: MAC }
}

fn shared_end(seed: u8) -> Endpoint {
    Endpoint::Shared(SharedEndpoint {
        gid: Gid(0x0102_0304_0506_0700 | u64::from(seed)),
        token: DmbToken(0x1112_1314_1516_1700 | u64::from(seed)),
        element: ElementIndex(seed),
        buffer_size: BufferSize::LARGEST,
        link: LinkId(0x2122_2300 | u32::from(seed)),
    })
}

fn rdma_end(seed: u8) -> Endpoint {
    Endpoint::Rdma(RdmaEndpoint {
        peer: PEER,
        gid: gid(),
        mac: MAC,
        qpn: Qpn::new(0x0a_0b00 | u32::from(seed)).expect("24 bits"),
        rkey: Rkey(0x3132_3300 | u32::from(seed)),
        element: ElementIndex(seed),
        alert_token: AlertToken(0x4142_4300 | u32::from(seed)),
        buffer_size: BufferSize::of_bytes(64 << 10).expect("a size"),
        mtu: Mtu::new(3).expect("four bits"),
        address: RmbAddress(0x5152_5354_5556_5700 | u64::from(seed)),
        psn: Psn::new(0x61_6200 | u32::from(seed)).expect("24 bits"),
    })
}

fn proposal(offer: Offer, subnet: Subnet) -> Message {
    Message::Proposal(Proposal { peer: PEER, offer, subnet })
}

/// A message, and what tshark calls its parts.
struct Sent {
    from: End,
    message: Message,
    fields: &'static [(&'static str, &'static str)],
}

/// SMC-D over IPv4.
fn shared_exchange() -> [Sent; 3] {
    let subnet = Subnet::Ipv4 { subnet: Ipv4Addr::new(127, 0, 0, 0), bits: 8 };
    [
        Sent {
            from: End::Client,
            message: proposal(Offer::Both { rdma: rdma(), shared: Gid(0x0102_0304_0506_0708) }, subnet),
            fields: &[
                ("smc.clc_msg", "1"),
                ("smc.length", "92"),
                ("smc.proposal.smc.version", "1"),
                ("smc.proposal.smc.type", "3"),
                ("smc.proposal.sender.client.peer.id", "0x1234020000abcdef"),
                ("smc.proposal.client.preferred.gid", "2001:db8::7"),
                ("smc.proposal.client.preferred.mac", "02:00:00:ab:cd:ef"),
                ("smc.proposal.ism.gid", "0x0102030405060708"),
                ("smc.outgoing.interface.subnet.mask", "127.0.0.0"),
                ("smc.outgoing.interface.subnet.mask.number.of.significant.bits", "8"),
            ],
        },
        Sent {
            from: End::Server,
            message: Message::Accept(Accept { is_first_contact: true, endpoint: shared_end(8) }),
            fields: &[
                ("smc.clc_msg", "2"),
                ("smc.length", "48"),
                ("smc.accept.first.contact", "1"),
                ("smc.accept.sender.server.ism.gid", "0x0102030405060708"),
                ("smc.accept.dmb.token", "0x1112131415161708"),
                ("smc.accept.dmbe.conn.index", "8"),
                ("smc.accept.dmbe.buffer.size", "5"),
                ("smc.accept.server.linkid", "0x21222308"),
            ],
        },
        Sent {
            from: End::Client,
            message: Message::Confirm(Confirm { endpoint: shared_end(9) }),
            fields: &[
                ("smc.clc_msg", "3"),
                ("smc.length", "48"),
                ("smc.confirm.sender.client.ism.gid", "0x0102030405060709"),
                ("smc.confirm.dmb.token", "0x1112131415161709"),
                ("smc.confirm.dmbe.conn.index", "9"),
                ("smc.confirm.dmbe.buffer.size", "5"),
                ("smc.confirm.client.linkid", "0x21222309"),
            ],
        },
    ]
}

/// SMC-R over IPv6.
fn rdma_exchange() -> [Sent; 3] {
    let prefix = Ipv6Prefix { prefix: Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0), bits: 64 };
    let subnet = Subnet::Ipv6(Prefixes::new(&[prefix]).expect("a prefix"));
    [
        Sent {
            from: End::Client,
            message: proposal(Offer::Rdma(rdma()), subnet),
            fields: &[
                ("smc.clc_msg", "1"),
                ("smc.length", "109"),
                ("smc.proposal.smc.type", "0"),
                ("smc.proposal.ipv6.prefix.count", "1"),
                ("smc.proposal.ipv6.prefix.value", "2001:db8:0:1::"),
                ("smc.proposal.ipv6.prefix.length", "64"),
            ],
        },
        Sent {
            from: End::Server,
            message: Message::Accept(Accept { is_first_contact: false, endpoint: rdma_end(8) }),
            fields: &[
                ("smc.clc_msg", "2"),
                ("smc.length", "68"),
                ("smc.accept.sender.server.peer.id", "0x1234020000abcdef"),
                ("smc.accept.server.preferred.gid", "2001:db8::7"),
                ("smc.accept.server.preferred.mac", "02:00:00:ab:cd:ef"),
                ("smc.accept.server.qp.number", "0x0a0b08"),
                ("smc.accept.server.rmb.rkey", "0x31323308"),
                ("smc.accept.server.tcp.conn.index", "8"),
                ("smc.accept.server.rmb.element.alert.token", "0x41424308"),
                ("smc.accept.rmb.buffer.size", "2"),
                ("smc.accept.qp.mtu.value", "3"),
                ("smc.accept.server.rmb.virtual.address", "0x5152535455565708"),
                ("smc.accept.initial.psn", "0x616208"),
            ],
        },
        Sent {
            from: End::Client,
            message: Message::Confirm(Confirm { endpoint: rdma_end(9) }),
            fields: &[
                ("smc.clc_msg", "3"),
                ("smc.length", "68"),
                ("smc.confirm.sender.client.peer.id", "0x1234020000abcdef"),
                ("smc.client.gid", "2001:db8::7"),
                ("smc.confirm.client.mac", "02:00:00:ab:cd:ef"),
                ("smc.confirm.client.qp.number", "0x0a0b09"),
                ("smc.confirm.client.rmb.rkey", "0x31323309"),
                ("smc.confirm.client.tcp.conn.index", "9"),
                ("smc.client.rmb.element.alert.token", "0x41424309"),
                ("smc.confirm.rmb.buffer.size", "2"),
                ("smc.confirm.qp.mtu.value", "3"),
                ("smc.client.rmb.virtual.address", "0x5152535455565709"),
                ("smc.initial.psn", "0x616209"),
            ],
        },
    ]
}

/// A proposal of SMC-D only that is declined.
fn declined_exchange() -> [Sent; 2] {
    let subnet = Subnet::Ipv4 { subnet: Ipv4Addr::new(192, 0, 2, 0), bits: 24 };
    let decline = Decline { peer: PEER, reason: DeclineReason::BUFFER_LIMIT, is_out_of_sync: true };
    [
        Sent {
            from: End::Client,
            message: proposal(Offer::Shared(Gid(7)), subnet),
            fields: &[
                ("smc.clc_msg", "1"),
                ("smc.proposal.smc.type", "1"),
                ("smc.proposal.ism.gid", "0x0000000000000007"),
            ],
        },
        Sent {
            from: End::Server,
            message: Message::Decline(decline),
            fields: &[
                ("smc.clc_msg", "4"),
                ("smc.length", "28"),
                ("smc.decline.osync", "1"),
                ("smc.sender.peer.id", "0x1234020000abcdef"),
                ("smc.peer.diag.info", "0x030d0000"),
            ],
        },
    ]
}

/// Writes a connection whose client has the port `port`: the messages, data both ways, and its end.
fn write_connection(capture: &Capture, ip: IpAddr, port: u16, sent: &[Sent]) {
    let connection = capture.connection(SocketAddr::new(ip, port), SocketAddr::new(ip, 6379));
    for Sent { from, message, .. } in sent {
        connection.clc(*from, message.emit(&mut [0; MAX_EMITTED]));
    }
    connection.data(End::Client, 0, b"*1\r\n$4\r\nPING\r\n");
    connection.data(End::Server, 0, b"+PONG\r\n");
    connection.close(End::Client, Ending::Finished);
    connection.close(End::Server, Ending::Finished);
}

/// tshark on `file`, with every sum checked and nothing of a user's own settings.
fn tshark(file: &Path, home: &Path) -> Command {
    let mut command = Command::new("tshark");
    command.env("HOME", home).env("XDG_CONFIG_HOME", home).arg("-r").arg(file);
    command.args(["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]);
    // Or the dissector of the server's port takes everything for itself.
    command.args(["-o", "tcp.try_heuristic_first:TRUE"]);
    command
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("run tshark");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// What tshark says of the SMC messages whose client has the port `port`, in their order.
fn dissected(file: &Path, home: &Path, port: u16, names: &[&str]) -> Vec<HashMap<String, String>> {
    let mut command = tshark(file, home);
    command.args(["-Y", &format!("smc && tcp.port == {port}"), "-T", "fields", "-E", "separator=|"]);
    for name in names {
        command.args(["-e", name]);
    }
    let lines = output(&mut command);
    let row = |line: &str| names.iter().map(ToString::to_string).zip(line.split('|').map(str::to_owned)).collect();
    lines.lines().map(row).collect()
}

#[test]
fn tshark_understands_our_messages_as_we_mean_them() {
    if Command::new("tshark").arg("--version").output().is_err() {
        return skip("dissection of SMC's capture", "no tshark (apt-get install tshark)");
    }
    let scratch = Scratch::new("smc-capture");
    let (file, home) = (scratch.file("smc.pcap"), scratch.file("home"));
    std::fs::create_dir(&home).expect("a directory");
    let capture = Capture::create(File::create(&file).expect("a file"), DEFAULT_SNAPSHOT_BYTES).expect("a capture");
    let exchanges: [(IpAddr, u16, Vec<Sent>); 3] = [
        (Ipv4Addr::LOCALHOST.into(), 40_001, shared_exchange().into()),
        (Ipv6Addr::LOCALHOST.into(), 40_002, rdma_exchange().into()),
        (Ipv4Addr::new(192, 0, 2, 1).into(), 40_003, declined_exchange().into()),
    ];
    for (ip, port, sent) in &exchanges {
        write_connection(&capture, *ip, *port, sent);
    }
    assert_eq!(capture.failure(), None);

    for (_, port, sent) in &exchanges {
        let mut names: Vec<&str> = sent.iter().flat_map(|sent| sent.fields).map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        let rows = dissected(&file, &home, *port, &names);
        assert_eq!(rows.len(), sent.len(), "messages that tshark sees on port {port}: {rows:#?}");
        for (row, Sent { message, fields, .. }) in rows.iter().zip(sent) {
            for (name, value) in *fields {
                assert_eq!(row[*name], *value, "{name} of {message:?}");
            }
        }
    }

    // Malformed in any layer, a wrong sum, or a stream that does not fit together.
    let bad = "_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 || tcp.analysis.flags";
    assert_eq!(output(tshark(&file, &home).args(["-Y", bad])), "");
    let good = output(tshark(&file, &home).args(["-Y", "tcp.checksum.status == 1"]));
    assert_eq!(good.lines().count(), 3 * 7 + 3 + 3 + 2, "frames whose sums were checked:\n{good}");
    let options = output(tshark(&file, &home).args(["-Y", "tcp.options.experimental.exid == 0xe2d4"]));
    assert_eq!(options.lines().count(), 3 * 2, "SYNs and SYN-ACKs with SMC's option:\n{options}");
    let payload = ["-z", "follow,tcp,ascii,0", "-q"];
    let stream = output(tshark(&file, &home).args(payload));
    assert!(stream.contains("PING") && stream.contains("+PONG"), "the data follows the messages:\n{stream}");
}
