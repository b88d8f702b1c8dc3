//! Losses that were none: what a reduction of the window is taken back by.

use std::collections::VecDeque;
use std::ops::Range;

use super::congestion::Window;

/// Recoveries that are remembered: the proof of one may arrive when others have followed.
const MOST_RECOVERIES: usize = 8;
/// Copies of one recovery that are remembered. After more it is not found out that none was needed.
const MOST_COPIES: usize = 256;

/// What the last recoveries sent again and why the window was reduced (RFC 3708).
#[derive(Debug, Default)]
pub(super) struct Undo {
    recoveries: VecDeque<Episode>,
}

#[derive(Debug)]
struct Episode {
    /// The window before it.
    prior: Window,
    /// What left again and was not reported to have arrived twice.
    copies: Vec<Range<u64>>,
    /// Something left again.
    has_copies: bool,
    is_timeout: bool,
}

/// What a duplicate comes to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Proof {
    /// Nothing of ours arrived twice: the network repeats packets, or it is too long ago.
    None,
    /// What left again was not needed.
    Copy,
    /// Nothing was needed that left again in the recovery that goes on, or was the last. The window before it.
    Last(Window),
    /// The same of an earlier one. The window as it were without it, at the point of the last reduction.
    Earlier(Window),
}

impl Undo {
    /// A recovery begins; `prior` is the window before it.
    pub(super) fn begin(&mut self, prior: Window) {
        if self.recoveries.len() == MOST_RECOVERIES {
            self.recoveries.pop_front();
        }
        self.recoveries.push_back(Episode { prior, copies: Vec::new(), has_copies: false, is_timeout: false });
    }

    /// The last recovery came to a timeout.
    pub(super) fn note_timeout(&mut self) {
        if let Some(last) = self.recoveries.back_mut() {
            last.is_timeout = true;
        }
    }

    /// Something was really lost.
    pub(super) fn forget(&mut self) {
        self.recoveries.clear();
    }

    /// A piece has left again in the last recovery.
    pub(super) fn note_copy(&mut self, range: Range<u64>) {
        let Some(last) = self.recoveries.back_mut() else { return };
        if last.copies.len() == MOST_COPIES {
            self.forget();
            return;
        }
        last.has_copies = true;
        last.copies.push(range);
    }

    /// RFC 3708: the peer reported that `range` arrived twice.
    pub(super) fn note_duplicate(&mut self, range: &Range<u64>) -> Proof {
        let is_in = |copy: &Range<u64>| copy.start >= range.start && copy.end <= range.end;
        let found = self
            .recoveries
            .iter()
            .enumerate()
            .find_map(|(place, episode)| episode.copies.iter().position(is_in).map(|copy| (place, copy)));
        let Some((place, copy)) = found else { return Proof::None };
        let episode = &mut self.recoveries[place];
        episode.copies.remove(copy);
        if !(episode.has_copies && episode.copies.is_empty()) {
            return Proof::Copy;
        }
        let Some(episode) = self.recoveries.remove(place) else { return Proof::Copy };
        if place == self.recoveries.len() {
            return Proof::Last(episode.prior);
        }
        // Those that followed began with a window that was too small.
        let mut window = episode.prior;
        for later in self.recoveries.range_mut(place..) {
            later.prior = window;
            window.handle_loss(later.is_timeout);
            window.arrive();
        }
        Proof::Earlier(window)
    }

    /// The last recovery was for nothing: the window before it.
    pub(super) fn take_last(&mut self) -> Option<Window> {
        self.recoveries.pop_back().map(|episode| episode.prior)
    }
}
