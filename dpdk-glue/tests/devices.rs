//! The virtual devices besides memif, and DPDK's environment.

mod common;

use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Side, argument, bytes, eal, ip, lacks_root, pattern, queues, receive_exactly, role, send_pattern, unique_name,
};
use softrdma_dpdk_glue::raw::{self, Touch, Traffic, internet_checksum};
use softrdma_dpdk_glue::{
    Eal, EalConfig, EalError, EthPort, EthReceiveQueue, EthTransmitQueue, HugePages, Mbuf, PortConfig, PortError,
};
use softrdma_stack::port::{
    Frame, LinkState, Packet, Port, ReceiveQueue, ReceivedChecksum, TransmitOffload, TransmitQueue,
};

/// Frames that each test sends in each direction.
const FRAMES: usize = 300;
/// How long a frame may be under way before it is sent again.
const RESEND: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `body` in a process of its own.
fn alone(test: &str, body: impl FnOnce()) {
    match role() {
        Some(_) => body(),
        None => drop(Side::start(test, "alone", "").expect_success()),
    }
}

/// Runs `body` in a process and a network namespace of its own, as root; else says why not.
fn alone_in_namespace(test: &str, body: impl FnOnce()) {
    match (role(), lacks_root()) {
        (Some(_), _) => body(),
        (None, Some(reason)) => println!("{test}: {reason}"),
        (None, None) => drop(Side::start_in_namespace(test, "alone", "").expect_success()),
    }
}

/// Sends frames of `length` bytes and finds them at the other end, among whatever the kernel sends.
fn expect_frames(transmit: &mut EthTransmitQueue, receive: &mut EthReceiveQueue, length: usize) {
    let mut packets = Vec::new();
    let mut found = 0;
    let begin = Instant::now();
    for number in 0..FRAMES {
        send_pattern(transmit, number, length);
        transmit.flush();
        // One at a time: the kernel's queues are short. It may drop some all the same.
        let mut sent = Instant::now();
        while found <= number {
            assert!(begin.elapsed() < PATIENCE, "{found} of {FRAMES} frames of {length} bytes arrived");
            if sent.elapsed() > RESEND {
                send_pattern(transmit, number, length);
                sent = Instant::now();
            }
            transmit.flush();
            receive.receive(&mut packets);
            let is_it = |packet: &Mbuf| bytes(packet).into_iter().eq(pattern(number, length));
            found = found.max((number + 1) * usize::from(packets.drain(..).any(|packet| is_it(&packet))));
        }
    }
}

#[test]
fn a_ring_returns_what_is_sent_and_loses_no_buffer() {
    alone("a_ring_returns_what_is_sent_and_loses_no_buffer", || {
        let mut port = EthPort::open(&eal(), &PortConfig::ring().with_mtu(9000)).expect("net_ring opens");
        assert_eq!(port.link_state(), LinkState::Up);
        let (mut receive, mut transmit) = queues(&mut port);
        let (capacity, before) = port.pool_buffers();
        for number in 0..FRAMES {
            for length in [60, 1514, 9014] {
                send_pattern(&mut transmit, number, length);
                let packets = receive_exactly(&mut receive, &mut transmit, 1);
                assert!(bytes(&packets[0]).into_iter().eq(pattern(number, length)));
                assert_eq!(packets[0].checksum(), ReceivedChecksum::Unknown, "nobody looked");
            }
        }
        drop((receive, transmit));
        assert_eq!(port.pool_buffers(), (capacity, before));
        assert_eq!(port.statistics().received_bytes, (FRAMES * (60 + 1514 + 9014)) as u64);
    });
}

#[test]
fn an_attached_packet_follows_the_frame_it_was_attached_to() {
    alone("an_attached_packet_follows_the_frame_it_was_attached_to", || {
        let mut port = EthPort::open(&eal(), &PortConfig::ring()).expect("net_ring opens");
        assert!(port.capabilities().attachments);
        let (mut receive, mut transmit) = queues(&mut port);
        send_pattern(&mut transmit, 1, 700);
        let payload = receive_exactly(&mut receive, &mut transmit, 1).pop().expect("one packet");
        let mut frame = transmit.frame(60).expect("the pool is full");
        frame.bytes_mut().fill(0xee);
        frame.attach(payload).expect("the port takes attachments");
        assert_eq!(frame.total_length(), 760);
        transmit.send(frame, TransmitOffload::default()).expect("the queue is empty");
        let packets = receive_exactly(&mut receive, &mut transmit, 1);
        assert_eq!(packets[0].segments(), 2);
        assert!(bytes(&packets[0]).into_iter().eq(std::iter::repeat_n(0xee, 60).chain(pattern(1, 700))));
    });
}

#[test]
fn a_dry_pool_gives_no_frame_until_a_packet_is_dropped_on_any_thread() {
    alone("a_dry_pool_gives_no_frame_until_a_packet_is_dropped_on_any_thread", || {
        let mut port = EthPort::open(&eal(), &PortConfig::ring()).expect("net_ring opens");
        let (_receive, mut transmit) = queues(&mut port);
        let (capacity, _) = port.pool_buffers();
        let mut frames: Vec<_> = std::iter::from_fn(|| transmit.frame(60)).collect();
        assert!(frames.len() as u32 >= capacity - 32, "{} of {capacity} buffers could be had", frames.len());
        assert!(transmit.frame(60).is_none());
        let some = frames.split_off(frames.len() - 600);
        thread::spawn(move || drop(some)).join().expect("dropping does not panic");
        let again: Vec<_> = std::iter::from_fn(|| transmit.frame(60)).collect();
        assert!(again.len() >= 600 - 32, "{} of the 600 that a thread dropped can be had again", again.len());
    });
}

#[test]
fn a_full_queue_gives_the_frame_back() {
    alone("a_full_queue_gives_the_frame_back", || {
        let config = PortConfig { transmit_backlog: 64, ..PortConfig::ring() };
        let mut port = EthPort::open(&eal(), &config).expect("net_ring opens");
        let (mut receive, mut transmit) = queues(&mut port);
        // Nobody receives: the ring fills, then the backlog.
        let mut sent = 0;
        let refused = loop {
            let frame = transmit.frame(60).expect("the pool is larger than the ring");
            match transmit.send(frame, TransmitOffload::default()) {
                Ok(()) => sent += 1,
                Err(frame) => break frame,
            }
        };
        assert_eq!(transmit.flush(), 64);
        let mut packets = Vec::new();
        while receive.receive(&mut packets) > 0 {
            transmit.flush();
        }
        assert_eq!(packets.len(), sent);
        transmit.send(refused, TransmitOffload::default()).expect("there is room again");
    });
}

#[test]
fn a_null_port_swallows_and_supplies_without_end() {
    alone("a_null_port_swallows_and_supplies_without_end", || {
        let mut port = EthPort::open(&eal(), &PortConfig::null(128)).expect("net_null opens");
        let (mut receive, mut transmit) = queues(&mut port);
        for number in 0..100_000 {
            let frame = transmit.frame(64).expect("what was sent is free again");
            transmit
                .send(frame, TransmitOffload::default())
                .unwrap_or_else(|_| panic!("frame {number} is not swallowed"));
        }
        assert_eq!(transmit.flush(), 0);
        let mut packets = Vec::with_capacity(32);
        for _ in 0..1000 {
            assert_eq!(receive.receive(&mut packets), 32);
            assert!(packets.drain(..).all(|packet| packet.length() == 128));
        }
        assert_eq!(packets.capacity(), 32, "a burst fits without an allocation");
        assert_eq!(port.statistics().transmitted_packets, 100_000);
    });
}

#[test]
fn starting_twice_gives_the_same_environment_and_leaves_the_thread_where_it_was() {
    alone("starting_twice_gives_the_same_environment_and_leaves_the_thread_where_it_was", || {
        let before = rustix::thread::sched_getaffinity(None).expect("this thread has an affinity");
        assert!(eal().is_started_by_us() && eal().is_started_by_us());
        assert_eq!(rustix::thread::sched_getaffinity(None), Ok(before));
        assert!(eal().version().contains("DPDK"));
    });
}

#[test]
fn an_environment_that_the_application_started_is_used() {
    alone("an_environment_that_the_application_started_is_used", || {
        let arguments =
            ["app", "--no-huge", "-m", "128", "--no-shconf", "--no-pci", "--no-telemetry", "--iova-mode=va"];
        let prefix = format!("--file-prefix={}", unique_name("app"));
        let arguments =
            arguments.iter().copied().chain([prefix.as_str()]).map(|word| std::ffi::CString::new(word).unwrap());
        dpdk_sys::environment::initialise(arguments.collect()).expect("the application starts DPDK");
        let eal = eal();
        assert!(!eal.is_started_by_us());
        let mut port = EthPort::open(&eal, &PortConfig::ring()).expect("net_ring opens");
        let (mut receive, mut transmit) = queues(&mut port);
        send_pattern(&mut transmit, 0, 60);
        receive_exactly(&mut receive, &mut transmit, 1);
    });
}

#[test]
fn an_environment_that_failed_to_start_stays_failed_and_says_that_the_process_must_start_anew() {
    alone("an_environment_that_failed_to_start_stays_failed_and_says_that_the_process_must_start_anew", || {
        let good = EalConfig { huge_pages: HugePages::Off, memory_mib: 256, ..EalConfig::default() };
        let nul = EalConfig { extra_arguments: vec!["--a\0b".to_owned()], ..good.clone() };
        assert!(matches!(Eal::init(&nul), Err(EalError::Argument { .. })), "DPDK has not seen this one");
        let wrong = EalConfig { extra_arguments: vec!["--no-such-argument".to_owned()], ..good.clone() };
        let error = Eal::init(&wrong).expect_err("there is no such argument");
        assert!(error.to_string().contains("--no-such-argument") && error.to_string().contains("anew"), "{error}");
        // DPDK has counted its threads by now, and calls itself initialised.
        assert!(dpdk_sys::environment::is_initialised());
        assert_eq!(Eal::init(&good).expect_err("it cannot be started twice"), error);
        assert_eq!(Eal::init(&good).expect_err("for ever"), error);
    });
}

#[test]
fn errors_name_the_thing_and_the_way_out() {
    alone("errors_name_the_thing_and_the_way_out", || {
        let huge = EalConfig { huge_pages: HugePages::On, memory_mib: 1 << 30, ..EalConfig::default() };
        let error = Eal::init(&huge).expect_err("nobody has that much");
        assert!(
            matches!(error, EalError::TooFewHugePages { .. }) && error.to_string().contains("nr_hugepages"),
            "{error}"
        );
        let eal = eal();
        let open = |config: &PortConfig| EthPort::open(&eal, config).map(drop).map_err(|error| error.to_string());
        let error = open(&PortConfig::new("net_no_such_thing0")).expect_err("no such driver");
        assert!(error.contains("net_no_such_thing0"), "{error}");
        let error = open(&PortConfig::ring().with_queues(2000)).expect_err("too many queues");
        assert!(error.contains("net_ring") && error.contains("ask for no more"), "{error}");
        let error = open(&PortConfig::null(64).with_mtu(70_000)).expect_err("larger than a buffer can be");
        assert!(error.contains("lower `mtu`"), "{error}");
        let config = PortConfig::ring();
        let _port = EthPort::open(&eal, &config).expect("net_ring opens");
        let error = EthPort::open(&eal, &config).expect_err("open already");
        assert_eq!(error, PortError::InUse { name: config.device_name().to_owned() });
    });
}

#[test]
fn a_port_opens_and_closes_many_times_on_the_same_memory() {
    alone("a_port_opens_and_closes_many_times_on_the_same_memory", || {
        let eal = eal();
        for round in 0..200 {
            let mut port =
                EthPort::open(&eal, &PortConfig::null(64)).unwrap_or_else(|error| panic!("round {round}: {error}"));
            let (mut receive, _transmit) = queues(&mut port);
            let mut packets = Vec::new();
            receive.receive(&mut packets);
            drop(port);
            // Packets outlive their port.
            drop(receive);
            assert!(packets.iter().all(|packet| packet.length() == 64));
        }
    });
}

/// Runs `work` on a thread for each of `subjects`, `rounds` times, all at the same time in each round: left alone, a thread would
/// be done before the next one starts.
fn in_step<S: Sync>(subjects: &[S], rounds: usize, work: impl Fn(&S) -> Result<(), String> + Sync) {
    let together = Barrier::new(subjects.len());
    let run = |subject| {
        let failures = (0..rounds).filter_map(|round| {
            together.wait();
            work(subject).err().map(|error| format!("round {round}: {error}"))
        });
        // To the end: the others would wait for ever for a thread that leaves.
        failures.fold(None, |first, failure| first.or(Some(failure)))
    };
    let run = &run;
    let failures: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = subjects.iter().map(|subject| scope.spawn(move || run(subject))).collect();
        threads.into_iter().filter_map(|thread| thread.join().expect("it does not panic")).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn ports_open_and_close_on_several_threads_at_once() {
    alone("ports_open_and_close_on_several_threads_at_once", || {
        let eal = eal();
        in_step(&[(); 4], 500, |()| {
            EthPort::open(&eal, &PortConfig::null(64)).map(drop).map_err(|error| error.to_string())
        });
    });
}

#[test]
fn an_error_ends_in_what_was_logged_about_its_own_port_only() {
    alone("an_error_ends_in_what_was_logged_about_its_own_port_only", || {
        let eal = eal();
        let names = ["net_no_such_thing0", "net_nothing_like_it1"];
        in_step(&names, 4000, |own| {
            let error = EthPort::open(&eal, &PortConfig::new(*own)).expect_err("no such driver").to_string();
            let is_about_others = names.iter().any(|name| name != own && error.contains(name));
            if error.lines().count() > 1 && !is_about_others { Ok(()) } else { Err(error) }
        });
    });
}

#[test]
fn threads_that_come_once_and_stay_leave_the_pool_to_the_others() {
    alone("threads_that_come_once_and_stay_leave_the_pool_to_the_others", || {
        const THREADS: usize = 24;
        let eal = eal();
        for pool_packets in [512, 8192] {
            let config = PortConfig { pool_packets, ..PortConfig::null(64) };
            let mut port = EthPort::open(&eal, &config).unwrap_or_else(|error| panic!("{error}"));
            let queue = Mutex::new(port.take_transmit_queue(0).expect("the queue is free"));
            let take = |count| {
                let mut queue = queue.lock().expect("nobody panicked");
                (0..count).map_while(|_| queue.frame(64)).collect::<Vec<_>>().len()
            };
            let (came, end) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
            let wanted = pool_packets as usize * 3 / 4;
            let taken = thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        take(100);
                        came.wait();
                        end.wait();
                    });
                }
                came.wait();
                let taken = scope.spawn(|| take(wanted)).join();
                end.wait();
                taken.expect("it does not panic")
            });
            assert_eq!(taken, wanted, "frames for one more thread, of {pool_packets} packets");
        }
    });
}

#[test]
fn af_packet_ports_exchange_frames_over_a_veth_pair() {
    alone_in_namespace("af_packet_ports_exchange_frames_over_a_veth_pair", || {
        ip("link add left mtu 9000 type veth peer name right mtu 9000");
        ip("link set left up");
        ip("link set right up");
        let eal = eal();
        let open =
            |name| EthPort::open(&eal, &PortConfig::af_packet(name).with_mtu(9000)).expect("net_af_packet opens");
        let (mut left, mut right) = (open("left"), open("right"));
        let (mut left_receive, mut left_transmit) = queues(&mut left);
        let (mut right_receive, mut right_transmit) = queues(&mut right);
        for length in [60, 1514, 9014] {
            expect_frames(&mut left_transmit, &mut right_receive, length);
            expect_frames(&mut right_transmit, &mut left_receive, length);
        }
    });
}

#[test]
fn a_tap_port_reaches_the_kernel_and_computes_checksums() {
    alone_in_namespace("a_tap_port_reaches_the_kernel_and_computes_checksums", || {
        let eal = eal();
        let mut tap = EthPort::open(&eal, &PortConfig::tap("softrdma0")).expect("net_tap opens");
        ip("link set softrdma0 up");
        let mut kernel = EthPort::open(&eal, &PortConfig::af_packet("softrdma0")).expect("net_af_packet opens");
        let (mut tap_receive, mut tap_transmit) = queues(&mut tap);
        let (mut kernel_receive, mut kernel_transmit) = queues(&mut kernel);
        expect_frames(&mut tap_transmit, &mut kernel_receive, 1514);
        expect_frames(&mut kernel_transmit, &mut tap_receive, 60);
        expect_readiness(&tap, &mut tap_receive, &mut kernel_transmit);
        assert!(tap.capabilities().transmit_checksum && tap.capabilities().receive_checksum);
        expect_offloaded_checksum(&mut tap_transmit, &mut kernel_receive);
        for (breakage, verdict) in [(0, ReceivedChecksum::Good), (1, ReceivedChecksum::Bad)] {
            expect_verdict(&mut kernel_transmit, &mut tap_receive, breakage, verdict);
        }
        let error =
            EthPort::open(&eal, &PortConfig::tap("softrdma1").with_mtu(9000)).expect_err("tap is for small frames");
        assert!(matches!(error, PortError::Mtu { mtu: 9000, limit: ..9000, .. }), "{error}");
    });
}

/// The port's descriptor is readable exactly while a frame waits.
fn expect_readiness(port: &EthPort, receive: &mut EthReceiveQueue, transmit: &mut EthTransmitQueue) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let descriptor = port.readiness().expect("a tap port has one");
    let is_readable = |milliseconds: i64| {
        let timeout = Timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
        poll(&mut [PollFd::new(&*descriptor, PollFlags::IN)], Some(&timeout)).expect("it can be waited for") == 1
    };
    let mut packets = Vec::new();
    let begin = Instant::now();
    while is_readable(20) {
        assert!(begin.elapsed() < PATIENCE, "it stays readable");
        receive.receive(&mut packets);
    }
    send_pattern(transmit, 7, 100);
    transmit.flush();
    assert!(is_readable(900), "a frame waits");
}

const TCP_FRAME: usize = 14 + 20 + 20 + 101;

/// A TCP frame from 10.0.0.1 to 10.0.0.2 without checksums but for the pseudo-header's sum.
fn write_tcp_frame(frame: &mut [u8]) {
    frame.fill(0x5a);
    frame[..6].fill(0xff);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let length = (TCP_FRAME - 14) as u16;
    let header = [0x45, 0, (length >> 8) as u8, length as u8, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    frame[14..34].copy_from_slice(&header);
    frame[34 + 12] = 5 << 4;
    let pseudo = internet_checksum(&pseudo_header());
    frame[34 + 16..34 + 18].copy_from_slice(&pseudo.to_be_bytes());
}

fn pseudo_header() -> [u8; 12] {
    let length = ((TCP_FRAME - 34) as u16).to_be_bytes();
    [10, 0, 0, 1, 10, 0, 0, 2, 0, 6, length[0], length[1]]
}

/// Whether both checksums of a frame hold.
fn is_sound(frame: &[u8]) -> bool {
    let transport: Vec<u8> = pseudo_header().into_iter().chain(frame[34..].iter().copied()).collect();
    internet_checksum(&frame[14..34]) == 0xffff && internet_checksum(&transport) == 0xffff
}

fn expect_offloaded_checksum(transmit: &mut EthTransmitQueue, receive: &mut EthReceiveQueue) {
    let mut frame = transmit.frame(TCP_FRAME).expect("the pool is full");
    write_tcp_frame(frame.bytes_mut());
    assert!(!is_sound(frame.bytes_mut()), "nothing to do");
    let offload = TransmitOffload { ipv4_checksum: true, tcp_checksum: true, segment_size: 0 };
    transmit.send(frame, offload).expect("the queue is empty");
    let frame = find_tcp_frame(transmit, receive, |_| true);
    assert!(is_sound(&frame.0), "{:02x?}", frame.0);
}

fn expect_verdict(
    transmit: &mut EthTransmitQueue,
    receive: &mut EthReceiveQueue,
    breakage: u8,
    verdict: ReceivedChecksum,
) {
    let mut frame = transmit.frame(TCP_FRAME).expect("the pool is full");
    let bytes = frame.bytes_mut();
    write_tcp_frame(bytes);
    let network = !internet_checksum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&network.to_be_bytes());
    let transport = !internet_checksum(&bytes[34..]);
    bytes[34 + 16..34 + 18].copy_from_slice(&transport.to_be_bytes());
    assert!(is_sound(bytes));
    bytes[TCP_FRAME - 1] ^= breakage;
    let last = bytes[TCP_FRAME - 1];
    transmit.send(frame, TransmitOffload::default()).expect("the queue is empty");
    assert_eq!(find_tcp_frame(transmit, receive, |frame| frame[TCP_FRAME - 1] == last).1, verdict);
}

fn find_tcp_frame(
    transmit: &mut EthTransmitQueue,
    receive: &mut EthReceiveQueue,
    is_it: impl Fn(&[u8]) -> bool,
) -> (Vec<u8>, ReceivedChecksum) {
    let begin = Instant::now();
    let mut packets = Vec::new();
    loop {
        assert!(begin.elapsed() < PATIENCE, "the frame does not arrive");
        transmit.flush();
        receive.receive(&mut packets);
        for packet in packets.drain(..) {
            let frame = bytes(&packet);
            if frame.len() == TCP_FRAME && frame[12..15] == [0x08, 0x00, 0x45] && is_it(&frame) {
                return (frame, packet.checksum());
            }
        }
    }
}

#[test]
fn an_af_xdp_port_exchanges_frames_with_an_af_packet_port() {
    alone_in_namespace("an_af_xdp_port_exchanges_frames_with_an_af_packet_port", || {
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        let eal = eal();
        let mut left = match EthPort::open(&eal, &PortConfig::af_xdp("left")) {
            Ok(port) => port,
            // Kernels without BPF or XDP sockets are common in virtual machines.
            Err(error) => return println!("skipped: this kernel has no XDP sockets for us: {error}"),
        };
        let mut right = EthPort::open(&eal, &PortConfig::af_packet("right")).expect("net_af_packet opens");
        let (mut left_receive, mut left_transmit) = queues(&mut left);
        let (mut right_receive, mut right_transmit) = queues(&mut right);
        expect_frames(&mut right_transmit, &mut left_receive, 1500);
        expect_frames(&mut left_transmit, &mut right_receive, 1500);
    });
}

#[test]
fn vhost_and_virtio_user_carry_frames_between_two_processes() {
    const TEST: &str = "vhost_and_virtio_user_carry_frames_between_two_processes";
    let open = |config: PortConfig| {
        let extra_arguments = vec!["--single-file-segments".to_owned()];
        let eal = EalConfig { huge_pages: HugePages::Auto, memory_mib: 256, extra_arguments, ..EalConfig::default() };
        let mut port = EthPort::open(&Eal::init(&eal).expect("DPDK starts"), &config).expect("the port opens");
        assert!(port.wait_for_link(PATIENCE), "the link does not come up");
        let queues = queues(&mut port);
        (port, queues)
    };
    match role().as_deref() {
        Some("host") => {
            let (_port, (mut receive, mut transmit)) = open(PortConfig::vhost(&argument()));
            for number in 0..FRAMES {
                let packets = receive_exactly(&mut receive, &mut transmit, 1);
                assert!(bytes(&packets[0]).into_iter().eq(pattern(number, 1514)));
                send_pattern(&mut transmit, number + 1, 1514);
                transmit.flush();
            }
            let is_over = common::input_ends();
            while !is_over() {
                transmit.flush();
            }
        }
        Some("guest") => {
            let (_port, (mut receive, mut transmit)) = open(PortConfig::virtio_user(&argument()));
            for number in 0..FRAMES {
                send_pattern(&mut transmit, number, 1514);
                let packets = receive_exactly(&mut receive, &mut transmit, 1);
                assert!(bytes(&packets[0]).into_iter().eq(pattern(number + 1, 1514)));
            }
        }
        _ => {
            let path = std::env::temp_dir().join(unique_name("vhost"));
            let path = path.to_str().expect("a plain name");
            let mut host = Side::start(TEST, "host", path);
            let begin = Instant::now();
            while !std::path::Path::new(path).exists() {
                assert!(host.is_running() && begin.elapsed() < PATIENCE, "no socket: {}", host.expect_success());
                thread::sleep(Duration::from_millis(10));
            }
            Side::start(TEST, "guest", path).expect_success();
            host.end_input();
            host.expect_success();
            let _ = std::fs::remove_file(path);
        }
    }
}

#[test]
fn raw_runs_over_memif_measure_both_ways_with_and_without_touching() {
    const TEST: &str = "raw_runs_over_memif_measure_both_ways_with_and_without_touching";
    use softrdma_dpdk_glue::MemifRole;
    let touch = Touch { memory_bytes: 1 << 20, crc: true, checksum: true };
    let runs = [
        (Traffic::PingPong, None),
        (Traffic::Bulk, None),
        (Traffic::Bulk, Some(touch)),
        (Traffic::PingPong, Some(touch)),
    ];
    let config = |traffic, touch| raw::Config {
        limit: raw::Limit::Frames(200),
        warm_up: 20,
        touch,
        ..raw::Config::new(traffic, 9000)
    };
    let port =
        |side| EthPort::open(&eal(), &PortConfig::memif(side, 0, &argument()).with_mtu(9000)).expect("memif opens");
    match role().as_deref() {
        Some("responder") => {
            let mut port = port(MemifRole::Server);
            for (traffic, touch) in runs {
                raw::responder(&mut port, &config(traffic, touch)).expect("the initiator is there");
            }
        }
        Some("initiator") => {
            let mut port = port(MemifRole::Client);
            for (traffic, touch) in runs {
                let report = raw::initiator(&mut port, &config(traffic, touch)).expect("somebody responds");
                assert_eq!(report.lost, 0, "{traffic:?}");
                assert!(report.frames >= 200 && report.frames < 300, "{} frames", report.frames);
                assert_eq!(report.bytes, report.frames * 9000);
                assert!(report.throughput_gbps() > 0.0 && report.frames_per_second() > 0.0);
                let pings = if traffic == Traffic::PingPong { report.frames } else { 0 };
                assert_eq!(report.round_trips_ns.len(), pings);
            }
        }
        _ => {
            let socket = unique_name("raw");
            let responder = Side::start(TEST, "responder", &socket);
            Side::start(TEST, "initiator", &socket).expect_success();
            responder.expect_success();
        }
    }
}
