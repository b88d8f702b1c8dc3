//! Plain frames between two DPDK ports.

use softrdma_dpdk_glue::raw::{self, Config, Limit, Touch};
use softrdma_dpdk_glue::{Eal, EalConfig, EthPort, HugePages, MemifRole as GlueRole, PortConfig};
use softrdma_verbs::configuration::{MemifRole, PortDevice};

use super::*;

/// The side that measures.
pub(super) fn initiate(
    child: &Child,
    fabric: Fabric,
    device: &DevicePlan,
    runs: &[RawRun],
    mut take: impl FnMut(&RawRun, RawResult) -> Result<(), Failure>,
) -> Result<(), Failure> {
    match child.hear("readiness", PATIENCE)? {
        Saying::Ready => {}
        Saying::Failed(reason) => return Err(Failure::Peer(reason)),
        Saying::Listening(_) => return Err(Failure::Protocol("the second process listens".to_owned())),
    }
    network::attach(fabric, End::Server, PATIENCE)?;
    let mut port = open(device)?;
    network::attach(fabric, End::Client, PATIENCE)?;
    for run in runs {
        let report = raw::initiator(&mut port, &config(run)).context(|| "plain frames")?;
        if report.frames == 0 {
            let (size, seconds) = (run.size, run.duration.as_secs_f64());
            return Err(Failure::Refused(format!(
                "no frame of {size} bytes was measured within {seconds} s, all the time went into the warm-up: raise --duration"
            )));
        }
        let mut latencies = Latencies::new();
        for bucket in report.round_trips_ns.iter_recorded() {
            let round_trip = Duration::from_nanos(bucket.value_iterated_to());
            latencies.record_round_trips(round_trip, bucket.count_at_value());
        }
        let throughput = Throughput { messages: report.frames, bytes: report.bytes, time: report.elapsed };
        take(run, RawResult { latencies, throughput })?;
    }
    Ok(())
}

/// The side that answers.
pub(super) fn respond(device: &DevicePlan, runs: &[RawRun]) -> Result<(), Failure> {
    let mut port = open(device)?;
    say(&Saying::Ready);
    for run in runs {
        raw::responder(&mut port, &config(run)).context(|| "plain frames")?;
    }
    Ok(())
}

fn config(run: &RawRun) -> Config {
    let traffic = match run.traffic {
        Traffic::PingPong => raw::Traffic::PingPong,
        Traffic::Bulk => raw::Traffic::Bulk,
    };
    let touch =
        run.touch.map(|touch| Touch { memory_bytes: touch.memory as usize, crc: touch.crc, checksum: touch.checksum });
    let limit = Limit::Time(run.duration);
    // The time of a run includes its warm-up, which therefore must be short even where the machine is busy or the port slow.
    let warm_up = match run.traffic {
        Traffic::PingPong => 16,
        Traffic::Bulk => 256,
    };
    Config { limit, touch, warm_up, patience: PATIENCE, ..Config::new(traffic, run.size as usize) }
}

fn open(device: &DevicePlan) -> Result<EthPort, Failure> {
    let config = match device.config.port.as_ref().map(|port| &port.device) {
        Some(PortDevice::Memif { role, id, socket }) => {
            let role = match role {
                MemifRole::Server => GlueRole::Server,
                MemifRole::Client => GlueRole::Client,
            };
            PortConfig::memif(role, *id, socket)
        }
        Some(PortDevice::Tap { interface }) => PortConfig::tap(interface),
        Some(PortDevice::AfPacket { interface }) => PortConfig::af_packet(interface),
        other => return Err(Failure::Refused(format!("raw does not know the port {other:?}"))),
    };
    let eal =
        EalConfig { huge_pages: HugePages::Off, memory_mib: device.config.eal.memory_mib, ..EalConfig::default() };
    let eal = Eal::init(&eal).context(|| "cannot start DPDK")?;
    EthPort::open(&eal, &config.with_mtu(device.config.mtu as usize)).context(|| "cannot open the port")
}
