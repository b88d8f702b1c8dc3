//! What is measured: the operations and how each is timed.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// An operation of the send queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    Send,
    Write,
    Read,
    WriteImm,
    FetchAdd,
    CmpSwap,
}

impl Operation {
    pub(crate) const ALL: [Self; 6] =
        [Self::Send, Self::Write, Self::Read, Self::WriteImm, Self::FetchAdd, Self::CmpSwap];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Write => "write",
            Self::Read => "read",
            Self::WriteImm => "write-imm",
            Self::FetchAdd => "fetch-add",
            Self::CmpSwap => "cmp-swap",
        }
    }

    /// Atomics work on eight bytes, whatever sizes are asked for.
    pub(crate) const fn is_atomic(self) -> bool {
        matches!(self, Self::FetchAdd | Self::CmpSwap)
    }

    /// Whether latency is half of a ping-pong's round trip; otherwise it is the time of a whole operation.
    pub(crate) const fn is_ping_pong(self) -> bool {
        matches!(self, Self::Send | Self::Write | Self::WriteImm)
    }

    /// Whether the peer needs a posted receive for it.
    pub(crate) const fn takes_receive(self) -> bool {
        matches!(self, Self::Send | Self::WriteImm)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// Operations in the order they were asked for: a comma list, or `all`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperationList(Vec<Operation>);

impl OperationList {
    pub(crate) fn as_slice(&self) -> &[Operation] {
        &self.0
    }
}

impl FromStr for OperationList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(Operation::ALL.to_vec()));
        }
        let parse = |name: &str| {
            let found = Operation::ALL.into_iter().find(|operation| operation.name() == name);
            found.ok_or_else(|| {
                let names = Operation::ALL.map(Operation::name).join(", ");
                format!("'{name}' is no operation: {names} and all are accepted, several separated by commas")
            })
        };
        text.split(',').map(parse).collect::<Result<_, _>>().map(Self)
    }
}

/// The two measurements of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// One operation, or one ping-pong, at a time.
    Latency,
    /// As many at a time as the depth allows.
    Throughput,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_read_by_the_name_it_shows() {
        for operation in Operation::ALL {
            assert_eq!(operation.to_string().parse(), Ok(OperationList(vec![operation])));
            assert_eq!(serde_json::to_value(operation).unwrap(), operation.name());
        }
    }

    #[test]
    fn a_list_keeps_its_order_and_all_means_all() {
        let list: OperationList = "read,send".parse().unwrap();
        assert_eq!(list.as_slice(), [Operation::Read, Operation::Send]);
        assert_eq!("all".parse::<OperationList>().unwrap().as_slice(), Operation::ALL);
    }

    #[test]
    fn what_is_no_operation_is_answered_with_those_there_are() {
        let message = "send,swap".parse::<OperationList>().unwrap_err();
        assert!(message.contains("'swap'") && message.contains("cmp-swap"), "{message}");
    }
}
