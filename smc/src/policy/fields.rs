//! What stands behind the keys of a policy.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};

/// The name of a program's file, with `*`, `?` and `[...]` as in a shell.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ProgramPattern(glob::Pattern);

impl ProgramPattern {
    /// Whether `program` (without directories) is one of those.
    pub fn matches(&self, program: &str) -> bool {
        self.0.matches(program)
    }
}

impl TryFrom<String> for ProgramPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() || text.contains('/') {
            return Err(format!(
                "'{text}' is no name of a program's file: write it without directories, as in \"redis-*\""
            ));
        }
        glob::Pattern::new(&text).map(Self).map_err(|error| format!("'{text}' is no pattern: {error}"))
    }
}

/// Addresses that begin alike: `127.0.0.0/8`, or just one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Prefix(IpNet);

impl Prefix {
    /// Whether `address` is one of them; of IPv4 as of IPv6, in its own form.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let prefix = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        prefix.map(Self).map_err(|_| format!("'{text}' is no address or prefix, such as \"127.0.0.0/8\" or \"::1\""))
    }
}

/// One port or a range, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Whether `port` is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port != 0);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("'{text}' is no port from 1 to 65535 and no range, such as 6379 or \"8000-8999\"")),
        }
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<From: Deserializer<'de>>(from: From) -> Result<Self, From::Error> {
        from.deserialize_any(NumberOrText("a port or a range of ports"))?.parse().map_err(Error::custom)
    }
}

/// Bytes of a ring: a power of two from 16 KiB to 512 KiB, which is what a CLC message can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RingBytes(u32);

impl RingBytes {
    /// The smallest.
    pub const MIN: Self = Self(16 << 10);
    /// The largest.
    pub const MAX: Self = Self(512 << 10);
    /// What holds unless something is said.
    pub const DEFAULT: Self = Self(256 << 10);

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for RingBytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = parse_bytes(text)?;
        let fits = (Self::MIN.0.into()..=Self::MAX.0.into()).contains(&bytes) && bytes.is_power_of_two();
        match u32::try_from(bytes) {
            Ok(bytes) if fits => Ok(Self(bytes)),
            _ => Err(format!("a ring of '{text}' bytes: expected a power of two from 16K to 512K")),
        }
    }
}

impl<'de> Deserialize<'de> for RingBytes {
    fn deserialize<From: Deserializer<'de>>(from: From) -> Result<Self, From::Error> {
        from.deserialize_any(NumberOrText("a number of bytes"))?.parse().map_err(Error::custom)
    }
}

/// An amount of memory, `65536` or `"64K"`.
pub(super) fn bytes<'de, From: Deserializer<'de>>(from: From) -> Result<u64, From::Error> {
    parse_bytes(&from.deserialize_any(NumberOrText("a number of bytes"))?).map_err(Error::custom)
}

/// Bytes from `65536`, `64K`, `1M`, `2G`, powers of 1024.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| format!("'{text}' is no number of bytes, such as 65536, \"64K\" or \"1G\""))
}

/// Takes a number or a text, as text.
struct NumberOrText(&'static str);

impl Visitor<'_> for NumberOrText {
    type Value = String;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }

    fn visit_i64<Failure: Error>(self, value: i64) -> Result<String, Failure> {
        Ok(value.to_string())
    }

    fn visit_str<Failure: Error>(self, value: &str) -> Result<String, Failure> {
        Ok(value.to_owned())
    }
}
