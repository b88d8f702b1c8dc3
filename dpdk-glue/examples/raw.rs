//! Plain frames over memif between two processes of this program, one pinned to CPU 0 and one to CPU 1.
//!
//! `raw FRAME_SIZE [SECONDS [TOUCH_MIB [crc] [checksum]]]` prints one line: round trip and one-way throughput.
//! RAW_MEMIF holds further arguments of net_memif (`bsize=2048,rsize=8`); what it leaves out is chosen by the frame size.

use std::error::Error;
use std::process::Command;
use std::time::Duration;

use softrdma_dpdk_glue::raw::{self, Config, Limit, Report, Touch, Traffic};
use softrdma_dpdk_glue::{Eal, EalConfig, EthPort, HugePages, MemifRole, PortConfig};

const SIDE: &str = "RAW_EXAMPLE_SOCKET";
const DEVICE_ARGUMENTS: &str = "RAW_MEMIF";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Ok(socket) = std::env::var(SIDE) {
        let mut port = open(MemifRole::Server, &socket, &arguments)?;
        for traffic in [Traffic::PingPong, Traffic::Bulk] {
            raw::responder(&mut port, &config(traffic, &arguments)?)?;
        }
        return Ok(());
    }
    let socket = format!("softrdma-raw-{}", std::process::id());
    let mut other = Command::new(std::env::current_exe()?).args(&arguments).env(SIDE, &socket).spawn()?;
    let mut port = open(MemifRole::Client, &socket, &arguments)?;
    let pings = raw::initiator(&mut port, &config(Traffic::PingPong, &arguments)?)?;
    let bulk = raw::initiator(&mut port, &config(Traffic::Bulk, &arguments)?)?;
    other.wait()?;
    print(&pings, &bulk);
    Ok(())
}

fn print(pings: &Report, bulk: &Report) {
    let round_trip = |quantile| pings.round_trips_ns.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "frame {:>5} B  round trip p50 {:.2} us p99 {:.2} us  one way {:.3} Mpps {:.2} Gbit/s  lost {}",
        bulk.bytes / bulk.frames.max(1),
        round_trip(0.5),
        round_trip(0.99),
        bulk.frames_per_second() / 1e6,
        bulk.throughput_gbps(),
        bulk.lost,
    );
}

fn config(traffic: Traffic, arguments: &[String]) -> Result<Config, Box<dyn Error>> {
    let seconds = arguments.get(1).map_or(Ok(1.0), |seconds| seconds.parse())?;
    let memory_mib: usize = arguments.get(2).map_or(Ok(0), |size| size.parse())?;
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let touch = Touch { memory_bytes: memory_mib << 20, crc: has("crc"), checksum: has("checksum") };
    Ok(Config {
        limit: Limit::Time(Duration::from_secs_f64(seconds)),
        touch: (memory_mib > 0).then_some(touch),
        ..Config::new(traffic, frame_size(arguments)?)
    })
}

fn frame_size(arguments: &[String]) -> Result<usize, Box<dyn Error>> {
    Ok(arguments.first().map_or(Ok(64), |size| size.parse())?)
}

fn open(role: MemifRole, socket: &str, arguments: &[String]) -> Result<EthPort, Box<dyn Error>> {
    let eal = Eal::init(&EalConfig { huge_pages: HugePages::Auto, memory_mib: 256, ..EalConfig::default() })?;
    let cpu = if role == MemifRole::Server { 1 } else { 0 };
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
    let mtu = frame_size(arguments)?.saturating_sub(14).max(1500);
    let mut config = PortConfig::memif(role, 0, socket).with_mtu(mtu);
    if let Ok(arguments) = std::env::var(DEVICE_ARGUMENTS) {
        config.device = format!("{},{arguments}", config.device);
    }
    Ok(EthPort::open(&eal, &config)?)
}
