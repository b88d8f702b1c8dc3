//! The options that make a device: from a file, from a fabric with defaults, or from a DPDK device's name.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use serde::{Deserialize, Serialize};
use softrdma_verbs::configuration::{
    Capture, ConfigError, DeviceConfig, HugePages, InterfaceAddress, MemifRole, PortConfigText, PortDevice, Scheme,
    Threads,
};

/// What the two ends of a test are joined by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Fabric {
    /// Shared memory between two processes, through DPDK. Needs no root and no hugepages.
    Memif,
    /// TAP interfaces that DPDK makes, on a bridge. Needs root.
    Tap,
    /// A DPDK ring within one process.
    Ring,
    /// Kernel interfaces through AF_PACKET sockets. Needs root.
    AfPacket,
    /// The kernel's TCP; the only one for kernel-socket.
    Kernel,
}

impl Fabric {
    /// The name on command lines and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memif => "memif",
            Self::Tap => "tap",
            Self::Ring => "ring",
            Self::AfPacket => "af_packet",
            Self::Kernel => "kernel",
        }
    }

    /// Whether it is a DPDK port.
    pub const fn needs_dpdk(self) -> bool {
        !matches!(self, Self::Kernel)
    }
}

/// Which of two ends a process is, where the two must differ (memif roles, default addresses).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The one that listens.
    Server,
    /// The one that connects.
    Client,
}

impl End {
    /// Its address on fabrics of our own: from the range for documentation (RFC 5737), so that it meets nobody's network.
    pub const fn address(self) -> Ipv4Addr {
        match self {
            Self::Server => Ipv4Addr::new(192, 0, 2, 1),
            Self::Client => Ipv4Addr::new(192, 0, 2, 2),
        }
    }
}

/// A switch that is said aloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// On.
    On,
    /// Off.
    Off,
}

impl From<OnOff> for bool {
    fn from(value: OnOff) -> Self {
        value == OnOff::On
    }
}

/// `--scheme`, as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemeName {
    /// Kernel TCP sockets; needs no DPDK and no root.
    KernelSocket,
    /// smoltcp's TCP over a DPDK port.
    Sequential,
    /// Own one-copy TCP over a DPDK port.
    Softrdma,
    /// A real device through libibverbs (not in this version).
    Rnic,
}

/// `--threads`, as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ThreadsName {
    /// One stack thread beside the application's.
    C1,
    /// Run to completion in the application's polls.
    C2,
    /// Receive on the stack's thread, transmit on the application's (softrdma).
    C3,
}

/// Options that make a device.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Device")]
pub struct DeviceArguments {
    /// What carries the bytes [default: kernel-socket, or softrdma if a DPDK fabric or port is named].
    #[arg(long, value_enum)]
    pub scheme: Option<SchemeName>,
    /// Who runs the stack [default: c3 for softrdma, c1 for the others].
    #[arg(long, value_enum)]
    pub threads: Option<ThreadsName>,
    /// What joins the two ends [default: kernel for kernel-socket, memif for the others].
    #[arg(long, value_enum)]
    pub fabric: Option<Fabric>,
    /// A device configuration in TOML; the other options override what it says. Samples are in configs/.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A DPDK device in DPDK's own words, or a PCI address, instead of a fabric's default.
    #[arg(long, value_name = "DEVICE")]
    pub port: Option<String>,
    /// Own address with its prefix length, for DPDK ports; may be repeated.
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    pub address: Vec<InterfaceAddress>,
    /// Default router, for DPDK ports; may be repeated.
    #[arg(long)]
    pub gateway: Vec<IpAddr>,
    /// Bytes of the largest IP packet, for DPDK ports [default: 1500].
    #[arg(long, value_parser = clap::value_parser!(u32).range(576..=65535))]
    pub mtu: Option<u32>,
    /// Asks for CRC32c on every message [default: on].
    #[arg(long, value_enum, value_name = "on|off")]
    pub crc: Option<OnOff>,
    /// Computes and verifies IP and TCP checksums, for DPDK ports [default: on].
    #[arg(long, value_enum, value_name = "on|off")]
    pub checksum: Option<OnOff>,
    /// Never sleeps when idle.
    #[arg(long)]
    pub busy_poll: bool,
    /// CPUs: of the application's thread, then of the stack's. `pair` takes the client's two, then the server's two. On the same CPU
    /// the two take turns at receiving; with one of its own the stack's thread keeps it (c3).
    #[arg(long, value_delimiter = ',', value_name = "CPU,...")]
    pub pin: Vec<usize>,
    /// Writes what passes a DPDK port into this file, for Wireshark.
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Shows more of what happens; twice, details. RUST_LOG overrides it.
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// Why the options make no device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceArgumentsError {
    /// A scheme or threading model to come.
    #[error("{option} {value}: not in this version; {instead}")]
    NotInThisVersion {
        /// The option.
        option: &'static str,
        /// What was asked for.
        value: &'static str,
        /// What there is.
        instead: &'static str,
    },
    /// A scheme and a fabric that do not go together.
    #[error("--scheme {scheme} does not go over --fabric {fabric}: {instead}")]
    Mismatch {
        /// The scheme.
        scheme: &'static str,
        /// The fabric.
        fabric: &'static str,
        /// What does.
        instead: &'static str,
    },
    /// The program was built without DPDK.
    #[error(
        "{what} needs DPDK, which this program was built without: install libdpdk-dev (at least 22.11) and build with \
         `cargo build --release --features dpdk`"
    )]
    BuiltWithoutDpdk {
        /// What was asked for.
        what: String,
    },
    /// An option that the scheme has no use for.
    #[error("{option} is for DPDK ports (--scheme sequential or softrdma): {instead}")]
    OnlyForPorts {
        /// The option.
        option: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// The configuration, from a file or put together, is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// A device to be opened, and what joins it to its peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DevicePlan {
    /// The device.
    pub config: DeviceConfig,
    /// What joins it to its peer; `None` for a port that was named by itself.
    pub fabric: Option<Fabric>,
    /// The CPU of the application's thread.
    pub application_cpu: Option<usize>,
}

impl DevicePlan {
    /// The fabric's name for reports.
    pub fn fabric_name(&self) -> &'static str {
        self.fabric.map_or("port", Fabric::name)
    }
}

impl DeviceArguments {
    /// The scheme and the fabric that the options mean. Those that are not in this version are refused.
    pub fn scheme_and_fabric(&self) -> Result<(Scheme, Option<Fabric>), DeviceArgumentsError> {
        let dpdk_named = self.port.is_some() || self.fabric.is_some_and(Fabric::needs_dpdk);
        let scheme = match self.scheme {
            Some(SchemeName::KernelSocket) => Scheme::KernelSocket,
            Some(SchemeName::Sequential) => Scheme::Sequential,
            Some(SchemeName::Softrdma) => Scheme::Softrdma,
            Some(SchemeName::Rnic) => return Err(not_in_this_version("--scheme", "rnic", OTHER_SCHEMES)),
            None if dpdk_named => Scheme::Softrdma,
            None => Scheme::KernelSocket,
        };
        let fabric = match (scheme, self.fabric) {
            (Scheme::KernelSocket, None | Some(Fabric::Kernel)) => Some(Fabric::Kernel),
            (Scheme::KernelSocket, Some(fabric)) => {
                let instead = "kernel sockets need --fabric kernel; DPDK fabrics need --scheme softrdma or sequential";
                return Err(DeviceArgumentsError::Mismatch { scheme: scheme.name(), fabric: fabric.name(), instead });
            }
            (_, Some(Fabric::Kernel)) => {
                let instead = "it needs a DPDK port, as --fabric memif; --fabric kernel needs --scheme kernel-socket";
                return Err(DeviceArgumentsError::Mismatch { scheme: scheme.name(), fabric: "kernel", instead });
            }
            (_, None) if self.port.is_some() => None,
            (_, fabric) => fabric.or(Some(Fabric::Memif)),
        };
        Ok((scheme, fabric))
    }

    /// The device of one end, as a process of its own: with `--fabric memif` the two ends meet without further options.
    pub fn plan(&self, end: End) -> Result<DevicePlan, DeviceArgumentsError> {
        if let Some(path) = &self.config {
            let config = DeviceConfig::load(path)?;
            let fabric = (config.scheme == Scheme::KernelSocket).then_some(Fabric::Kernel);
            return self.finish(config, fabric);
        }
        let (scheme, fabric) = self.scheme_and_fabric()?;
        let device = match (&self.port, fabric) {
            (Some(arguments), _) => Some(named_port(arguments)),
            (None, Some(fabric)) => default_port(fabric, end),
            (None, None) => None,
        };
        self.plan_over(scheme, fabric, device, end)
    }

    /// The device of one end over a port that the caller has chosen.
    pub fn plan_over(
        &self,
        scheme: Scheme,
        fabric: Option<Fabric>,
        device: Option<PortDevice>,
        end: End,
    ) -> Result<DevicePlan, DeviceArgumentsError> {
        let mut config = DeviceConfig { scheme, port: device.map(PortConfigText::new), ..DeviceConfig::default() };
        if scheme != Scheme::KernelSocket {
            config.addresses = vec![InterfaceAddress { address: end.address().into(), prefix: 24 }];
            // Neither hugepages nor root: what the machine has beyond that is for a configuration file to claim.
            config.eal.huge_pages = HugePages::Off;
        }
        self.finish(config, fabric)
    }

    /// Lays the options over `config` and checks the whole.
    fn finish(&self, mut config: DeviceConfig, fabric: Option<Fabric>) -> Result<DevicePlan, DeviceArgumentsError> {
        match self.threads {
            Some(ThreadsName::C1) => config.threads = Threads::C1,
            Some(ThreadsName::C2) => config.threads = Threads::C2,
            Some(ThreadsName::C3) => config.threads = Threads::C3,
            None if self.config.is_none() => config.threads = config.scheme.default_threads(),
            None => {}
        }
        let is_port = config.scheme != Scheme::KernelSocket;
        self.check_port_options(is_port)?;
        if is_port && !cfg!(feature = "dpdk") {
            let what = fabric
                .map_or(format!("--scheme {}", config.scheme.name()), |fabric| format!("--fabric {}", fabric.name()));
            return Err(DeviceArgumentsError::BuiltWithoutDpdk { what });
        }
        if !self.address.is_empty() {
            config.addresses.clone_from(&self.address);
        }
        config.gateways.extend(&self.gateway);
        config.mtu = self.mtu.unwrap_or(config.mtu);
        config.crc = self.crc.map_or(config.crc, bool::from);
        config.checksum = self.checksum.map_or(config.checksum, bool::from);
        config.busy_poll |= self.busy_poll;
        config.stack_cpu = match self.pin[..] {
            // It comes from the application's thread, and so onto that CPU. Told of a CPU it would take that for its own.
            [application, stack, ..] if application == stack => None,
            [_, stack, ..] => Some(stack),
            _ => config.stack_cpu,
        };
        if let Some(file) = &self.pcap {
            config.capture = Some(Capture { file: file.clone(), ..Capture::default() });
        }
        config.validate()?;
        Ok(DevicePlan { config, fabric, application_cpu: self.pin.first().copied() })
    }

    fn check_port_options(&self, is_port: bool) -> Result<(), DeviceArgumentsError> {
        let instead = "leave it away; the kernel's own settings apply to kernel sockets";
        let options = [
            ("--mtu", self.mtu.is_some(), instead),
            ("--address", !self.address.is_empty(), instead),
            ("--gateway", !self.gateway.is_empty(), instead),
            ("--checksum", self.checksum.is_some(), instead),
            ("--pcap", self.pcap.is_some(), "capture kernel sockets with `tcpdump -i lo -w FILE`"),
        ];
        match options.into_iter().find(|(_, given, _)| *given && !is_port) {
            Some((option, _, instead)) => Err(DeviceArgumentsError::OnlyForPorts { option, instead }),
            None => Ok(()),
        }
    }
}

const OTHER_SCHEMES: &str = "kernel-socket, sequential and softrdma are";

fn not_in_this_version(option: &'static str, value: &'static str, instead: &'static str) -> DeviceArgumentsError {
    DeviceArgumentsError::NotInThisVersion { option, value, instead }
}

/// A PCI address or a DPDK device in its own words.
fn named_port(text: &str) -> PortDevice {
    let is_pci = text.starts_with(|first: char| first.is_ascii_hexdigit()) && text.contains(':') && text.contains('.');
    if is_pci { PortDevice::Pci { address: text.to_owned() } } else { PortDevice::Dpdk { arguments: text.to_owned() } }
}

/// What two processes of one user meet at if neither says more.
fn default_port(fabric: Fabric, end: End) -> Option<PortDevice> {
    let user = rustix::process::geteuid().as_raw();
    let name = match end {
        End::Server => "server",
        End::Client => "client",
    };
    match fabric {
        Fabric::Kernel => None,
        Fabric::Memif => Some(memif(end, format!("softrdma-perf-{user}"))),
        Fabric::Tap => Some(PortDevice::Tap { interface: format!("softrdma-{name}") }),
        Fabric::Ring => Some(PortDevice::Ring {}),
        Fabric::AfPacket => Some(PortDevice::AfPacket { interface: format!("softrdma-{name}") }),
    }
}

/// One end of a memif on the abstract socket of that name.
pub fn memif(end: End, socket: String) -> PortDevice {
    let role = match end {
        End::Server => MemifRole::Server,
        End::Client => MemifRole::Client,
    };
    PortDevice::Memif { role, id: 0, socket }
}

#[cfg(test)]
#[path = "device/tests.rs"]
mod tests;
