//! Bytes lent in several slices, seen as one run.

use crate::memory::{Access, AccessError, Memory};
use crate::types::{Stag, TaggedOffset};

/// Slices that one placement takes. What is cut finer is placed in several steps, after one check of the whole.
const MAX_SLICES: usize = 8;

/// A run of bytes within lent slices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'p, 'b> {
    /// The slice that holds the first byte, and those behind it.
    parts: &'p [&'b [u8]],
    /// Where in the first slice the run begins.
    skip: usize,
    length: usize,
}

impl<'p, 'b> Run<'p, 'b> {
    /// All of `parts`.
    pub(crate) fn new(parts: &'p [&'b [u8]]) -> Self {
        Self { parts, skip: 0, length: parts.iter().map(|part| part.len()).sum() }
    }

    /// Bytes in it.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The run without its first `count` bytes.
    pub(crate) fn from(mut self, count: usize) -> Self {
        debug_assert!(count <= self.length);
        self.length -= count;
        self.skip += count;
        while let [first, rest @ ..] = self.parts
            && self.skip >= first.len()
            && !rest.is_empty()
        {
            self.skip -= first.len();
            self.parts = rest;
        }
        self
    }

    /// Its first `count` bytes.
    pub(crate) fn to(mut self, count: usize) -> Self {
        debug_assert!(count <= self.length);
        self.length = count;
        self
    }

    /// The run in one slice, if it lies in one.
    pub(crate) fn contiguous(&self) -> Option<&'b [u8]> {
        match self.parts.first() {
            Some(first) => first.get(self.skip..self.skip + self.length),
            None => Some(&[]),
        }
    }

    /// Its slices, none of them empty.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &'b [u8]> {
        let (mut skip, mut left) = (self.skip, self.length);
        self.parts.iter().map_while(move |part| {
            if left == 0 {
                return None;
            }
            let part = &part[skip.min(part.len())..];
            skip = 0;
            let part = &part[..left.min(part.len())];
            left -= part.len();
            Some(part)
        })
    }

    /// Its first `N` bytes; `None` if it is shorter.
    #[inline]
    pub(crate) fn front<const N: usize>(&self) -> Option<[u8; N]> {
        if N > self.length {
            return None;
        }
        // Nearly always they lie in one slice.
        match self.parts.first().and_then(|first| first.get(self.skip..)).and_then(<[u8]>::first_chunk) {
            Some(bytes) => Some(*bytes),
            None => self.gather(),
        }
    }

    #[cold]
    fn gather<const N: usize>(&self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.peek(&mut bytes).then_some(bytes)
    }

    /// Copies its first bytes, as many as `out` holds; `false` if it is shorter.
    pub(crate) fn peek(&self, out: &mut [u8]) -> bool {
        if out.len() > self.length {
            return false;
        }
        let mut at = 0;
        for slice in self.to(out.len()).slices() {
            out[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        true
    }

    /// Places the run at `offset`: nothing, if any of it may not be placed.
    #[inline(always)]
    pub(crate) fn place<M: Memory + ?Sized>(
        &self,
        memory: &M,
        stag: Stag,
        offset: TaggedOffset,
        access: Access,
    ) -> Result<(), AccessError> {
        if let Some(slice) = self.contiguous() {
            return memory.place(stag, offset, &[slice], access);
        }
        let mut slices = self.slices().filter(|slice| !slice.is_empty()).peekable();
        let mut batch: [&[u8]; MAX_SLICES] = [&[]; MAX_SLICES];
        let mut at = offset;
        loop {
            let (mut count, mut length) = (0, 0);
            while count < MAX_SLICES
                && let Some(slice) = slices.next()
            {
                batch[count] = slice;
                count += 1;
                length += slice.len() as u64;
            }
            if at == offset && slices.peek().is_some() {
                memory.check(stag, offset, self.length as u64, access)?;
            }
            memory.place(stag, at, &batch[..count], access)?;
            if slices.peek().is_none() {
                return Ok(());
            }
            at.0 += length;
        }
    }
}

#[cfg(test)]
mod tests;
