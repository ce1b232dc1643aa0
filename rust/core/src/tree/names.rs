//! Byte strings in one arena.

/// A byte string of at most 65,535 bytes in [`Names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameRef {
    start: u32,
    len: u16,
}

impl NameRef {
    /// Length in bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        self.len as usize
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// The arena. It holds at most 4 GiB.
#[derive(Clone, Debug, Default)]
pub struct Names {
    bytes: Vec<u8>,
}

impl Names {
    /// The bytes behind a reference.
    ///
    /// # Panics
    /// When the reference is of another arena.
    #[must_use]
    pub fn get(&self, name: NameRef) -> &[u8] {
        let start = name.start as usize;
        &self.bytes[start..start + name.len()]
    }

    /// Keeps `name`. `None` when the arena or the name is too large.
    pub fn add(&mut self, name: &[u8]) -> Option<NameRef> {
        let start = u32::try_from(self.bytes.len()).ok()?;
        let len = u16::try_from(name.len()).ok()?;
        self.bytes.extend_from_slice(name);
        Some(NameRef { start, len })
    }
}
