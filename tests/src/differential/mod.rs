//! Our TCP beside the kernel's: the same two applications over kernel and kernel, and with ours on either side.
//!
//! What an application sees of a connection must not depend on whose TCP is below it, nor on whose is below its peer. A
//! [`Scenario`] is what two applications do, one step after the other; [`Rig::differences`] plays it with each of them as the
//! one that connects, over the kernel on both sides and then with our engine in the place of one, and tells where what they
//! saw was not the same.
//!
//! - [`script`]: steps, what is seen, and an application that follows its script.
//! - `kernel`, `ours`: the two kinds of TCP below an application.
//! - `cable`: what carries frames between them, holds them up when it is told to, and does them harm where that is wanted.
//! - `play`: one connection, from its beginning to the end of both scripts, against a deadline.
//!
//! Each kernel has a TAP interface in a network namespace; nothing else is in there, and nothing outside is touched. All runs in
//! one thread that never blocks.

mod cable;
mod kernel;
mod ours;
mod play;
pub mod script;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::network::Namespace;
use crate::wire::Trouble;
use crate::wire::tap::{Place, Tap};
use cable::{Cable, Plug};
use kernel::KernelEnd;
use ours::OurEnd;
use play::{Party, Play};
use script::{Scenario, Step};

/// The interface in each namespace.
const INTERFACE: &str = "cable0";
/// As most networks have it.
const MTU: u32 = 1500;

/// The family of the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Whose TCP is below an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The kernel's.
    Kernel,
    /// Ours in one piece.
    Ours,
    /// Ours as two halves that are driven one after the other.
    OurHalves,
}

/// What is not as usual.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions {
    /// What the kernels are told: names below `net.ipv4`, and values.
    pub kernel: &'static [(&'static str, &'static str)],
    /// What the cable does to IP packets.
    pub trouble: Trouble,
}

/// Who connects to whom.
#[derive(Clone, Copy, Debug)]
struct Casting {
    /// The TCP of the side that connects, and of the side that listens.
    kinds: [Kind; 2],
    /// The second of the scenario's scripts is the one that connects.
    is_swapped: bool,
}

/// An application's end of a connection.
trait End {
    /// Begins to connect to `remote`.
    fn connect(&mut self, remote: SocketAddr) -> Result<(), String>;

    /// Listens, and tells where.
    fn listen(&mut self) -> Result<SocketAddr, String>;

    /// Moves what can be moved between TCP and `application`; whether anything did.
    fn advance(&mut self, application: &mut script::Application) -> Result<bool, String>;

    /// Ends the direction to the peer.
    fn end(&mut self) -> Result<(), String>;

    /// Resets the connection.
    fn reset(&mut self) -> Result<(), String>;

    /// Closes both directions at once, whatever the peer still sends.
    fn leave(&mut self) -> Result<(), String>;

    /// Sends `byte` as urgent; whether TCP took it.
    fn send_urgent(&mut self, byte: u8) -> Result<bool, String>;
}

/// Two kernels with an interface each.
pub struct Rig {
    family: Family,
    namespaces: [Namespace; 2],
    taps: [Tap; 2],
    trouble: Trouble,
    /// Runs so far: each has a seed of its own.
    runs: u64,
    harmed: u64,
}

impl Family {
    fn prefix(self) -> u8 {
        match self {
            Self::V4 => 24,
            Self::V6 => 64,
        }
    }

    /// Addresses for documentation (RFC 5737 §3, RFC 3849) are nobody's outside.
    fn address(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => IpAddr::from([192, 0, 2, host]),
            Self::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)]),
        }
    }
}

impl Conditions {
    /// Settings of the network are those of the namespace that a thread is in.
    fn tell_kernel(&self) {
        for (name, value) in self.kernel {
            let path = format!("/proc/sys/net/ipv4/{name}");
            std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
}

impl Rig {
    /// Two namespaces with an interface each; `name` appears in theirs. Needs root and `ip`.
    pub fn new(name: &str, family: Family, conditions: Conditions) -> Self {
        let namespaces = ["a", "b"].map(|side| Namespace::new(&format!("{name}-{side}")));
        for namespace in &namespaces {
            namespace.inside(|| conditions.tell_kernel());
        }
        let taps = [0, 1].map(|side: usize| {
            let place = Place { name: INTERFACE.to_owned(), namespace: None };
            let tap = namespaces[side].inside(|| Tap::new(&place, MTU)).unwrap_or_else(|error| panic!("{error}"));
            let address = format!("{}/{}", family.address(1 + side as u8), family.prefix());
            let mut arguments = vec!["addr", "add", &address, "dev", INTERFACE];
            if family == Family::V6 {
                arguments.push("nodad");
            }
            namespaces[side].ip(&arguments).unwrap_or_else(|error| panic!("{error}"));
            tap
        });
        Self { family, namespaces, taps, trouble: conditions.trouble, runs: 0, harmed: 0 }
    }

    /// Plays `scenario` in every way there is; what was not as between two kernels, with both accounts of it.
    pub fn differences(&mut self, scenario: &Scenario) -> Vec<String> {
        let mut differences = Vec::new();
        for is_swapped in [false, true].into_iter().filter(|&is_swapped| !is_swapped || scenario.is_for_both()) {
            let casting = |active, passive| Casting { kinds: [active, passive], is_swapped };
            let kernels = casting(Kind::Kernel, Kind::Kernel);
            let expected = match self.play(scenario, kernels) {
                Ok(seen) => seen,
                Err(error) => {
                    differences.push(format!("{}, {kernels}: {error}", scenario.name));
                    continue;
                }
            };
            let ours = [Kind::Ours, Kind::OurHalves];
            let castings = ours.into_iter().flat_map(|kind| [casting(kind, Kind::Kernel), casting(Kind::Kernel, kind)]);
            for casting in castings.filter(|casting| casting.is_possible(scenario)) {
                match self.play(scenario, casting) {
                    Ok(seen) if seen == expected => {}
                    Ok(seen) => differences.push(format!(
                        "{}, {casting}:\n  between kernels: {expected:?}\n  here:            {seen:?}",
                        scenario.name
                    )),
                    Err(error) => differences
                        .push(format!("{}, {casting}: {error}\n  between kernels: {expected:?}", scenario.name)),
                }
            }
        }
        differences
    }

    /// Frames that the cable has lost, doubled, held back or changed so far.
    pub fn harmed(&self) -> u64 {
        self.harmed
    }

    /// What the side that connects and the side that listens saw.
    fn play(&mut self, scenario: &Scenario, casting: Casting) -> Result<[Vec<String>; 2], String> {
        self.runs += 1;
        let mut plugs = Vec::new();
        let mut ends: Vec<Box<dyn End>> = Vec::new();
        // Our engine's address is none of the kernels': they keep the Ethernet addresses that they have learnt.
        for (side, kind) in casting.kinds.into_iter().enumerate() {
            if kind == Kind::Kernel {
                plugs.push(Plug::Tap(&self.taps[side]));
                let address = SocketAddr::new(self.family.address(1 + side as u8), 0);
                ends.push(Box::new(KernelEnd::new(&self.namespaces[side], address)));
            } else {
                let address = (self.family.address(3 + side as u8), self.family.prefix());
                let (end, port) = OurEnd::new(address, self.runs, kind == Kind::OurHalves);
                plugs.push(Plug::port(port));
                ends.push(Box::new(end));
            }
        }
        let mut parties = ends.into_iter().enumerate().map(|(side, end)| {
            let script = scenario.scripts[side ^ usize::from(casting.is_swapped)];
            Party::new(end, script, side)
        });
        let parties = [parties.next().expect("one"), parties.next().expect("the other")];
        let plugs: [Plug<'_>; 2] = plugs.try_into().unwrap_or_else(|_| unreachable!("two sides"));
        let mut cable = Cable::new(plugs, self.trouble, self.runs)?;
        let outcome = Play::new(parties, &mut cable).run(scenario.listens);
        self.harmed += cable.harmed();
        outcome
    }
}

impl Casting {
    /// Some steps the kernel alone can do.
    fn is_possible(&self, scenario: &Scenario) -> bool {
        (0..2).filter(|&side| self.kinds[side] != Kind::Kernel).all(|side| {
            let script = scenario.scripts[side ^ usize::from(self.is_swapped)];
            !script.iter().any(|step| matches!(step, Step::Leave | Step::SendUrgent))
        })
    }
}

impl fmt::Display for Casting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [active, passive] = self.kinds;
        let which = if self.is_swapped { "second" } else { "first" };
        write!(formatter, "{active:?} connects to {passive:?}, the {which} script connects")
    }
}
