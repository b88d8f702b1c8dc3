//! The frame memory of one transmit queue: buffers of one size that return when they are dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Frame buffers of one size; at most so many exist.
#[derive(Debug)]
pub(super) struct Pool {
    buffer_bytes: usize,
    limit: usize,
    state: Mutex<PoolState>,
}

#[derive(Debug)]
struct PoolState {
    free: Vec<Box<[u8]>>,
    made: usize,
}

impl Pool {
    pub(super) fn new(buffer_bytes: usize, limit: usize) -> Arc<Self> {
        Arc::new(Self { buffer_bytes, limit, state: Mutex::new(PoolState { free: Vec::new(), made: 0 }) })
    }

    pub(super) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// Appends up to `wanted` buffers to `taken`; none once all are out.
    pub(super) fn take(&self, taken: &mut Vec<Box<[u8]>>, wanted: usize) {
        let mut state = self.state();
        for _ in 0..wanted {
            if let Some(bytes) = state.free.pop() {
                taken.push(bytes);
            } else if state.made < self.limit {
                state.made += 1;
                taken.push(vec![0; self.buffer_bytes].into_boxed_slice());
            } else {
                return;
            }
        }
    }

    /// Buffers that are out.
    pub(super) fn in_use(&self) -> usize {
        let state = self.state();
        state.made - state.free.len()
    }

    fn give_back(&self, bytes: Box<[u8]>) {
        self.state().free.push(bytes);
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A frame in a buffer of a [`Pool`].
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    length: usize,
    pool: Arc<Pool>,
}

impl Buffer {
    /// `length` is at most the buffer's size.
    pub(super) fn new(bytes: Box<[u8]>, length: usize, pool: Arc<Pool>) -> Self {
        debug_assert!(length <= bytes.len());
        Self { bytes, length, pool }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    /// A second frame with the same bytes; `None` while the pool is dry.
    pub(super) fn duplicate(&self) -> Option<Self> {
        let mut taken = Vec::with_capacity(1);
        self.pool.take(&mut taken, 1);
        let mut copy = Self::new(taken.pop()?, self.length, Arc::clone(&self.pool));
        copy.bytes_mut().copy_from_slice(self.bytes());
        Some(copy)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.bytes));
    }
}
