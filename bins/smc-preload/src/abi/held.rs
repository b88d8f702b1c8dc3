//! Locks that are held from one callback to another.

use std::sync::Arc;

/// Something with locks.
pub(crate) trait Lockable: 'static {
    /// Gives all of them back when it is dropped.
    type Guards<'a>;

    fn lock_all(&self) -> Self::Guards<'_>;
}

/// All locks of something are held until this is dropped. No borrow of it is left with the holder, so it goes wherever
/// it is to be kept.
pub(crate) struct Held<T: Lockable> {
    // Given back first: fields are dropped in this order.
    guards: T::Guards<'static>,
    owner: Arc<T>,
}

impl<T: Lockable> Held<T> {
    pub(crate) fn new(owner: Arc<T>) -> Self {
        // SAFETY: what is counted stays where it is as long as it is, which is until `owner` is dropped: behind the
        // guards. They are shown for no longer than this lives.
        let fixed: &'static T = unsafe { &*Arc::as_ptr(&owner) };
        Self { guards: fixed.lock_all(), owner }
    }

    pub(crate) const fn guards(&self) -> &T::Guards<'static> {
        &self.guards
    }

    pub(crate) const fn owner(&self) -> &Arc<T> {
        &self.owner
    }
}
