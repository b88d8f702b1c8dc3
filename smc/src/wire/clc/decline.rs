//! SMC Decline (RFC 7609 §A.2.5), and the reasons that Linux's users know.

use std::fmt;

use zerocopy::network_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::{Area, ClcError};
use super::frame::{FLAG, Family, Header, Kind, Output, TRAILER, read_at};
use crate::wire::PeerId;

/// The connection stays, or becomes again, TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decline {
    /// Who declines.
    pub peer: PeerId,
    /// Why.
    pub reason: DeclineReason,
    /// The two do not agree on which link groups they have: the other one forgets this one.
    pub is_out_of_sync: bool,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    peer: U64,
    reason: U32,
    reserved: [u8; 4],
}

/// Bytes of a decline.
pub(super) const LENGTH: usize = size_of::<Header>() + size_of::<Layout>() + TRAILER;
const _: () = assert!(LENGTH == 28);

pub(super) fn parse(body: &[u8], header: Header) -> Result<Decline, ClcError> {
    let layout: Layout = read_at(body, size_of::<Header>(), Area::Base)?;
    Ok(Decline {
        peer: PeerId(layout.peer.get()),
        reason: DeclineReason(layout.reason.get()),
        is_out_of_sync: header.has_flag(),
    })
}

pub(super) fn emit<'a>(decline: &Decline, mut output: Output<'a>) -> &'a [u8] {
    output.begin(Kind::DECLINE, Family::Rdma, if decline.is_out_of_sync { FLAG } else { 0 });
    output.put(&Layout { peer: decline.peer.0.into(), reason: decline.reason.0.into(), reserved: [0; 4] });
    output.end()
}

/// Why a connection is TCP: the peer diagnosis information of a decline, with the codes that Linux uses. A code that is not
/// among the constants is kept as it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeclineReason(pub u32);

macro_rules! reasons {
    ($($(#[$documentation:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        impl DeclineReason {
            $($(#[$documentation])* pub const $name: Self = Self($code);)*

            /// All that have a name.
            pub const KNOWN: &[Self] = &[$(Self::$name),*];

            /// What it means; `None` for a code without a name here.
            pub const fn text(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// There is no memory for another connection.
    INSUFFICIENT_MEMORY = 0x0101_0000, "not enough memory for another connection";
    /// The peer did not confirm a first link in time.
    CONFIRM_LINK_TIMEOUT = 0x0201_0000, "the peer did not confirm the link in time";
    /// The peer did not add a link in time.
    ADD_LINK_TIMEOUT = 0x0202_0000, "the peer did not add a link in time";
    /// What is configured does not allow it.
    CONFIGURATION = 0x0300_0000, "the configuration does not allow SMC here";
    /// A rule of the policy. Like all that stand apart below, it is said to nobody but the tools: there is no such code in Linux.
    POLICY = 0x0300_0001, "the policy leaves it to TCP";
    /// The peer has no SMC.
    PEER_WITHOUT_SMC = 0x0301_0000, "the peer has no SMC";
    /// The connection uses IPsec.
    IPSEC = 0x0302_0000, "IPsec is in use";
    /// There is no device for it.
    NO_DEVICE = 0x0303_0000, "no SMC device";
    /// There is no device for SMC-D.
    NO_SHARED_DEVICE = 0x0303_0001, "no SMC-D device, or the peer is not on this host";
    /// There is no device for SMC-R.
    NO_RDMA_DEVICE = 0x0303_0002, "no SMC-R device";
    /// The device has no version 2 of SMC-D.
    NO_SECOND_SHARED_VERSION = 0x0303_0003, "the device lacks version 2 of SMC-D";
    /// A proposal of version 2 lacks its extension.
    NO_EXTENSION = 0x0303_0004, "the proposal lacks the extension of version 2";
    /// A proposal of SMC-D's version 2 lacks its extension.
    NO_SHARED_EXTENSION = 0x0303_0005, "the proposal lacks the extension of SMC-D version 2";
    /// The peer named no system enterprise ID.
    NO_SYSTEM_EID = 0x0303_0006, "the peer named no system enterprise ID";
    /// There is no device for SMC-D version 2.
    NO_SHARED_DEVICE_OF_SECOND_VERSION = 0x0303_0007, "no device for SMC-D version 2";
    /// The peer named no user enterprise ID that is one of ours.
    NO_USER_EID = 0x0303_0008, "the peer named no user enterprise ID";
    /// No release of version 2 is common to both.
    RELEASE_MISMATCH = 0x0303_0009, "no release of version 2 is common to both";
    /// They could not agree on how many connections there may be.
    MAX_CONNECTIONS_MISMATCH = 0x0303_000a, "no agreement on the number of connections";
    /// They could not agree on how many links there may be.
    MAX_LINKS_MISMATCH = 0x0303_000b, "no agreement on the number of links";
    /// One has SMC-R only, the other SMC-D only.
    MODE_UNSUPPORTED = 0x0304_0000, "the two ends have no mode (SMC-R or SMC-D) in common";
    /// The peer puts eye catchers in its buffers.
    BUFFER_EYECATCHER = 0x0305_0000, "the peer expects eye catchers in its buffers";
    /// A socket option rules it out.
    OPTION_UNSUPPORTED = 0x0306_0000, "a socket option (such as TCP_FASTOPEN) rules SMC out";
    /// SO_RCVLOWAT, or SO_PEEK_OFF.
    RECEIVE_OPTION = 0x0306_0001, "a socket option (SO_RCVLOWAT or SO_PEEK_OFF) that rings do not have";
    /// The two are in different subnets.
    PREFIX_MISMATCH = 0x0307_0000, "the two ends are in different subnets";
    /// The VLAN of the interface could not be found out.
    VLAN_UNKNOWN = 0x0308_0000, "the VLAN of the interface is not known";
    /// The VLAN could not be registered with the SMC-D device.
    VLAN_NOT_REGISTERED = 0x0309_0000, "the SMC-D device does not take the VLAN";
    /// The link group has no link that is up.
    NO_ACTIVE_LINK = 0x030a_0000, "the link group has no active link";
    /// The server's link is not one of the link group.
    UNKNOWN_SERVER_LINK = 0x030b_0000, "the server's link is not known";
    /// Their versions differ.
    VERSION_MISMATCH = 0x030c_0000, "no version of SMC is common to both";
    /// The device has no further buffers.
    BUFFER_LIMIT = 0x030d_0000, "no SMC-D buffer is left";
    /// No route leads to the peer's device.
    NO_ROUTE = 0x030e_0000, "no route to the peer's device";
    /// One wants a direct link, the other has none.
    NO_INDIRECT_LINK = 0x030f_0000, "direct and indirect links do not go together";
    /// The two are out of step: an unexpected or malformed message.
    SYNCHRONIZATION = 0x0400_0000, "an unexpected or malformed message";
    /// The peer declined.
    PEER_DECLINED = 0x0500_0000, "the peer declined";
    /// Something is broken.
    INTERNAL = 0x0999_0000, "internal error";
    /// The peer's buffer could not be made known to the device.
    REMOTE_BUFFER_FAILED = 0x0999_0001, "the peer's buffer cannot be reached";
    /// The link could not be brought up.
    LINK_FAILED = 0x0999_0002, "the link does not come up";
    /// A buffer could not be registered.
    BUFFER_REGISTRATION_FAILED = 0x0999_0003, "a buffer cannot be registered";

    /// Closed before it had lasted.
    SHORT = 0x0f01_0000, "it was over before it was worth moving";
    /// A direction was shut down before it had lasted.
    SHUT_DOWN = 0x0f01_0001, "a direction was shut down before it was moved";
    /// MSG_OOB.
    URGENT_DATA = 0x0f02_0000, "the program sends urgent data (MSG_OOB)";
    /// MSG_ZEROCOPY.
    ZERO_COPY = 0x0f02_0001, "the program sends without copying (MSG_ZEROCOPY)";
    /// Control data beside what is sent.
    CONTROL_DATA = 0x0f02_0002, "the program sends control data with its bytes";
    /// SCM_RIGHTS.
    PASSED_ON = 0x0f02_0003, "the program passes the socket to another process";
    /// splice.
    SPLICED = 0x0f02_0004, "the program splices between a pipe and the socket";
    /// fdopen.
    STREAM = 0x0f02_0005, "the program made a stream of libc's of it (fdopen)";
    /// Several threads or processes receive at the same time.
    SEVERAL_READERS = 0x0f02_0006, "several threads receive at the same time";
    /// Another use that only the kernel has.
    KERNELS_OWN = 0x0f02_0007, "the program uses it in a way that only the kernel has";
}

/// For people: what it means, and the code to look up.
impl fmt::Display for DeclineReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => write!(formatter, "{text} ({:#010x})", self.0),
            None => write!(formatter, "reason {:#010x}", self.0),
        }
    }
}

impl fmt::Debug for DeclineReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}
