//! Numbers in buffers.

/// A little-endian number at a byte offset of a buffer of fixed size.
///
/// # Panics
/// When the buffer ends before: a fault of the caller's code, for offsets are
/// constants and buffers are of sizes that were checked.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// See [`u16_at`].
///
/// # Panics
/// See [`u16_at`].
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// See [`u16_at`].
///
/// # Panics
/// See [`u16_at`].
#[must_use]
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    hilo(u32_at(bytes, at + 4), u32_at(bytes, at))
}

/// A number that is kept in two 32-bit fields.
#[must_use]
pub fn hilo(high: u32, low: u32) -> u64 {
    (u64::from(high) << 32) | u64::from(low)
}

/// A big-endian number, as in the journal. See [`u16_at`].
///
/// # Panics
/// See [`u16_at`].
#[must_use]
pub fn be32_at(bytes: &[u8], at: usize) -> u32 {
    u32_at(bytes, at).swap_bytes()
}

/// See [`be32_at`].
///
/// # Panics
/// See [`u16_at`].
#[must_use]
pub fn be16_at(bytes: &[u8], at: usize) -> u16 {
    u16_at(bytes, at).swap_bytes()
}
