//! Network namespaces for tests that are root.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace of its own that goes away with this value, and everything in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes it, with loopback up; `name` appears in its name. Needs root and `ip`.
    pub fn new(name: &str) -> Self {
        let namespace = Namespace { name: format!("softrdma-{name}-{}", std::process::id()) };
        ip(&["netns", "add", &namespace.name]).unwrap_or_else(|error| panic!("{error}"));
        namespace.ip(&["link", "set", "lo", "up"]).unwrap_or_else(|error| panic!("{error}"));
        namespace
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it; an error is what `ip` said.
    pub fn ip(&self, arguments: &[&str]) -> Result<(), String> {
        ip(&[&["-n", self.name.as_str()], arguments].concat())
    }

    /// Does `work` in it, on a thread of its own: sockets and interfaces made there stay there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let link = File::open(format!("/run/netns/{}", self.name)).expect("where `ip netns` puts it");
            move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter it");
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join()).expect("the work is done")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A namespace that cannot be removed is seen in `ip netns`; the test has its result already.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
