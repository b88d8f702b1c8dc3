//! A queue whose places are used again as they are: what is large is neither built elsewhere nor moved.

/// What lies in a place.
pub(super) trait Place: Default {
    /// Gives up what it owns: nobody needs it any more.
    fn vacate(&mut self);
}

/// A bounded queue. Places come into being when they are first needed.
#[derive(Debug)]
pub(super) struct Places<T> {
    places: Vec<T>,
    limit: usize,
    /// Where the front is.
    front: usize,
    length: usize,
}

impl<T: Place> Places<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { places: Vec::with_capacity(limit), limit, front: 0, length: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.length >= self.limit
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    #[inline]
    fn place(&self, index: usize) -> usize {
        let place = self.front + index;
        if place < self.limit { place } else { place - self.limit }
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        if index < self.length { self.places.get(self.place(index)) } else { None }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        if index >= self.length {
            return None;
        }
        let place = self.place(index);
        self.places.get_mut(place)
    }

    #[inline]
    pub(super) fn front(&self) -> Option<&T> {
        self.get(0)
    }

    #[inline]
    pub(super) fn front_mut(&mut self) -> Option<&mut T> {
        self.get_mut(0)
    }

    /// Those that are taken, the front first.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let (front, length) = (self.front, self.length);
        let (behind, before) = self.places.split_at_mut(front);
        before.iter_mut().chain(behind).take(length)
    }

    /// A place at the back, in whatever state it was left. The queue is not full.
    #[inline]
    pub(super) fn push_back(&mut self) -> &mut T {
        assert!(!self.is_full(), "{} of {} places are taken", self.length, self.limit);
        let place = self.place(self.length);
        // Places are taken one behind the other, so that at most one is missing.
        if place == self.places.len() {
            self.places.push(T::default());
        }
        self.length += 1;
        &mut self.places[place]
    }

    /// The front is done with.
    #[inline]
    pub(super) fn pop_front(&mut self) {
        let Some(front) = self.front_mut() else { return };
        front.vacate();
        self.length -= 1;
        // Empty, from the beginning again: few places that stay in the cache, not one after the other.
        self.front = if self.length == 0 { 0 } else { self.place(1) };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Number(u32);

    impl Place for Number {
        fn vacate(&mut self) {
            self.0 = u32::MAX;
        }
    }

    proptest! {
        #[test]
        fn places_are_a_bounded_queue(limit in 1..6_usize, pushes in prop::collection::vec(any::<bool>(), 0..100)) {
            let (mut places, mut queue) = (Places::<Number>::new(limit), VecDeque::new());
            for (number, pushes) in (0_u32..).zip(pushes) {
                if pushes && !places.is_full() {
                    places.push_back().0 = number;
                    queue.push_back(number);
                } else {
                    places.pop_front();
                    queue.pop_front();
                }
                prop_assert_eq!(places.is_full(), queue.len() == limit);
                prop_assert_eq!(places.is_empty(), queue.is_empty());
                prop_assert_eq!(places.front().map(|it| it.0), queue.front().copied());
                prop_assert_eq!(places.iter_mut().map(|it| it.0).collect::<VecDeque<_>>(), queue.clone());
                for index in 0..=limit {
                    prop_assert_eq!(places.get(index).map(|it| it.0), queue.get(index).copied());
                    prop_assert_eq!(places.get_mut(index).map(|it| it.0), queue.get(index).copied());
                }
            }
        }
    }
}
