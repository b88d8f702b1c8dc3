//! RFC 4987 §3.6 and appendix A: handshakes that nothing is kept for. What the second segment says is all that there is,
//! and the third brings it back.
//!
//! The sequence number of our SYN carries a slow clock, the peer's segment size, as one of a few, and a number that nobody
//! else can compute. The rest of what the peer offered goes into the low bits of our timestamp, if it sent one: a peer that
//! did not has to do without window scaling and selective acknowledgements.

use std::time::Duration;

use super::segment::SynOptions;
use super::tuple::{Purpose, Secret, Tuple};
use crate::time::Instant;

/// RFC 4987 appendix A: the slow clock moves once in so long. A cookie is good until it has moved twice.
const PERIOD: Duration = Duration::from_secs(64);
/// For so long after the last one was given a cookie may come back.
pub(super) const LIFETIME: Duration = Duration::from_secs(2 * PERIOD.as_secs());

/// RFC 4987 appendix A: the top five bits are the clock's, the next three the segment size's, the rest is the proof.
const CLOCK_SHIFT: u32 = 27;
const SIZE_SHIFT: u32 = 24;
const PROOF: u32 = (1 << SIZE_SHIFT) - 1;

/// Segment sizes that a cookie can say: the least that anybody gets, the defaults of both families, and both families' on
/// Ethernet, with frames of 4 KiB, and with those of 9000 bytes.
const SIZES: [u16; 8] = [128, 536, 1220, 1440, 1460, 4056, 8940, 8960];

/// Low bits of a timestamp that say what the peer offered: its window's shift, and selective acknowledgements.
const OFFER: u32 = SACK | SHIFT;
const SHIFT: u32 = 0x0f;
const NO_SHIFT: u32 = 0x0f;
const SACK: u32 = 0x10;

/// Makes cookies and knows its own again.
pub(super) struct Cookies {
    pub(super) secret: Secret,
}

impl Cookies {
    /// The sequence number that answers the SYN `peer_initial` of a peer whose segments may have `size` bytes.
    pub(super) fn make(&self, now: Instant, tuple: &Tuple, peer_initial: u32, size: u16) -> u32 {
        let place = SIZES.iter().rposition(|known| *known <= size).unwrap_or(0) as u32;
        let clock = clock(now);
        let proof = self.secret.number(tuple, (Purpose::Proof, peer_initial, clock, place)) & PROOF;
        let said = (clock as u32) << CLOCK_SHIFT | place << SIZE_SHIFT | proof;
        self.origin(tuple, peer_initial).wrapping_add(said)
    }

    /// The segment size that `cookie` was made for; `None` if it was not made here for this peer, or too long ago.
    pub(super) fn read(&self, now: Instant, tuple: &Tuple, peer_initial: u32, cookie: u32) -> Option<u16> {
        let said = cookie.wrapping_sub(self.origin(tuple, peer_initial));
        let latest = clock(now);
        // RFC 4987 §3.6: what depends on the time keeps old cookies from being played again.
        let made = (latest.saturating_sub(1)..=latest).find(|clock| *clock as u32 & 0x1f == said >> CLOCK_SHIFT)?;
        let place = said >> SIZE_SHIFT & 7;
        let is_ours = self.secret.number(tuple, (Purpose::Proof, peer_initial, made, place)) & PROOF == said & PROOF;
        is_ours.then_some(SIZES[place as usize])
    }

    /// Where the numbers of this peer begin: RFC 4987 appendix A adds the peer's own, so that ours grow as slowly as those do.
    fn origin(&self, tuple: &Tuple, peer_initial: u32) -> u32 {
        self.secret.number(tuple, Purpose::CookieOrigin).wrapping_add(peer_initial)
    }
}

const fn clock(now: Instant) -> u64 {
    now.as_nanoseconds() / PERIOD.as_nanos() as u64
}

/// The timestamp of an answer at `clock`, which brings back what the peer offered: never later than `clock`, for time does
/// not run backwards behind it (RFC 7323 §5.3), and never long before.
pub(super) fn timestamp_with(clock: u32, peer: &SynOptions) -> u32 {
    let shift = peer.window_shift.map_or(NO_SHIFT, u32::from);
    let said = (clock & !OFFER) | shift | if peer.sack { SACK } else { 0 };
    if said.wrapping_sub(clock) as i32 > 0 { said.wrapping_sub(OFFER + 1) } else { said }
}

/// What the peer offered whose cookie said `size`, and whose last segment echoed `timestamp`.
pub(super) fn offer_of(size: u16, timestamp: Option<u32>) -> SynOptions {
    let maximum_segment = Some(size);
    let Some(timestamp) = timestamp else { return SynOptions { maximum_segment, ..SynOptions::default() } };
    let shift = timestamp & SHIFT;
    SynOptions {
        maximum_segment,
        window_shift: (shift != NO_SHIFT).then_some(shift as u8),
        sack: timestamp & SACK != 0,
        timestamps: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn tuple(port: u16) -> Tuple {
        Tuple::new(([10, 0, 0, 2], 7).into(), ([10, 0, 0, 1], port).into())
    }

    #[test]
    fn rfc_4987_a_a_cookie_says_the_largest_known_segment_size_that_fits() {
        let cookies = Cookies { secret: Secret([1, 2]) };
        for (asked, said) in
            [(0, 128), (128, 128), (1000, 536), (1459, 1440), (1460, 1460), (9000, 8960), (65_535, 8960)]
        {
            let cookie = cookies.make(at(100), &tuple(1), 77, asked);
            assert_eq!(cookies.read(at(100), &tuple(1), 77, cookie), Some(said), "of {asked}");
        }
    }

    #[test]
    fn rfc_4987_3_6_a_cookie_is_good_for_its_peer_its_time_and_its_maker_only() {
        let cookies = Cookies { secret: Secret([1, 2]) };
        let cookie = cookies.make(at(64 * 40), &tuple(1), 77, 1460);
        let read = |seconds| cookies.read(at(seconds), &tuple(1), 77, cookie);
        assert!(read(64 * 40).is_some() && read(64 * 42 - 1).is_some());
        assert!(read(64 * 42).is_none() && read(64 * 39).is_none(), "too late, and before its time");
        // The five bits of the clock come round; the proof does not.
        assert!(read(64 * (40 + 32)).is_none());
        assert!(cookies.read(at(64 * 40), &tuple(2), 77, cookie).is_none());
        assert!(cookies.read(at(64 * 40), &tuple(1), 78, cookie).is_none());
        assert!(Cookies { secret: Secret([1, 3]) }.read(at(64 * 40), &tuple(1), 77, cookie).is_none());
    }

    #[test]
    fn hardly_any_number_is_a_cookie() {
        let cookies = Cookies { secret: Secret([1, 2]) };
        let guessed = (0..1_000_000_u32).map(|guess| guess.wrapping_mul(0x9E37_79B9));
        let right = guessed.filter(|guess| cookies.read(at(640), &tuple(1), 77, *guess).is_some()).count();
        // Sixteen of all there are: one in 2^28.
        assert_eq!(right, 0);
    }

    #[test]
    fn rfc_7323_5_3_a_timestamp_brings_the_offer_back_and_never_runs_ahead_or_backwards() {
        let mut last = [0_u32; 32];
        for clock in 1000..1200_u32 {
            for (place, last) in last.iter_mut().enumerate() {
                let window_shift = (place < 15).then_some(place as u8);
                let peer = SynOptions { window_shift, sack: place % 2 == 0, ..SynOptions::default() };
                let said = timestamp_with(clock, &peer);
                assert!(said <= clock && clock - said < 32 && said >= *last, "{said} at {clock}");
                *last = said;
                let read = offer_of(1460, Some(said));
                assert_eq!((read.window_shift, read.sack), (window_shift, place % 2 == 0));
            }
        }
        // Where the clock wraps.
        assert_eq!(timestamp_with(0, &SynOptions { sack: true, ..SynOptions::default() }), 0_u32.wrapping_sub(1));
        assert_eq!(offer_of(536, None), SynOptions { maximum_segment: Some(536), ..SynOptions::default() });
    }
}
