//! A table whose slots are reused and whose names are not.

/// Values by slot and generation. An old name finds nothing.
pub(super) struct Table<T> {
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
pub(super) struct Name {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl<T> Table<T> {
    pub(super) const fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), limit, used: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.used
    }

    pub(super) const fn is_full(&self) -> bool {
        self.used >= self.limit
    }

    /// Gives `value` a name; `None` when the limit is reached.
    pub(super) fn insert(&mut self, value: T) -> Option<Name> {
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

    pub(super) fn get(&self, name: Name) -> Option<&T> {
        let slot = self.slots.get(name.index as usize)?;
        if slot.generation == name.generation { slot.value.as_ref() } else { None }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, name: Name) -> Option<&mut T> {
        let slot = self.slots.get_mut(name.index as usize)?;
        if slot.generation == name.generation { slot.value.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, name: Name) -> Option<T> {
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
