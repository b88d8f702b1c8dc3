//! A place in a ring, and the arithmetic of places.

/// A place in a ring: an offset, and how often the ring has been gone around before (RFC 7609 §A.4), which tells full from
/// empty. Offsets count from zero: there is no eye catcher in our buffers, as there is none in Linux's.
///
/// The size of the ring is the caller's, and the same for all cursors that are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// Times around; it wraps.
    pub wrap: u16,
    /// Offset; less than the size of the ring, if the peer is honest.
    pub count: u32,
}

impl Cursor {
    /// Where every cursor begins.
    pub const START: Self = Self { wrap: 0, count: 0 };

    /// A cursor.
    pub const fn new(wrap: u16, count: u32) -> Self {
        Self { wrap, count }
    }

    /// `bytes` further on.
    ///
    /// # Panics
    ///
    /// If that is more than once around a ring of `size` bytes, or the cursor is not in it.
    #[must_use]
    pub const fn advanced(self, bytes: u32, size: u32) -> Self {
        assert!(self.count < size && bytes <= size, "a cursor moves inside its ring");
        let left = size - self.count;
        if bytes < left {
            Self { wrap: self.wrap, count: self.count + bytes }
        } else {
            Self { wrap: self.wrap.wrapping_add(1), count: bytes - left }
        }
    }

    /// Bytes from `earlier` to here in a ring of `size` bytes; at most `size`. `None` if there is no such distance: one of
    /// the two is outside of the ring, behind the other, or more than once around ahead.
    #[must_use]
    pub const fn since(self, earlier: Self, size: u32) -> Option<u32> {
        if self.count >= size || earlier.count >= size {
            return None;
        }
        match self.wrap.wrapping_sub(earlier.wrap) {
            0 => self.count.checked_sub(earlier.count),
            1 if self.count <= earlier.count => Some(size - earlier.count + self.count),
            _ => None,
        }
    }

    /// Where the byte `offset` of a stream stands in a ring of `size` bytes.
    ///
    /// # Panics
    ///
    /// If `size` is zero.
    #[must_use]
    pub const fn of_offset(offset: u64, size: u32) -> Self {
        let size = size as u64;
        Self { wrap: (offset / size) as u16, count: (offset % size) as u32 }
    }
}
