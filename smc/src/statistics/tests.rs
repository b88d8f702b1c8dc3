use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::io::{FdFlags, fcntl_setfd};

use super::layout::{LENGTH, VERSION, head};
use super::*;
use crate::shared_memory::{PAGE, Region};

fn socket(descriptor: i32) -> SocketDescription {
    SocketDescription {
        descriptor,
        user: 1000,
        inode: 4242,
        local: Some("127.0.0.1:6379".parse().unwrap()),
        peer: Some("[2001:db8::1]:50000".parse().unwrap()),
        role: Role::Server,
        state: State::Active,
        interface: 3,
    }
}

const LINK: Link = Link {
    arena: 0xa0a0,
    index: 17,
    own_token: 0x1111,
    peer_token: 0x2222,
    peer_gid: 0x9999,
    send_ring: 65536,
    receive_ring: 16384,
};

fn read(memory: &OwnedFd) -> Snapshot {
    Snapshot::read(memory).unwrap()
}

#[test]
fn what_is_written_about_a_socket_is_read() {
    let (page, memory) = Page::create("redis-server").unwrap();
    page.set_gid(0x77);
    let entry = page.open_entry(&socket(9)).unwrap();
    let undecided = read(&memory).sockets.remove(0);
    assert_eq!((undecided.mode, undecided.role, undecided.state), (Mode::Undecided, Role::Server, State::Active));

    entry.accelerate(Mode::SmcD, &LINK);
    entry.sent(100);
    entry.sent(100_000);
    entry.received(8192);
    entry.set_sending((70_000, 60_000));
    entry.set_receiving((8192, 8191));
    entry.set_state(State::PeerCloseWait1);
    entry.set_shutdown(Shutdown { read: false, write: true });
    entry.set_flags(Flags { producer: 0x80, state: 0 }, Flags { producer: 0, state: 0x40 });
    entry.set_descriptor(12);
    entry.ring_was_full();
    entry.doorbell_rung();
    entry.doorbells_received(2);
    entry.spun(true);
    entry.spun(false);

    let snapshot = read(&memory);
    assert_eq!((snapshot.process, snapshot.program.as_str()), (std::process::id(), "redis-server"));
    assert_eq!(snapshot.gid, 0x77);
    let expected = Socket {
        descriptor: 12,
        user: 1000,
        inode: 4242,
        local: Some("127.0.0.1:6379".parse().unwrap()),
        peer: Some("[2001:db8::1]:50000".parse().unwrap()),
        interface: 3,
        role: Role::Server,
        mode: Mode::SmcD,
        reasons: Reasons::default(),
        state: State::PeerCloseWait1,
        shutdown: Shutdown { read: false, write: true },
        own_flags: Flags { producer: 0x80, state: 0 },
        peer_flags: Flags { producer: 0, state: 0x40 },
        send_ring: 65536,
        receive_ring: 16384,
        sending: Cursors { produced: 70_000, consumed: 60_000 },
        receiving: Cursors { produced: 8192, consumed: 8191 },
        arena: 0xa0a0,
        index: 17,
        own_token: 0x1111,
        peer_token: 0x2222,
        peer_gid: 0x9999,
        counts: [100_100, 2, 1, 1, 8192, 1, 2, 1, 1],
    };
    assert_eq!(snapshot.sockets, [expected]);
    assert_eq!(snapshot.sent.messages, [1, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(snapshot.sent.rings, [0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(snapshot.received.messages, [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(snapshot.received.rings, [0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(snapshot.counters.get(Counter::AcceleratedAsServer), 1);
}

#[test]
fn totals_outlive_sockets_and_places_are_used_again() {
    let (page, memory) = Page::create("test").unwrap();
    for round in 1..=3 {
        let entry = page.open_entry(&socket(5)).unwrap();
        entry.sent(10);
        entry.received(7);
        entry.received(7);
        assert_eq!(read(&memory).counters.get(Counter::ReceivedBytes), round * 14);
        drop(entry);
        let snapshot = read(&memory);
        assert!(snapshot.sockets.is_empty());
        assert_eq!(snapshot.counters.get(Counter::SentBytes), round * 10);
        assert_eq!(snapshot.counters.get(Counter::ReceivedMessages), round * 2);
    }
    let attached = Region::attach(&memory, LENGTH).unwrap();
    assert_eq!(attached.word(head::ENTRIES_USED).load(Ordering::Relaxed), 1);
}

#[test]
fn a_socket_that_stays_tcp_says_why_and_each_reason_is_counted() {
    let (page, memory) = Page::create("test").unwrap();
    let entry = page.open_entry(&socket(5)).unwrap();
    entry.fall_back(Reasons { own: 0x0303_0000, peer: 0x0500_0000 });
    for _ in 0..3 {
        page.counters().fall_back(Role::Client, 0x0303_0000, false);
    }
    page.counters().fall_back(Role::Server, 0x0303_0000, false);
    page.counters().fall_back(Role::Client, 0x0303_0000, true);
    let snapshot = read(&memory);
    assert_eq!(snapshot.sockets[0].mode, Mode::Tcp);
    assert_eq!(snapshot.sockets[0].role, Role::Server);
    assert_eq!(snapshot.sockets[0].reasons, Reasons { own: 0x0303_0000, peer: 0x0500_0000 });
    let counted = |fallback: &Fallback| (fallback.role, fallback.code, fallback.by_peer, fallback.count);
    assert_eq!(
        snapshot.fallbacks.iter().map(counted).collect::<Vec<_>>(),
        [
            (Role::Client, 0x0303_0000, false, 3),
            (Role::Client, 0x0303_0000, true, 1),
            (Role::Server, 0x0303_0000, false, 1),
        ]
    );
    assert_eq!(snapshot.counters.get(Counter::FallbacksAsClient), 4);
    assert_eq!(snapshot.counters.get(Counter::FallbacksAsServer), 1);
}

#[test]
fn reasons_beyond_the_table_are_counted_together() {
    let (page, memory) = Page::create("test").unwrap();
    for code in 0..FALLBACKS as u32 + 5 {
        page.counters().fall_back(Role::Client, code, false);
    }
    let snapshot = read(&memory);
    assert_eq!((snapshot.fallbacks.len(), snapshot.other_fallbacks), (FALLBACKS, 5));
    assert_eq!(snapshot.counters.get(Counter::FallbacksAsClient), FALLBACKS as u64 + 5);
}

#[test]
fn arenas_show_how_many_connections_are_in_them() {
    let (page, memory) = Page::create("test").unwrap();
    let description = ArenaDescription {
        id: 5,
        role: Role::Server,
        own_gid: 1,
        peer_gid: 2,
        peer_process: 77,
        capacity: 1024,
        ring_bytes: 65536,
    };
    let arena = page.open_arena(&description).unwrap();
    (0..3).for_each(|_| arena.connection_added());
    arena.connection_removed();
    let expected = Arena {
        id: 5,
        role: Role::Server,
        own_gid: 1,
        peer_gid: 2,
        peer_process: 77,
        connections: 2,
        capacity: 1024,
        ring_bytes: 65536,
    };
    assert_eq!(read(&memory).arenas, [expected]);
    drop(arena);
    assert_eq!(read(&memory).arenas, []);
}

#[test]
fn a_full_list_takes_no_more_until_one_leaves_it() {
    let (page, memory) = Page::create("test").unwrap();
    let mut entries: Vec<_> = (0..ENTRIES).map(|_| page.open_entry(&socket(1)).unwrap()).collect();
    assert!(page.open_entry(&socket(1)).is_none());
    assert_eq!(read(&memory).counters.get(Counter::Unlisted), 1);
    entries.swap_remove(100);
    let _last = page.open_entry(&socket(2)).unwrap();
    assert_eq!(read(&memory).sockets.iter().filter(|socket| socket.descriptor == 2).count(), 1);
}

#[test]
fn a_child_writes_a_page_of_its_own_in_which_its_inheritance_is_listed() {
    let (page, parents) = Page::create("postgres").unwrap();
    let closed_before = page.open_entry(&socket(4)).unwrap();
    let entry = page.open_entry(&socket(5)).unwrap();
    let arena = page.open_arena(&ArenaDescription { id: 5, ..ArenaDescription::default() }).unwrap();
    arena.connection_added();
    drop(closed_before);
    entry.accelerate(Mode::SmcD, &LINK);
    entry.sent(100);
    entry.set_sending((100, 50));
    page.counters().set(Counter::RingMemoryLimit, 1 << 30);
    page.counters().count(Counter::ConnectionsSeen);
    let before = read(&parents);

    let childs = page.renew_in_child(&page.inheritance()).unwrap();
    entry.sent(11);
    let later = page.open_entry(&socket(6)).unwrap();
    later.sent(1);
    let (parents, child) = (read(&parents), read(&childs));
    assert_eq!(parents.sockets, before.sockets, "the parent's page stays as it was");
    assert_eq!(parents.counters, before.counters);
    assert_eq!(child.program, "postgres");
    assert_eq!(child.arenas, parents.arenas);
    assert_eq!(child.counters.get(Counter::RingMemoryLimit), 1 << 30);
    assert_eq!(child.counters.get(Counter::ConnectionsSeen), 0);
    assert_eq!(child.counters.get(Counter::SentBytes), 12);
    let inherited = child.sockets.iter().find(|socket| socket.descriptor == 5).unwrap();
    assert_eq!(inherited.sending, Cursors { produced: 100, consumed: 50 });
    assert_eq!((inherited.mode, inherited.own_token, inherited.count(Counter::SentBytes)), (Mode::SmcD, 0x1111, 11));
    drop(entry);
    assert_eq!(read(&childs).counters.get(Counter::SentBytes), 12);
}

#[test]
fn what_a_parent_closes_at_once_is_its_childs_still() {
    let (page, _parents) = Page::create("postgres").unwrap();
    let accepted = page.open_entry(&socket(5)).unwrap();
    let inherited = page.inheritance();
    // The parent is first: it closes its end, and something else gets the place, before the child has run.
    drop(accepted);
    let next = page.open_entry(&socket(6)).unwrap();
    let child = read(&page.renew_in_child(&inherited).unwrap());
    assert_eq!(child.sockets.iter().map(|socket| socket.descriptor).collect::<Vec<_>>(), [5]);
    drop(next);
}

#[test]
fn a_child_that_ends_leaves_its_counts_to_its_parent() {
    let (page, parents) = Page::create("postgres").unwrap();
    page.counters().set(Counter::RingMemory, 7);
    page.counters().fall_back(Role::Server, 1, false);
    let childs = page.renew_in_child(&page.inheritance()).unwrap();
    let (closed, open) = (page.open_entry(&socket(5)).unwrap(), page.open_entry(&socket(6)).unwrap());
    for entry in [&closed, &open] {
        entry.accelerate(Mode::SmcD, &LINK);
        entry.sent(100);
        entry.received(20_000);
    }
    drop(closed);
    page.counters().fall_back(Role::Server, 1, false);
    page.counters().set(Counter::RingMemory, 9);
    let child = read(&childs);
    page.end();
    open.sent(1);
    page.end();
    assert_eq!(read(&childs).process, 0, "nobody finds it any more");
    let parent = read(&parents);
    assert_eq!(parent.counters.get(Counter::SentBytes), 200);
    assert_eq!(parent.counters.get(Counter::ReceivedMessages), 2);
    assert_eq!(parent.counters.get(Counter::RingMemory), 7);
    assert_eq!(parent.counters.get(Counter::FallbacksAsServer), 2);
    assert_eq!(parent.fallbacks, [Fallback { role: Role::Server, code: 1, by_peer: false, count: 2 }]);
    assert_eq!((parent.sent, parent.received), (child.sent, child.received));
}

#[test]
fn a_process_without_a_parents_page_keeps_its_own_at_its_end() {
    let (page, memory) = Page::create("redis-server").unwrap();
    page.counters().count(Counter::ConnectionsSeen);
    page.end();
    assert_eq!(read(&memory).counters.get(Counter::ConnectionsSeen), 1);
    assert_ne!(read(&memory).process, 0);
}

#[test]
fn deeper_than_pages_go_nothing_is_written() {
    let (page, _memory) = Page::create("test").unwrap();
    let entry = page.open_entry(&socket(5)).unwrap();
    let mut memories = Vec::new();
    let error = loop {
        match page.renew_in_child(&page.inheritance()) {
            Ok(memory) => memories.push(memory),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::QuotaExceeded);
    entry.sent(5);
    page.counters().fall_back(Role::Client, 1, false);
    assert!(page.open_entry(&socket(6)).is_none(), "nobody would see it");
    assert!(page.renew_in_child(&page.inheritance()).is_err());
    for memory in &memories {
        let snapshot = read(memory);
        assert_eq!(snapshot.counters.get(Counter::SentBytes), 0);
        assert_eq!(snapshot.fallbacks, []);
    }
}

#[test]
fn a_reader_never_sees_half_a_socket() {
    let (page, memory) = Page::create("test").unwrap();
    let stop = AtomicBool::new(false);
    let seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for start in [1, 1000] {
            let (page, stop) = (Arc::clone(&page), &stop);
            scope.spawn(move || {
                let mut number = start;
                while !stop.load(Ordering::Relaxed) {
                    number = number % 30_000 + 1;
                    let port = number as u16;
                    let address = std::net::SocketAddr::from(([10, 0, (port >> 8) as u8, port as u8], port));
                    let described = SocketDescription { user: number, inode: number.into(), ..socket(number as i32) };
                    let entry = page.open_entry(&SocketDescription { local: Some(address), ..described }).unwrap();
                    entry.accelerate(Mode::SmcD, &Link { index: number, own_token: number.into(), ..LINK });
                    entry.sent(1);
                }
            });
        }
        while seen.load(Ordering::Relaxed) < 2000 {
            for socket in read(&memory).sockets {
                let (number, local) = (socket.inode, socket.local.unwrap());
                assert_eq!((socket.user.into(), socket.descriptor as u64), (number, number));
                assert_eq!(u64::from(local.port()), number);
                assert_eq!(local.ip(), std::net::IpAddr::from([10, 0, (number >> 8) as u8, number as u8]));
                if socket.mode == Mode::SmcD {
                    assert_eq!((u64::from(socket.index), socket.own_token), (number, number));
                }
                seen.fetch_add(1, Ordering::Relaxed);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn sums_never_fall_while_sockets_come_and_go() {
    let (page, memory) = Page::create("test").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let entry = page.open_entry(&socket(1)).unwrap();
                entry.sent(10);
                (0..2000).for_each(|_| std::hint::spin_loop());
            }
        });
        let mut last = 0;
        for _ in 0..2000 {
            let sum = read(&memory).counters.get(Counter::SentBytes);
            if sum < last {
                stop.store(true, Ordering::Relaxed);
                panic!("{sum} after {last}");
            }
            last = sum;
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_page_full_of_anything_is_read_without_harm() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    for _ in 0..20 {
        let (page, memory) = Page::create("test").unwrap();
        let _entries: Vec<_> = (0..50).map(|_| page.open_entry(&socket(1)).unwrap()).collect();
        let hostile = Region::attach(&memory, LENGTH).unwrap();
        for _ in 0..20_000 {
            // All of the head but magic and version, the first arenas, the first entries.
            let start = [head::PROCESS, PAGE, layout::FIRST_ENTRY][random.random_range(0..3)];
            let at = start + random.random_range(0..(PAGE - head::PROCESS) / 8) * 8;
            let value = match random.random_range(0..3) {
                0 => u64::MAX,
                1 => random.random_range(0..1 << 33),
                _ => random.random(),
            };
            hostile.word(at).store(value, Ordering::Relaxed);
        }
        let snapshot = read(&memory);
        assert!(snapshot.sockets.len() <= ENTRIES && snapshot.arenas.len() <= ARENAS);
        assert!(!snapshot.program.chars().any(char::is_control));
        serde_json::to_string(&snapshot.sockets).unwrap();
    }
}

#[test]
fn what_is_no_page_of_this_version_is_not_read() {
    let (_page, memory) = Page::create("test").unwrap();
    let attached = Region::attach(&memory, LENGTH).unwrap();
    attached.word(head::VERSION).store(VERSION + 1, Ordering::Relaxed);
    let error = Snapshot::read(&memory).unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error}");
    attached.word(head::MAGIC).store(0, Ordering::Relaxed);
    assert!(matches!(Snapshot::read(&memory), Err(ReadError::NotAPage)));
    let (_, small) = Region::create(NAME, PAGE).unwrap();
    assert!(matches!(Snapshot::read(&small), Err(ReadError::Attach(_))));
}

#[test]
fn a_long_name_is_cut_and_a_strange_one_cleaned() {
    let (_page, memory) = Page::create(&"x".repeat(200)).unwrap();
    assert_eq!(read(&memory).program, "x".repeat(64));
    let (_page, memory) = Page::create("evil\u{1b}[2Jname\n").unwrap();
    assert_eq!(read(&memory).program, "evil?[2Jname?");
}

/// Set in a process that is to show a page.
const AS_CHILD: &str = "SOFTRDMA_TEST_SHOW_PAGE";

/// Not a test when it runs in the ordinary way: it is the other process of the test below.
#[test]
fn other_process_that_shows_a_page() {
    if std::env::var_os(AS_CHILD).is_none() {
        return;
    }
    let (page, memory) = Page::create("other").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    // It says no more than its descriptors.
    let unknown = |descriptor, state| SocketDescription { descriptor, state, ..SocketDescription::default() };
    let _listening = page.open_entry(&unknown(listener.as_raw_fd(), State::Listen)).unwrap();
    let _connected = page.open_entry(&unknown(stream.as_raw_fd(), State::Active)).unwrap();
    // Somebody has inherited the descriptor without being the one who writes.
    fcntl_setfd(&memory, FdFlags::empty()).unwrap();
    let mut heir = Command::new("sleep").arg("100").spawn().unwrap();
    println!("\nready {} {}", heir.id(), listener.local_addr().unwrap());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    heir.kill().unwrap();
    heir.wait().unwrap();
}

#[test]
fn the_page_of_another_process_is_found_and_its_gaps_are_filled() {
    use std::io::{BufRead, BufReader};
    let name = "statistics::tests::other_process_that_shows_a_page";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(AS_CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let ready = lines.find_map(|line| line.strip_prefix("ready ").map(str::to_owned)).expect("ready");
    let (heir, listener) = ready.split_once(' ').unwrap();

    let found: Vec<_> = processes().unwrap().into_iter().flatten().collect();
    let other: Vec<_> = found.iter().filter(|process| process.id == child.id()).collect();
    let of_heir = process(heir.parse().unwrap()).unwrap();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());

    assert_eq!(other.len(), 1);
    assert_eq!((other[0].snapshot.program.as_str(), other[0].user), ("other", rustix::process::geteuid().as_raw()));
    assert!(of_heir.is_none(), "a page that was inherited is not the heir's");
    let listener = Some(listener.parse().unwrap());
    let [listening, connected] = &other[0].snapshot.sockets[..] else { panic!("{:?}", other[0].snapshot) };
    assert_eq!((listening.state, listening.local, listening.peer), (State::Listen, listener, None));
    assert_eq!(connected.peer, listener);
    assert!(connected.local.is_some() && connected.inode != 0 && connected.inode != listening.inode);
    assert!(process(child.id()).unwrap().is_none(), "gone with its process");
}

#[test]
fn every_state_of_a_connection_is_shown_as_itself() {
    use crate::connection;
    let states = [
        (connection::State::Init, "INIT"),
        (connection::State::Active, "ACTIVE"),
        (connection::State::PeerCloseWait1 { has_closed: true }, "PEERCLW1"),
        (connection::State::PeerCloseWait2 { has_closed: false }, "PEERCLW2"),
        (connection::State::AppCloseWait1 { peer_has_closed: true }, "APPLCLW1"),
        (connection::State::AppCloseWait2 { peer_has_closed: false }, "APPLCLW2"),
        (connection::State::AppFinCloseWait, "APPLFINCLW"),
        (connection::State::PeerFinCloseWait, "PEERFINCLW"),
        (connection::State::PeerAbortWait, "PEERABORTW"),
        (connection::State::ProcessAbort, "PROCESSABORT"),
        (connection::State::Closed, "CLOSED"),
    ];
    for (state, name) in states {
        assert_eq!(State::from(state).name(), name);
    }
}
