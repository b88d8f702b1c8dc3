//! `softrdma ping`: the protocol of rping (rdmacm-utils), either end, so that the other may be any iWARP device.
//!
//! Each round the client announces a source and the server reads it; the server says go on; the client announces a sink and the
//! server writes there what it read; the server says go on. Announcements, and the server's go-ahead, are Sends of 16 bytes.

mod announcement;
mod client;
mod end;
mod server;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use softrdma_bins_common::device::{DeviceArguments, DeviceArgumentsError, DevicePlan, End as Role};
use softrdma_bins_common::logging;
use softrdma_bins_common::size::parse_bytes;
use softrdma_bins_common::statistics_page::StatisticsPage;
use softrdma_verbs::Device;

use end::PingError;

/// Where rping listens.
const DEFAULT_PORT: u16 = 7174;

/// Message sizes that rping takes, in bytes.
const SMALLEST: u64 = 24;
const LARGEST: u64 = 64 << 10;

const EXAMPLES: &str = "\
Examples:
  softrdma ping --server --listen 10.0.0.1          serve one client; rping -c -a 10.0.0.1 works too
  softrdma ping 10.0.0.1 -C 5 -S 1000               five rounds of 1000 bytes against that, or against rping -s
  softrdma ping --server --config configs/tap.toml --persistent";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PingArguments {
    /// The server's address, with or without a port.
    #[arg(value_name = "ADDRESS[:PORT]", required_unless_present = "server", value_parser = parse_address)]
    peer: Option<Address>,
    /// Serves instead.
    #[arg(short, long, conflicts_with = "peer")]
    server: bool,
    /// Where to listen, with or without a port [default: loopback, or the device's own address].
    #[arg(long, value_name = "ADDRESS[:PORT]", requires = "server", value_parser = parse_address)]
    listen: Option<Address>,
    /// Port, where the address does not tell it.
    #[arg(short = 'p', long, default_value_t = DEFAULT_PORT)]
    tcp_port: u16,
    /// Rounds [default: 10 for the client; a server takes what comes, and fails if it is told how many and there are others].
    #[arg(short = 'C', long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Bytes of each message, 24 to 64K.
    #[arg(short = 'S', long, default_value = "100", value_parser = parse_message_size)]
    size: u64,
    /// Compares what comes back (the client does so always; here for those used to rping).
    #[arg(short = 'V', long)]
    validate: bool,
    /// Serves one client after another until stopped.
    #[arg(short = 'P', long, requires = "server")]
    persistent: bool,
    /// Longest wait for the peer, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// The client's result as a JSON object.
    #[arg(long, conflicts_with = "server")]
    json: bool,
    #[command(flatten)]
    device: DeviceArguments,
}

pub(crate) fn run(arguments: &PingArguments) -> ExitCode {
    // -v shows the data, as rping's does; logs begin with the second.
    logging::start(arguments.device.verbose.saturating_sub(1));
    let plan = match plan(arguments) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("softrdma: {error}");
            return ExitCode::from(2);
        }
    };
    match ping(arguments, &plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("softrdma: {error}");
            ExitCode::FAILURE
        }
    }
}

fn plan(arguments: &PingArguments) -> Result<DevicePlan, DeviceArgumentsError> {
    arguments.device.plan(if arguments.server { Role::Server } else { Role::Client })
}

fn ping(arguments: &PingArguments, plan: &DevicePlan) -> Result<(), PingError> {
    let device = Device::open(plan.config.clone()).map_err(PingError::Open)?;
    let _page = StatisticsPage::show(&device, "softrdma ping");
    let timeout = Duration::from_secs(arguments.timeout);
    let show = arguments.device.verbose > 0;
    match &arguments.peer {
        Some(peer) => {
            let rounds = arguments.count.unwrap_or(10);
            let summary =
                client::run(&device, peer.with_port(arguments.tcp_port), rounds, arguments.size, timeout, show)?;
            summary.print(arguments.json);
            Ok(())
        }
        None => {
            let own = device.addresses().first().copied().unwrap_or(IpAddr::from([127, 0, 0, 1]));
            let listen = arguments.listen.unwrap_or(Address { address: own, port: None }).with_port(arguments.tcp_port);
            server::run(&device, listen, arguments.count, arguments.persistent, timeout, show)
        }
    }
}

/// An address that may have a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address {
    address: IpAddr,
    port: Option<u16>,
}

impl Address {
    fn with_port(&self, default: u16) -> SocketAddr {
        SocketAddr::new(self.address, self.port.unwrap_or(default))
    }
}

fn parse_address(text: &str) -> Result<Address, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Address { address: address.ip(), port: Some(address.port()) });
    }
    let address = text.trim_matches(['[', ']']).parse().map_err(|_| {
        format!("'{text}' is no IP address, alone or with a port: write 10.0.0.1, 10.0.0.1:{DEFAULT_PORT} or [fd00::1]:{DEFAULT_PORT}")
    })?;
    Ok(Address { address, port: None })
}

fn parse_message_size(text: &str) -> Result<u64, String> {
    let size = parse_bytes(text).map_err(|error| error.to_string())?;
    if !(SMALLEST..=LARGEST).contains(&size) {
        return Err(format!("'{text}' is out of range: {SMALLEST} bytes to 64K are accepted, as rping has it"));
    }
    Ok(size)
}

#[cfg(test)]
mod tests;
