//! Bitmaps of one block.

use std::ops::Range;

/// Sets or clears bits.
pub(super) fn fill(bitmap: &mut [u8], bits: Range<u64>, on: bool) {
    for bit in bits {
        // OK to cut: at most the bits of a block.
        let (byte, mask) = ((bit / 8) as usize, 1u8 << (bit % 8));
        if on {
            bitmap[byte] |= mask;
        } else {
            bitmap[byte] &= !mask;
        }
    }
}

/// A bitmap of `len` bytes of which the bits from `used` on stand for nothing:
/// they are set (`ext4_mark_bitmap_end`).
pub(super) fn padded(len: u32, used: u64) -> Vec<u8> {
    let mut bitmap = vec![0; len as usize];
    fill(&mut bitmap, used..u64::from(len) * 8, true);
    bitmap
}
