//! Which connections may leave TCP, and what they get when they do: read from a TOML file, the same for every process.
//!
//! Rules are looked through in their order, and the first that fits decides; where none fits, connections inside this
//! machine and in private networks may, others stay TCP. A file is optional: without one the defaults hold. Every
//! setting can be set from the environment ([`Policy::override_from`]) for one run.

mod fields;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read};
use serde::Deserialize;

pub use fields::{Ports, Prefix, ProgramPattern, RingBytes};

use crate::statistics::Role;

/// The file that holds for everybody, if it is there.
pub const SYSTEM_FILE: &str = "/etc/softrdma/smc-policy.toml";

/// Names a file that holds instead of [`SYSTEM_FILE`].
pub const FILE_VARIABLE: &str = "SOFTRDMA_SMC_POLICY";

/// What a file may have, in bytes.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// The settings that the environment may have, behind this.
const PREFIX: &str = "SOFTRDMA_SMC_";

/// What may be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Action {
    /// It is moved into shared memory once it has lasted and the other end can.
    #[serde(rename = "smc-d")]
    SmcD,
    /// It stays TCP.
    #[serde(rename = "tcp")]
    Tcp,
    /// It is moved into shared memory, or fails.
    #[serde(rename = "require")]
    Require,
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::SmcD => "smc-d",
            Self::Tcp => "tcp",
            Self::Require => "require",
        })
    }
}

/// Which ends a rule is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Roles {
    /// Those that connect.
    Client,
    /// Those that accept.
    Server,
    /// All.
    #[default]
    Both,
}

/// A line of the policy: what is left out fits everything.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Programs, by the name of their file.
    pub program: Option<ProgramPattern>,
    /// Which end.
    #[serde(default)]
    pub role: Roles,
    /// Addresses of the service.
    pub address: Option<Prefix>,
    /// Ports of the service.
    pub port: Option<Ports>,
    /// What is done.
    pub action: Action,
}

/// What is asked about a connection.
#[derive(Clone, Copy, Debug)]
pub struct Query<'query> {
    /// The name of the program's file, without directories.
    pub program: &'query str,
    /// Which end this is.
    pub role: Role,
    /// The service: what the client connected to, which is the server's own end.
    pub address: SocketAddr,
}

/// The whole of it. [`Policy::default`] is what holds without any file.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Looked through in this order.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
    /// Transfers (calls that move bytes, both ways together) that a connection has seen before it is moved; 0: at once.
    pub upgrade_after: u32,
    /// Of each ring of a connection.
    pub ring_bytes: RingBytes,
    /// Memory that the rings which a process fills may have in use, in bytes, by the count of the last second. Connections for
    /// which there is none stay TCP.
    #[serde(deserialize_with = "fields::bytes")]
    pub max_ring_memory: u64,
    /// How long a receiver looks for bytes before it sleeps, in microseconds.
    pub spin_us: u32,
    /// A directory in which the ends of a connection also meet, where they have no network namespace in common
    /// (containers that have it mounted). Needs `isolation_domain`.
    pub rendezvous_directory: Option<PathBuf>,
    /// Only processes that name the same meet there.
    pub isolation_domain: Option<String>,
    /// A file to which the traffic that leaves TCP is written, for debugging; `%p` in it is the process's number.
    pub capture: Option<PathBuf>,
    /// Whether the library says what it does.
    pub verbose: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            upgrade_after: 32,
            ring_bytes: RingBytes::DEFAULT,
            max_ring_memory: 1 << 30,
            spin_us: 50,
            rendezvous_directory: None,
            isolation_domain: None,
            capture: None,
            verbose: false,
        }
    }
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("cannot read the policy {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// It is no text, or longer than [`MAX_FILE_BYTES`].
    #[error("the policy {path} is no text of at most {MAX_FILE_BYTES} bytes")]
    NotText {
        /// Which.
        path: PathBuf,
    },
    /// What stands in it is not understood; the text names the line, the key and what is allowed.
    #[error("the policy {path} is not understood: {source}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// One of the two is there without the other, or cannot be what it says.
    #[error(
        "rendezvous_directory and isolation_domain go together: an absolute path, and a name of at most 64 characters \
         without '/', such as rendezvous_directory = \"/run/softrdma\" and isolation_domain = \"web\""
    )]
    Rendezvous,
    /// It cannot be found from every directory.
    #[error("capture is an absolute path, such as \"/tmp/smc-%p.pcap\"")]
    Capture,
    /// A variable of the environment is not understood.
    #[error("{name}={value}: {reason}")]
    Variable {
        /// Its name.
        name: String,
        /// What it holds.
        value: String,
        /// Why not.
        reason: String,
    },
}

impl Policy {
    /// What a process goes by: the file that [`FILE_VARIABLE`] names, or else [`SYSTEM_FILE`] if it is there, or else
    /// the defaults; and over all of that the other variables. `variable` gives the environment's.
    pub fn of_process(variable: impl Fn(&str) -> Option<String>) -> Result<Self, PolicyError> {
        let mut policy = match variable(FILE_VARIABLE).filter(|path| !path.is_empty()) {
            Some(path) => Self::load(Path::new(&path))?,
            None => match Self::load(Path::new(SYSTEM_FILE)) {
                Err(PolicyError::Read { source: Errno::NOENT | Errno::NOTDIR | Errno::ACCESS, .. }) => Self::default(),
                loaded => loaded?,
            },
        };
        policy.override_from(variable)?;
        Ok(policy)
    }

    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let text = read_file(path).map_err(|source| PolicyError::Read { path: path.to_owned(), source })?;
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(|| PolicyError::NotText { path: path.to_owned() })?;
        match Self::parse(&text) {
            Ok(policy) => policy.checked(),
            Err(source) => Err(PolicyError::Parse { path: path.to_owned(), source: Box::new(source) }),
        }
    }

    /// Understands a file's text. What belongs together is not checked yet.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Sets what the environment has to say: every setting has a variable, as `SOFTRDMA_SMC_UPGRADE_AFTER` for
    /// `upgrade_after`; and `SOFTRDMA_SMC_ACTION` makes a first rule that fits everything.
    pub fn override_from(&mut self, variable: impl Fn(&str) -> Option<String>) -> Result<(), PolicyError> {
        let set = |name: &str, apply: &mut dyn FnMut(&str) -> Result<(), String>| {
            let name = format!("{PREFIX}{name}");
            let Some(value) = variable(&name) else { return Ok(()) };
            apply(value.trim()).map_err(|reason| PolicyError::Variable { name, value, reason })
        };
        let number = |text: &str| text.parse().map_err(|_| "not a number from 0 to 4294967295".to_owned());
        set("UPGRADE_AFTER", &mut |text| number(text).map(|value| self.upgrade_after = value))?;
        set("SPIN_US", &mut |text| number(text).map(|value| self.spin_us = value))?;
        set("RING_BYTES", &mut |text| text.parse().map(|value| self.ring_bytes = value))?;
        set("MAX_RING_MEMORY", &mut |text| fields::parse_bytes(text).map(|value| self.max_ring_memory = value))?;
        set("RENDEZVOUS_DIRECTORY", &mut |text| {
            self.rendezvous_directory = (!text.is_empty()).then(|| text.into());
            Ok(())
        })?;
        set("ISOLATION_DOMAIN", &mut |text| {
            self.isolation_domain = (!text.is_empty()).then(|| text.to_owned());
            Ok(())
        })?;
        set("CAPTURE", &mut |text| {
            self.capture = (!text.is_empty()).then(|| text.into());
            Ok(())
        })?;
        set("VERBOSE", &mut |text| parse_switch(text).map(|value| self.verbose = value))?;
        set("ACTION", &mut |text| {
            let action = parse_action(text)?;
            self.rules.insert(0, Rule { program: None, role: Roles::Both, address: None, port: None, action });
            Ok(())
        })?;
        self.check()
    }

    /// What is done with a connection.
    pub fn decide(&self, query: &Query<'_>) -> Action {
        let address = query.address.ip().to_canonical();
        let rule = self.rules.iter().find(|rule| {
            rule.is_for(query.program, query.role, query.address.port())
                && rule.address.is_none_or(|prefix| prefix.contains(address))
        });
        match rule {
            Some(rule) => rule.action,
            None if is_near(address) => Action::SmcD,
            None => Action::Tcp,
        }
    }

    /// Whether a listener of `program` at `address` may come to accept a connection that is moved. A listener at the
    /// unspecified address accepts at all there are, so that rules for addresses may fit or not.
    pub fn may_accept(&self, program: &str, address: SocketAddr) -> bool {
        if !address.ip().to_canonical().is_unspecified() {
            return self.decide(&Query { program, role: Role::Server, address }) != Action::Tcp;
        }
        for rule in self.rules.iter().filter(|rule| rule.is_for(program, Role::Server, address.port())) {
            match (rule.action, rule.address) {
                (Action::SmcD | Action::Require, _) => return true,
                // Nothing comes past it.
                (Action::Tcp, None) => return false,
                (Action::Tcp, Some(_)) => {}
            }
        }
        true
    }

    fn checked(self) -> Result<Self, PolicyError> {
        self.check().map(|()| self)
    }

    fn check(&self) -> Result<(), PolicyError> {
        if self.capture.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(PolicyError::Capture);
        }
        self.check_rendezvous()
    }

    fn check_rendezvous(&self) -> Result<(), PolicyError> {
        match (&self.rendezvous_directory, &self.isolation_domain) {
            (None, None) => Ok(()),
            (Some(path), Some(name)) if path.is_absolute() && is_name(name) => Ok(()),
            _ => Err(PolicyError::Rendezvous),
        }
    }
}

impl Rule {
    /// Whether it fits everything but perhaps the address.
    fn is_for(&self, program: &str, role: Role, port: u16) -> bool {
        let has_role = match self.role {
            Roles::Both => true,
            Roles::Client => role == Role::Client,
            Roles::Server => role == Role::Server,
        };
        has_role
            && self.port.is_none_or(|ports| ports.contains(port))
            && self.program.as_ref().is_none_or(|pattern| pattern.matches(program))
    }
}

/// Addresses that lead nowhere far: this machine, private networks (RFC 1918, RFC 4193), one link (RFC 3927, RFC 4291).
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback() || address.is_private() || address.is_link_local() || address.is_unspecified()
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unique_local()
                || address.is_unicast_link_local()
                || address.is_unspecified()
        }
    }
}

/// Whether it may be part of a name in a directory.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && !text.contains('/') && !text.chars().any(char::is_control)
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" | "yes" | "on" => Ok(true),
        "" | "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("expected 1 or 0".to_owned()),
    }
}

fn parse_action(text: &str) -> Result<Action, String> {
    match text {
        "smc-d" => Ok(Action::SmcD),
        "tcp" => Ok(Action::Tcp),
        "require" => Ok(Action::Require),
        _ => Err("expected smc-d, tcp or require".to_owned()),
    }
}

/// `None`: there is more than [`MAX_FILE_BYTES`] of it.
fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Errno> {
    // A policy may be anything that can be opened and read, but nobody is to wait for one.
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match read(&file, &mut part) {
            Ok(0) => return Ok(Some(bytes)),
            Ok(_) if bytes.len() + part.len() > MAX_FILE_BYTES => return Ok(None),
            Ok(length) => bytes.extend_from_slice(&part[..length]),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
