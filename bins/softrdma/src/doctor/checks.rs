//! The single checks. Each looks; none changes anything that stays.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use softrdma_verbs::{Device, DeviceConfig};

use super::Finding;

pub(super) const KERNEL_SOCKET: &str = "kernel-socket";

const BUILD_WITH_DPDK: &str =
    "apt-get install libdpdk-dev dpdk libclang-dev, then cargo build --release --features dpdk";

/// Capabilities by their bits in /proc/self/status (capability.h).
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const BPF: u32 = 39;

pub(super) fn all() -> Vec<Finding> {
    let capabilities = Capabilities::of_this_process();
    vec![
        kernel_socket(),
        processor(),
        descriptors(),
        dpdk(),
        driver("memif", "shared memory between two processes; no root, no hugepages", Ok(())),
        driver("ring", "within one process; no root, no hugepages", Ok(())),
        driver("tap", "TAP interfaces of the kernel", tap(capabilities)),
        driver("af_packet", "kernel interfaces through packet sockets", need(capabilities, NET_RAW, "CAP_NET_RAW")),
        driver(
            "af_xdp",
            "kernel interfaces through XDP sockets",
            need(capabilities, NET_RAW, "CAP_NET_RAW").and(need(capabilities, BPF, "CAP_BPF")),
        ),
        huge_pages(),
        vfio(),
        namespaces(capabilities),
    ]
}

/// Opened for good: a device on loopback is what everything can fall back to.
fn kernel_socket() -> Finding {
    match Device::open(DeviceConfig::kernel_socket("doctor")) {
        Ok(_) => Finding::available(KERNEL_SOCKET, "RDMA over the kernel's TCP; no root, no DPDK"),
        Err(error) => Finding::missing(KERNEL_SOCKET, error.to_string(), "raise the limit of open files (ulimit -n)"),
    }
}

fn processor() -> Finding {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let crc = std::arch::is_x86_feature_detected!("sse4.2");
    let detail = format!("{count} CPUs, CRC32c {} hardware", if crc { "in" } else { "without" });
    match count {
        1 => Finding::missing(
            "processor",
            detail,
            "one CPU carries both ends and their stacks: expect scheduling, not latency",
        ),
        _ => Finding::available("processor", detail),
    }
}

fn descriptors() -> Finding {
    const ENOUGH: u64 = 4096;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let detail = format!("{limit} open files");
    if limit >= ENOUGH {
        return Finding::available("descriptors", detail);
    }
    Finding::missing(
        "descriptors",
        detail,
        format!("for more than some {limit} kernel-socket connections: ulimit -n {ENOUGH}"),
    )
}

fn dpdk() -> Finding {
    match (cfg!(feature = "dpdk"), driver_folder()) {
        (true, Some(folder)) => Finding::available("dpdk", format!("built in; drivers in {}", folder.display())),
        (true, None) => Finding::missing("dpdk", "built in, but its drivers are not installed", "apt-get install dpdk"),
        (false, _) => Finding::missing("dpdk", "this program was built without it", BUILD_WITH_DPDK),
    }
}

/// A virtual device of DPDK, as far as it needs something beside DPDK: `beside` says what is missing and what helps.
fn driver(name: &'static str, detail: &str, beside: Result<(), (String, String)>) -> Finding {
    if !cfg!(feature = "dpdk") {
        return Finding::missing(name, format!("{detail}: needs DPDK"), "see dpdk");
    }
    if let Some(folder) = driver_folder()
        && !has_driver(&folder, name)
    {
        return Finding::missing(name, format!("no librte_net_{name} in {}", folder.display()), "apt-get install dpdk");
    }
    match beside {
        Ok(()) => Finding::available(name, detail),
        Err((missing, remedy)) => Finding::missing(name, format!("{detail}: {missing}"), remedy),
    }
}

/// Where the system's DPDK loads its drivers from.
fn driver_folder() -> Option<PathBuf> {
    let bases = [
        "/usr/lib/x86_64-linux-gnu/dpdk",
        "/usr/local/lib/x86_64-linux-gnu/dpdk",
        "/usr/lib64/dpdk",
        "/usr/local/lib64/dpdk",
    ];
    bases
        .iter()
        .flat_map(fs::read_dir)
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pmds-")))
}

fn has_driver(folder: &Path, name: &str) -> bool {
    let prefix = format!("librte_net_{name}.so");
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
}

fn tap(capabilities: Capabilities) -> Result<(), (String, String)> {
    const DEVICE: &str = "/dev/net/tun";
    if !Path::new(DEVICE).exists() {
        return Err((
            format!("{DEVICE} is missing"),
            "modprobe tun, or mknod /dev/net/tun c 10 200, as root".to_owned(),
        ));
    }
    if access(DEVICE, Access::READ_OK | Access::WRITE_OK).is_err() {
        return Err((format!("{DEVICE} may not be opened"), "run as root".to_owned()));
    }
    need(capabilities, NET_ADMIN, "CAP_NET_ADMIN")
}

/// The effective capabilities of this process.
#[derive(Clone, Copy, Debug)]
struct Capabilities(u64);

impl Capabilities {
    fn of_this_process() -> Self {
        Self(fs::read_to_string("/proc/self/status").ok().as_deref().and_then(parse_capabilities).unwrap_or(0))
    }

    fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }
}

fn parse_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn need(capabilities: Capabilities, bit: u32, name: &str) -> Result<(), (String, String)> {
    if capabilities.has(bit) {
        return Ok(());
    }
    Err((format!("this process lacks {name}"), format!("run as root, or give the program {name} (setcap)")))
}

fn huge_pages() -> Finding {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    match (value("HugePages_Free:"), value("Hugepagesize:")) {
        (Some(free), Some(size)) if free > 0 => {
            Finding::available("hugepages", format!("{free} free, of {} MiB each", size >> 10))
        }
        (Some(_), Some(_)) => Finding::missing(
            "hugepages",
            "none are free; network cards want them, virtual devices do without",
            "echo 512 > /proc/sys/vm/nr_hugepages, as root",
        ),
        _ => Finding::missing("hugepages", "this kernel has none", "virtual devices do without"),
    }
}

fn vfio() -> Finding {
    let groups = fs::read_dir("/sys/kernel/iommu_groups").into_iter().flatten().count();
    let modules = Path::new("/dev/vfio/vfio").exists();
    match (modules, groups) {
        (true, 1..) => Finding::available("vfio", format!("{groups} IOMMU groups; dpdk-devbind.py binds a card")),
        (true, 0) => Finding::missing(
            "vfio",
            "no IOMMU group: the machine has no IOMMU, or it is off",
            "switch it on (intel_iommu=on, firmware), or enable_unsafe_noiommu_mode of module vfio",
        ),
        (false, _) => Finding::missing(
            "vfio",
            "/dev/vfio/vfio is missing; needed for network cards only",
            "modprobe vfio-pci, as root",
        ),
    }
}

/// `softrdma-perf pair` puts TAP and AF_PACKET interfaces into a namespace of its own.
fn namespaces(capabilities: Capabilities) -> Finding {
    const NAME: &str = "namespaces";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |tool: &str| {
        std::env::split_paths(&path)
            .chain([PathBuf::from("/sbin"), PathBuf::from("/usr/sbin")])
            .any(|folder| folder.join(tool).is_file())
    };
    for (tool, package) in [("unshare", "util-linux"), ("ip", "iproute2")] {
        if !has(tool) {
            return Finding::missing(NAME, format!("no `{tool}`"), format!("apt-get install {package}"));
        }
    }
    if capabilities.has(NET_ADMIN) {
        return Finding::available(NAME, "`softrdma-perf pair` can make its own network");
    }
    Finding::missing(
        NAME,
        "this process lacks CAP_NET_ADMIN",
        "run as root for `softrdma-perf pair --fabric tap` or af_packet",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_sockets_work_here() {
        let finding = kernel_socket();
        assert!(finding.available, "{finding:?}");
    }

    #[test]
    fn whatever_is_missing_comes_with_a_remedy() {
        for finding in all() {
            assert_eq!(finding.available, finding.remedy.is_none(), "{finding:?}");
            assert!(!finding.detail.is_empty());
        }
    }

    #[test]
    fn capabilities_are_read_from_the_kernels_text() {
        let status = "Name:\tx\nCapInh:\t0000000000000000\nCapEff:\t0000000000003000\nCapBnd:\t000001ffffffffff\n";
        let capabilities = Capabilities(parse_capabilities(status).unwrap());
        assert!(capabilities.has(NET_ADMIN) && capabilities.has(NET_RAW) && !capabilities.has(BPF));
        assert_eq!(parse_capabilities("nothing"), None);
    }

    #[test]
    fn a_missing_capability_is_named() {
        let (missing, remedy) = need(Capabilities(0), NET_RAW, "CAP_NET_RAW").unwrap_err();
        assert!(missing.contains("CAP_NET_RAW") && remedy.contains("CAP_NET_RAW"));
    }
}
