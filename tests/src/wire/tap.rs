//! TAP interfaces: what the kernel sends on one is read here, what is written here the kernel receives on it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use smoltcp::phy::{Medium, TunTapInterface};

/// Where an interface is to be: its name, and the network namespace it is moved to if it is not to stay in that of the
/// process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the interface, at most 15 bytes.
    pub name: String,
    /// As `ip netns` knows it.
    pub namespace: Option<String>,
}

/// A TAP interface that goes away with this value.
#[derive(Debug)]
pub struct Tap {
    descriptor: OwnedFd,
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const LONGEST: usize = 15;
        let (name, namespace) = match text.split_once('@') {
            None => (text, None),
            Some((name, namespace)) => (name, Some(namespace.to_owned())),
        };
        if name.is_empty() || name.len() > LONGEST || namespace.as_deref() == Some("") {
            return Err(format!(
                "'{text}' names no interface: write NAME or NAME@NAMESPACE, NAME 1 to {LONGEST} bytes"
            ));
        }
        Ok(Self { name: name.to_owned(), namespace })
    }
}

impl Tap {
    /// Makes the interface, moves it to its namespace and sets it up, with packets of `mtu` bytes and without addresses of
    /// the kernel's own making. Needs root and `ip`.
    pub fn new(place: &Place, mtu: u32) -> Result<Self, String> {
        let Place { name, namespace } = place;
        let failed = |what: &str, error: &dyn std::fmt::Display| format!("interface {name}: {what}: {error}");
        let interface = TunTapInterface::new(name, Medium::Ethernet)
            .map_err(|error| failed("cannot be made; it needs root and a name that no interface has", &error))?;
        // smoltcp makes the interface but lends its descriptor as a number only; this is the same open file, owned.
        let descriptor = pidfd_open(getpid(), PidfdFlags::empty())
            .and_then(|own| pidfd_getfd(own, interface.as_raw_fd(), PidfdGetfdFlags::empty()))
            .map_err(|error| failed("no descriptor", &error))?;
        rustix::fs::fcntl_setfl(&descriptor, OFlags::NONBLOCK | OFlags::RDWR)
            .map_err(|error| failed("cannot be polled", &error))?;
        if let Some(namespace) = namespace {
            ip(&["link", "set", name, "netns", namespace])?;
        }
        let mtu = mtu.to_string();
        for setting in [&["addrgenmode", "none"][..], &["mtu", &mtu], &["up"]] {
            let inside = namespace.as_deref().map_or(vec![], |namespace| vec!["-n", namespace]);
            ip(&[&inside[..], &["link", "set", name], setting].concat())?;
        }
        Ok(Self { descriptor })
    }

    /// What to wait for frames on.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }

    /// The length of the next frame, written into `frame`; `None`: there is none now.
    pub fn receive(&self, frame: &mut [u8]) -> Result<Option<usize>, Errno> {
        match rustix::io::read(&self.descriptor, frame) {
            Ok(length) => Ok(Some(length)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands a frame to the kernel; `false` if the kernel does not take it (the interface is down, or memory is short).
    pub fn send(&self, frame: &[u8]) -> bool {
        rustix::io::write(&self.descriptor, frame).is_ok()
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
