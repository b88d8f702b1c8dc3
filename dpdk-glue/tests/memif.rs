//! Two processes with shared memory between them.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{Side, argument, bytes, eal, pattern, queues, receive_exactly, role, send_pattern, unique_name};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
use softrdma_dpdk_glue::{EthPort, MemifRole, PortConfig, PortError};
use softrdma_stack::port::{LinkState, Packet, Port, ReceiveQueue, TransmitOffload, TransmitQueue};

const LENGTHS: [usize; 9] = [14, 60, 64, 128, 1500, 1514, 2048, 4000, 9014];
const ROUNDS: usize = 200;

/// Opens this process's end; the test's argument is the socket.
fn open(role: MemifRole, mtu: usize) -> EthPort {
    let port = EthPort::open(&eal(), &PortConfig::memif(role, 0, &argument()).with_mtu(mtu)).expect("memif opens");
    assert!(port.wait_for_link(Duration::from_secs(20)), "the link does not come up");
    port
}

#[test]
fn frames_of_every_length_come_back_from_another_process() {
    const TEST: &str = "frames_of_every_length_come_back_from_another_process";
    match role().as_deref() {
        Some("server") => echo_server(),
        Some("client") => echo_client(),
        _ => {
            let socket = unique_name("echo");
            let server = Side::start(TEST, "server", &socket);
            Side::start(TEST, "client", &socket).expect_success();
            server.expect_success();
        }
    }
}

fn echo_server() {
    let mut port = open(MemifRole::Server, 9000);
    let (mut receive, mut transmit) = queues(&mut port);
    for round in 0..ROUNDS {
        for packet in receive_exactly(&mut receive, &mut transmit, LENGTHS.len()) {
            let length = packet.length();
            assert!(bytes(&packet).into_iter().eq(pattern(round, length)), "round {round}, {length} bytes");
            send_pattern(&mut transmit, round + 1, length);
        }
    }
    while transmit.flush() > 0 {
        thread::yield_now();
    }
    // The client leaves when it has everything; its leaving must be seen and survived.
    let begin = Instant::now();
    let mut packets = Vec::new();
    while port.link_state() == LinkState::Up {
        receive.receive(&mut packets);
        assert!(begin.elapsed() < Duration::from_secs(20), "the client's leaving goes unnoticed");
    }
    let statistics = port.statistics();
    assert_eq!(statistics.received_packets, (ROUNDS * LENGTHS.len()) as u64);
    assert_eq!(statistics.transmitted_bytes, (ROUNDS * LENGTHS.iter().sum::<usize>()) as u64);
}

fn echo_client() {
    let mut port = open(MemifRole::Client, 9000);
    assert_eq!(port.capabilities().mtu, 9000);
    assert_eq!(port.driver_name(), "net_memif");
    let (mut receive, mut transmit) = queues(&mut port);
    let (capacity, before) = port.pool_buffers();
    for round in 0..ROUNDS {
        for length in LENGTHS {
            send_pattern(&mut transmit, round, length);
        }
        let packets = receive_exactly(&mut receive, &mut transmit, LENGTHS.len());
        for (packet, length) in packets.iter().zip(LENGTHS) {
            assert_eq!((packet.length(), packet.segments()), (length, 1), "round {round}");
            assert!(bytes(packet).into_iter().eq(pattern(round + 1, length)), "round {round}, {length} bytes");
        }
    }
    let (_, after) = port.pool_buffers();
    assert!(after + 64 >= before, "{} of {capacity} buffers are lost", before - after);
}

/// Rounds of [`a_server_that_polls_survives_clients_that_are_killed`].
const KILLS: usize = 50;

#[test]
fn a_server_that_polls_survives_clients_that_are_killed() {
    const TEST: &str = "a_server_that_polls_survives_clients_that_are_killed";
    match role().as_deref() {
        Some("server") => polling_server(),
        Some("client") => flooding_client(),
        _ => {
            let socket = unique_name("kill");
            let mut server = Side::start(TEST, "server", &socket);
            for round in 0..KILLS {
                let mut client = Side::start(TEST, "client", &socket);
                let is_up = client.await_line("up");
                if !server.is_running() {
                    panic!("the server is gone after {round} kills: {}", server.expect_success());
                }
                is_up.expect("a client of a running server gets its link");
                // Killed at different moments of the flood.
                thread::sleep(Duration::from_millis((round as u64 * 7) % 50));
                client.kill();
            }
            server.end_input();
            let text = server.expect_success();
            let links: usize =
                text.split("links ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(0);
            // A link that goes and comes while the server is not running at all is seen as one.
            assert!(links >= KILLS / 2, "only {links} of {KILLS} clients got as far as sending:\n{text}");
        }
    }
}

#[test]
fn a_server_survives_clients_that_hang_up_before_they_are_greeted() {
    const TEST: &str = "a_server_survives_clients_that_hang_up_before_they_are_greeted";
    match role().as_deref() {
        Some("server") => polling_server(),
        Some("client") => drop(open(MemifRole::Client, 1500)),
        _ => {
            let path = std::env::temp_dir().join(unique_name("hang-up"));
            let path = path.to_str().expect("a plain name");
            let mut server = Side::start(TEST, "server", path);
            let address = SocketAddrUnix::new(path).expect("a short path");
            let begin = Instant::now();
            let mut connected = 0;
            while connected < 200 {
                assert!(
                    server.is_running(),
                    "the server is gone after {connected} clients: {}",
                    server.expect_success()
                );
                assert!(begin.elapsed() < Duration::from_secs(50), "only {connected} clients could connect");
                let client = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("sockets can be had");
                match connect(&client, &address) {
                    Ok(()) => connected += 1,
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
            Side::start(TEST, "client", path).expect_success();
            server.end_input();
            server.expect_success();
        }
    }
}

/// Polls until its input ends, and echoes half of what it gets.
fn polling_server() {
    let mut port = EthPort::open(&eal(), &PortConfig::memif(MemifRole::Server, 0, &argument())).expect("memif opens");
    let (mut receive, mut transmit) = queues(&mut port);
    let is_over = common::input_ends();
    let (mut links, mut received, mut was_up) = (0, 0u64, false);
    let mut packets = Vec::new();
    while !is_over() {
        for _ in 0..1000 {
            received += receive.receive(&mut packets) as u64;
            for packet in packets.drain(..).step_by(2) {
                if let Some(frame) = transmit.frame(packet.length()) {
                    let _ = transmit.send(frame, TransmitOffload::default());
                }
            }
            transmit.flush();
        }
        let is_up = port.link_state() == LinkState::Up;
        links += usize::from(is_up && !was_up);
        was_up = is_up;
    }
    println!("links {links} received {received}");
}

fn flooding_client() {
    let mut port = open(MemifRole::Client, 1500);
    println!("up");
    let (mut receive, mut transmit) = queues(&mut port);
    let begin = Instant::now();
    let mut packets = Vec::new();
    while begin.elapsed() < Duration::from_secs(20) {
        for _ in 0..32 {
            if let Some(frame) = transmit.frame(1514) {
                let _ = transmit.send(frame, TransmitOffload::default());
            }
        }
        transmit.flush();
        receive.receive(&mut packets);
        packets.clear();
    }
}

#[test]
fn a_name_is_free_again_when_its_server_closes() {
    const TEST: &str = "a_name_is_free_again_when_its_server_closes";
    if role().is_none() {
        Side::start(TEST, "both", &unique_name("again")).expect_success();
        return;
    }
    let eal = eal();
    for round in 0..10 {
        let mut server =
            EthPort::open(&eal, &PortConfig::memif(MemifRole::Server, 0, &argument())).expect("it opens again");
        let mut client = open(MemifRole::Client, 1500);
        let (mut receive, _) = queues(&mut server);
        let (_, mut transmit) = queues(&mut client);
        send_pattern(&mut transmit, round, 64);
        let packets = receive_exactly(&mut receive, &mut transmit, 1);
        assert!(bytes(&packets[0]).into_iter().eq(pattern(round, 64)), "round {round}");
    }
}

#[test]
fn a_second_server_on_a_name_is_told_that_it_is_taken() {
    const TEST: &str = "a_second_server_on_a_name_is_told_that_it_is_taken";
    match role().as_deref() {
        Some("holder") => {
            let config = PortConfig::memif(MemifRole::Server, 0, &argument());
            let _port = EthPort::open(&eal(), &config).expect("memif opens");
            println!("open");
            let is_over = common::input_ends();
            while !is_over() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Some("second") => {
            let config = PortConfig::memif(MemifRole::Server, 0, &argument());
            let error = EthPort::open(&eal(), &config).expect_err("the name is taken");
            let PortError::Probe { device, log, .. } = &error else { panic!("another error: {error}") };
            assert!(device.contains(&argument()) && log.contains("Address already in use"), "{error}");
        }
        _ => {
            let name = unique_name("taken");
            let mut holder = Side::start(TEST, "holder", &name);
            holder.expect_line("open");
            Side::start(TEST, "second", &name).expect_success();
            holder.end_input();
            holder.expect_success();
        }
    }
}

#[test]
fn a_socket_file_that_a_killed_server_left_is_no_obstacle() {
    const TEST: &str = "a_socket_file_that_a_killed_server_left_is_no_obstacle";
    match role().as_deref() {
        Some("server") => {
            let config = PortConfig::memif(MemifRole::Server, 0, &argument());
            let _port = EthPort::open(&eal(), &config).expect("memif opens on a path");
            println!("open");
            let is_over = common::input_ends();
            while !is_over() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Some("second") => {
            let config = PortConfig::memif(MemifRole::Server, 0, &argument());
            let error = EthPort::open(&eal(), &config).expect_err("somebody serves it");
            assert_eq!(error, PortError::SocketInUse { path: argument() });
        }
        _ => {
            let path = std::env::temp_dir().join(unique_name("stale"));
            let path = path.to_str().expect("a plain name");
            let mut first = Side::start(TEST, "server", path);
            first.expect_line("open");
            Side::start(TEST, "second", path).expect_success();
            first.kill();
            assert!(std::path::Path::new(path).exists(), "a killed server leaves its file");
            let mut second = Side::start(TEST, "server", path);
            second.expect_line("open");
            second.end_input();
            second.expect_success();
            assert!(!std::path::Path::new(path).exists(), "a server that closes removes its file");
        }
    }
}

#[test]
fn a_client_without_a_server_says_whom_it_missed() {
    const TEST: &str = "a_client_without_a_server_says_whom_it_missed";
    if role().is_none() {
        Side::start(TEST, "client", &unique_name("nobody")).expect_success();
        return;
    }
    let config =
        PortConfig { peer_wait: Duration::from_millis(100), ..PortConfig::memif(MemifRole::Client, 0, &argument()) };
    let error = EthPort::open(&eal(), &config).expect_err("nobody is there");
    assert!(matches!(error, PortError::NoPeer { .. }), "{error}");
    assert!(error.to_string().contains(&argument()), "{error}");
    // What failed to open is closed: the device's name is free.
    let again = EthPort::open(&eal(), &config).expect_err("still nobody");
    assert!(matches!(again, PortError::NoPeer { .. }), "{again}");
}

#[test]
fn both_ends_live_in_one_process_with_several_queues() {
    const TEST: &str = "both_ends_live_in_one_process_with_several_queues";
    if role().is_none() {
        Side::start(TEST, "both", &unique_name("both")).expect_success();
        return;
    }
    let eal = eal();
    let config = |role| PortConfig::memif(role, 3, &argument()).with_queues(2);
    let mut server = EthPort::open(&eal, &config(MemifRole::Server)).expect("the server opens");
    let mut client = EthPort::open(&eal, &config(MemifRole::Client)).expect("the client opens");
    assert!(server.take_receive_queue(2).is_none(), "two queues are two");
    for index in 0..2 {
        let mut transmit = client.take_transmit_queue(index).expect("it was not taken");
        let mut receive = server.take_receive_queue(index).expect("it was not taken");
        send_pattern(&mut transmit, usize::from(index), 100);
        let packets = receive_exactly(&mut receive, &mut transmit, 1);
        assert!(bytes(&packets[0]).into_iter().eq(pattern(usize::from(index), 100)), "queue {index}");
    }
}
