use softrdma_verbs::DeviceConfig;

use super::announcement::Announcement;
use super::*;

#[test]
fn an_announcement_is_address_key_and_length_in_network_order() {
    let announcement = Announcement { address: 0x0102_0304_0506_0708, key: 0x1112_1314, length: 100 };
    let bytes = announcement.to_bytes();
    assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0, 0, 0, 100]);
    assert_eq!(Announcement::from_bytes(&bytes), announcement);
}

#[test]
fn the_data_is_what_rping_would_send() {
    assert_eq!(client::message(0, 24), b"rdma-ping-0: ABCDEFGHIJ\0");
    assert_eq!(client::message(12, 24), b"rdma-ping-12: MNOPQRSTU\0");
    assert_eq!(client::message(57, 20), b"rdma-ping-57: zABCD\0");
}

#[test]
fn an_address_may_come_with_its_port() {
    assert_eq!(parse_address("10.0.0.1").unwrap().with_port(7), "10.0.0.1:7".parse().unwrap());
    assert_eq!(parse_address("10.0.0.1:9").unwrap().with_port(7), "10.0.0.1:9".parse().unwrap());
    assert_eq!(parse_address("[fd00::1]").unwrap().with_port(7), "[fd00::1]:7".parse().unwrap());
    assert!(parse_address("here").unwrap_err().contains("10.0.0.1"));
}

#[test]
fn sizes_are_those_of_rping() {
    assert_eq!(parse_message_size("64K"), Ok(65536));
    assert!(parse_message_size("23").is_err());
    assert!(parse_message_size("65K").unwrap_err().contains("24 bytes to 64K"));
}

#[test]
fn client_and_server_move_data_there_and_back() {
    let timeout = Duration::from_secs(20);
    let device = |name: &str| Device::open(DeviceConfig::kernel_socket(name)).unwrap();
    let server_device = device("ping-server");
    // The server tells its address on standard output only, so a free port is found beforehand.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = std::thread::spawn(move || server::run(&server_device, address, Some(5), false, timeout, false));
    let client_device = device("ping-client");
    let run = || client::run(&client_device, address, 5, 1000, timeout, false);
    let mut outcome = run();
    for _ in 0..100 {
        if outcome.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        outcome = run();
    }
    assert!(outcome.is_ok(), "{:?}", outcome.err());
    server.join().unwrap().unwrap();
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let device = Device::open(DeviceConfig::kernel_socket("ping-nobody")).unwrap();
    let address: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let error = client::run(&device, address, 1, 100, Duration::from_secs(10), false).err().unwrap().to_string();
    assert!(error.contains("127.0.0.1:9"), "{error}");
}
