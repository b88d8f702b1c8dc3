//! Memory between sockets and the layer above: rings for receiving, stages for sending, and the pool both come from.

use std::collections::VecDeque;

use crate::table::Name;

/// Received bytes that the sink has not taken: a ring, so that what is left over never has to move to the front.
pub(super) struct Ring {
    bytes: Buffer,
    start: usize,
    length: usize,
}

impl Ring {
    pub(super) const fn new(bytes: Buffer) -> Self {
        Self { bytes, start: 0, length: 0 }
    }

    /// A ring in `bytes` that holds a copy of what is in `from`.
    pub(super) fn copied(mut bytes: Buffer, from: &Self) -> Self {
        let [front, back] = from.parts();
        bytes[..front.len()].copy_from_slice(front);
        bytes[front.len()..front.len() + back.len()].copy_from_slice(back);
        Self { bytes, start: 0, length: from.length }
    }

    /// A ring of just the size of what this one holds, with a copy of it.
    pub(super) fn shrunk(&self) -> Self {
        Self::copied(Buffer::owned(vec![0; self.length].into_boxed_slice()), self)
    }

    /// Whether the memory is the pool's.
    pub(super) const fn is_lent(&self) -> bool {
        self.bytes.is_lent()
    }

    pub(super) fn into_bytes(self) -> Buffer {
        self.bytes
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    pub(super) const fn len(&self) -> usize {
        self.length
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What is held, oldest first; the second part is empty unless the bytes go across the end.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        let end = self.start + self.length;
        let capacity = self.bytes.len();
        if end <= capacity {
            [&self.bytes[self.start..end], &[]]
        } else {
            [&self.bytes[self.start..], &self.bytes[..end - capacity]]
        }
    }

    /// Room for more, in the order it is to be filled.
    pub(super) fn spare(&mut self) -> [&mut [u8]; 2] {
        let end = self.start + self.length;
        let capacity = self.bytes.len();
        if end < capacity {
            let (front, back) = self.bytes.split_at_mut(end);
            [back, &mut front[..self.start]]
        } else {
            [&mut self.bytes[end - capacity..self.start], &mut []]
        }
    }

    /// `count` bytes of [`Self::spare`] were filled.
    pub(super) fn fill(&mut self, count: usize) {
        debug_assert!(count <= self.bytes.len() - self.length);
        self.length += count;
    }

    /// Forgets the oldest `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        assert!(count <= self.length, "a sink consumed {count} of {} bytes", self.length);
        self.length -= count;
        self.start += count;
        if self.start >= self.bytes.len() {
            self.start -= self.bytes.len();
        }
        // An empty ring begins at the front: the next read is one slice, in memory that is still in the cache.
        if self.length == 0 {
            self.start = 0;
        }
    }
}

/// Records on their way to a socket.
pub(super) struct Stage {
    bytes: Buffer,
    start: usize,
    end: usize,
}

impl Stage {
    pub(super) const fn new(bytes: Buffer) -> Self {
        Self { bytes, start: 0, end: 0 }
    }

    /// A stage of just the size of what waits in this one, with a copy of it.
    pub(super) fn shrunk(&self) -> Self {
        let bytes = Buffer::owned(self.waiting().into());
        Self { start: 0, end: bytes.len(), bytes }
    }

    /// Whether the memory is the pool's.
    pub(super) const fn is_lent(&self) -> bool {
        self.bytes.is_lent()
    }

    pub(super) fn into_bytes(self) -> Buffer {
        self.bytes
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn room(&self) -> usize {
        self.bytes.len() - self.end
    }

    /// The next `length` bytes, to be filled by the caller.
    pub(super) fn append(&mut self, length: usize) -> &mut [u8] {
        let start = self.end;
        self.end += length;
        &mut self.bytes[start..self.end]
    }

    /// What the socket has not taken.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The socket took `count` bytes.
    pub(super) fn advance(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }
}

/// Memory of a ring or a stage.
pub(super) enum Buffer {
    /// The pool's: it goes back there.
    Lent(Box<[u8]>),
    /// The connection's own: it is freed.
    Owned(Box<[u8]>),
}

impl Buffer {
    pub(super) const fn owned(bytes: Box<[u8]>) -> Self {
        Self::Owned(bytes)
    }

    const fn is_lent(&self) -> bool {
        matches!(self, Self::Lent(_))
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) | Self::Owned(bytes) => bytes,
        }
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Lent(bytes) | Self::Owned(bytes) => bytes,
        }
    }
}

/// Buffers of one size, lent to the connections that have bytes to keep.
pub(super) struct Pool {
    size: usize,
    limit: usize,
    lent: usize,
    free: Vec<Box<[u8]>>,
    /// Connections that kept a buffer, oldest first. Those that have given it back since are passed over; see
    /// [`Self::handle_kept`].
    holders: VecDeque<Name>,
}

impl Pool {
    pub(super) const fn new(size: usize, limit: usize) -> Self {
        Self { size, limit, lent: 0, free: Vec::new(), holders: VecDeque::new() }
    }

    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// Whether a holder has to give its buffer back before one can be taken.
    pub(super) const fn is_exhausted(&self) -> bool {
        self.lent >= self.limit
    }

    /// The buffer given back last, whose memory is most likely in the cache, or a new one.
    pub(super) fn take(&mut self) -> Buffer {
        self.lent += 1;
        Buffer::Lent(self.free.pop().unwrap_or_else(|| vec![0; self.size].into_boxed_slice()))
    }

    /// Takes `buffer` back, or frees it when it is not the pool's.
    pub(super) fn give(&mut self, buffer: Buffer) {
        if let Buffer::Lent(bytes) = buffer {
            self.lent -= 1;
            self.free.push(bytes);
        }
    }

    /// `holder` keeps its buffer beyond this poll. When most names in the list can hold nothing any more, those for which `holds`
    /// says so are dropped: connections come and go for ever, and the list must not grow with them.
    pub(super) fn handle_kept(&mut self, holder: Name, holds: impl FnMut(&Name) -> bool) {
        if self.holders.len() >= 2 * self.lent {
            self.holders.retain(holds);
        }
        self.holders.push_back(holder);
    }

    /// Names in the list of holders.
    #[cfg(test)]
    pub(super) fn listed(&self) -> usize {
        self.holders.len()
    }

    /// Buffers with connections now.
    #[cfg(test)]
    pub(super) const fn lent(&self) -> usize {
        self.lent
    }

    /// Buffers that exist.
    #[cfg(test)]
    pub(super) fn owned(&self) -> usize {
        self.lent + self.free.len()
    }

    pub(super) fn oldest_holder(&mut self) -> Option<Name> {
        self.holders.pop_front()
    }
}
