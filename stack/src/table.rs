//! A table whose slots are reused and whose names are not.

use crate::stream::{ListenerId, StreamId};

/// Values by slot and generation. An old name finds nothing.
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    limit: usize,
    used: usize,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Slot and generation of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl<T> Table<T> {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), limit, used: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.used
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.used >= self.limit
    }

    /// Gives `value` a name; `None` when the limit is reached.
    pub(crate) fn insert(&mut self, value: T) -> Option<Name> {
        if self.is_full() {
            return None;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot { generation: 0, value: None });
                (self.slots.len() - 1) as u32
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.value = Some(value);
        self.used += 1;
        Some(Name { index, generation: slot.generation })
    }

    pub(crate) fn get(&self, name: Name) -> Option<&T> {
        let slot = self.slots.get(name.index as usize)?;
        if slot.generation == name.generation { slot.value.as_ref() } else { None }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, name: Name) -> Option<&mut T> {
        let slot = self.slots.get_mut(name.index as usize)?;
        if slot.generation == name.generation { slot.value.as_mut() } else { None }
    }

    /// The name of the value in slot `index`, if there is one.
    #[inline]
    pub(crate) fn name_at(&self, index: u32) -> Option<Name> {
        let slot = self.slots.get(index as usize)?;
        slot.value.as_ref().map(|_| Name { index, generation: slot.generation })
    }

    /// All names in use.
    pub(crate) fn names(&self) -> Vec<Name> {
        let named = |(index, slot): (usize, &Slot<T>)| {
            slot.value.as_ref().map(|_| Name { index: index as u32, generation: slot.generation })
        };
        self.slots.iter().enumerate().filter_map(named).collect()
    }

    pub(crate) fn remove(&mut self, name: Name) -> Option<T> {
        let slot = self.slots.get_mut(name.index as usize)?;
        if slot.generation != name.generation {
            return None;
        }
        let value = slot.value.take()?;
        self.used -= 1;
        // A slot whose generations are used up is left empty for good: names are never reused.
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free.push(name.index);
        }
        Some(value)
    }
}

impl From<StreamId> for Name {
    fn from(stream: StreamId) -> Self {
        Self { index: stream.index, generation: stream.generation }
    }
}

impl From<ListenerId> for Name {
    fn from(listener: ListenerId) -> Self {
        Self { index: listener.index, generation: listener.generation }
    }
}

impl From<Name> for StreamId {
    fn from(name: Name) -> Self {
        Self { index: name.index, generation: name.generation }
    }
}

impl From<Name> for ListenerId {
    fn from(name: Name) -> Self {
        Self { index: name.index, generation: name.generation }
    }
}
