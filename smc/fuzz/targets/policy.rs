//! Arbitrary text as a policy, and as values of the environment over it: it is refused with words, or it decides.

#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use softrdma_smc::policy::{Policy, Query};
use softrdma_smc::statistics::Role;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, values) = text.split_once('\0').unwrap_or((text, ""));
    let mut policy = match Policy::parse(text) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    // NAME=value, each between two zero bytes.
    let variable = |name: &str| {
        let of_name = |line: &str| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        values.split('\0').find_map(of_name)
    };
    if let Err(error) = policy.override_from(variable) {
        assert!(!error.to_string().is_empty());
        return;
    }
    for address in ["127.0.0.1:80", "192.0.2.1:6379", "0.0.0.0:0", "[::1]:443", "[::ffff:10.0.0.1]:8080", "[::]:1"] {
        let address: SocketAddr = address.parse().expect("an address");
        let mapped = match address {
            SocketAddr::V4(address) => SocketAddr::new(address.ip().to_ipv6_mapped().into(), address.port()),
            SocketAddr::V6(_) => address,
        };
        for program in ["", "redis-server", "[*?]"] {
            for role in [Role::Client, Role::Server] {
                let decide = |address| policy.decide(&Query { program, role, address });
                assert_eq!(decide(address), decide(mapped), "{address} mapped or not");
            }
            let _ = policy.may_accept(program, address);
        }
    }
});
