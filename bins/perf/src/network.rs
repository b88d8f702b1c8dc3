//! The network below a pair: a namespace of its own, with interfaces that join two DPDK ports. Everything goes with the processes.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use softrdma_bins_common::device::{End, Fabric, memif};
use softrdma_verbs::configuration::PortDevice;

use crate::failure::{Context, Failure};

/// Says to a process that it runs in a namespace made for it.
pub(crate) const INSIDE: &str = "SOFTRDMA_PERF_NAMESPACE";

/// The bridge between TAP interfaces.
const BRIDGE: &str = "softrdma-br";

/// Whether two ports of this fabric need interfaces of the kernel.
fn needs_namespace(fabric: Fabric) -> bool {
    matches!(fabric, Fabric::Tap | Fabric::AfPacket)
}

/// Starts this program again, with the same arguments, in a network namespace of its own, if `fabric` needs one and we are not in
/// it. It ends with the last process in it, however that ends, and takes the interfaces along. Returns only if there is no need, or
/// on failure.
pub(crate) fn enter_namespace(fabric: Fabric) -> Result<(), Failure> {
    if !needs_namespace(fabric) || std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe().context(|| "cannot find this program's file")?;
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--net").arg(program).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    let error = command.exec();
    Err(Failure::Refused(format!(
        "--fabric {} needs a network namespace, and `unshare` (util-linux) does not run: {error}",
        fabric.name()
    )))
}

/// Makes what two ports of `fabric` are joined by, as far as it must be there before them.
pub(crate) fn prepare(fabric: Fabric) -> Result<(), Failure> {
    match fabric {
        Fabric::Tap => {
            ip(&["link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0"])?;
            ip(&["link", "set", BRIDGE, "addrgenmode", "none"])?;
            ip(&["link", "set", BRIDGE, "up"])
        }
        Fabric::AfPacket => {
            let (server, client) = (interface(End::Server), interface(End::Client));
            ip(&["link", "add", server, "mtu", "9000", "type", "veth", "peer", "name", client, "mtu", "9000"])?;
            for name in [server, client] {
                // The kernel must not answer there, and must not leave checksums to hardware that is none.
                ip(&["link", "set", name, "addrgenmode", "none"])?;
                ip(&["link", "set", name, "arp", "off"])?;
                ip(&["link", "set", name, "up"])?;
            }
            Ok(())
        }
        Fabric::Memif | Fabric::Ring | Fabric::Kernel => Ok(()),
    }
}

/// Joins the interface that the port of `end` has made to the others. The port is open already.
pub(crate) fn attach(fabric: Fabric, end: End, limit: Duration) -> Result<(), Failure> {
    if fabric != Fabric::Tap {
        return Ok(());
    }
    let name = interface(end);
    let begun = Instant::now();
    while ip(&["link", "show", name]).is_err() {
        if begun.elapsed() > limit {
            return Err(Failure::Timeout { what: format!("interface {name} of the port"), limit });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // A bridge delivers frames for an address of one of its ports to the machine itself, and the kernel's side of the port has
    // the port's own address: give it another.
    let other = match end {
        End::Server => "02:00:00:00:51:01",
        End::Client => "02:00:00:00:51:02",
    };
    ip(&["link", "set", name, "addrgenmode", "none"])?;
    ip(&["link", "set", name, "down"])?;
    ip(&["link", "set", name, "address", other])?;
    ip(&["link", "set", name, "master", BRIDGE])?;
    ip(&["link", "set", name, "up"])
}

/// The port of one end.
pub(crate) fn port(fabric: Fabric, end: End) -> Option<PortDevice> {
    match fabric {
        Fabric::Kernel => None,
        // Abstract, so that no file stays behind; the process number keeps runs apart. Both ends are named by the parent.
        Fabric::Memif => Some(memif(end, format!("softrdma-perf-pair-{}", std::process::id()))),
        Fabric::Tap => Some(PortDevice::Tap { interface: interface(end).to_owned() }),
        Fabric::AfPacket => Some(PortDevice::AfPacket { interface: interface(end).to_owned() }),
        Fabric::Ring => Some(PortDevice::Ring {}),
    }
}

const fn interface(end: End) -> &'static str {
    match end {
        End::Server => "softrdma-s",
        End::Client => "softrdma-c",
    }
}

fn ip(arguments: &[&str]) -> Result<(), Failure> {
    let line = || format!("ip {}", arguments.join(" "));
    let output = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context(|| format!("cannot run `{}` (package iproute2)", line()))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::Refused(format!("`{}` failed: {message}", line())))
}
