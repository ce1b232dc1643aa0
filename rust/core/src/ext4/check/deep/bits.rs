//! A set of numbers that takes memory only where there are any.

use std::collections::HashMap;

/// Words of a chunk: 4,096 bits.
const WORDS: usize = 64;
const CHUNK_BITS: u64 = WORDS as u64 * 64;

/// Bits in chunks: a file system that is large but empty costs nothing, and one
/// that is full costs a bit and an eighth for each block.
#[derive(Default)]
pub(super) struct Bits {
    chunks: HashMap<u64, Box<[u64; WORDS]>>,
}

impl Bits {
    pub(super) fn contains(&self, bit: u64) -> bool {
        self.word(bit / 64) >> (bit % 64) & 1 != 0
    }

    /// Sets a bit; whether it was not set before.
    pub(super) fn insert(&mut self, bit: u64) -> bool {
        self.insert_range(bit, 1).is_none()
    }

    /// Sets `len` bits from `first` on. Returns the first of them that was set
    /// already: the bits from there on are as they were.
    pub(super) fn insert_range(&mut self, first: u64, len: u64) -> Option<u64> {
        let (mut at, end) = (first, first.saturating_add(len));
        while at < end {
            let chunk_end = (at / CHUNK_BITS + 1).saturating_mul(CHUNK_BITS).min(end);
            let chunk = self
                .chunks
                .entry(at / CHUNK_BITS)
                .or_insert_with(|| Box::new([0; WORDS]));
            while at < chunk_end {
                let low = at % 64;
                let count = (chunk_end - at).min(64 - low);
                let mask = (!0u64 >> (64 - count)) << low;
                // OK to cut: less than WORDS.
                let word = &mut chunk[(at % CHUNK_BITS / 64) as usize];
                let taken = *word & mask;
                if taken != 0 {
                    let first_taken = taken.trailing_zeros();
                    *word |= mask & ((1 << first_taken) - 1);
                    return Some(at - low + u64::from(first_taken));
                }
                *word |= mask;
                at += count;
            }
        }
        None
    }

    /// The 64 bits from 64 times `number` on.
    pub(super) fn word(&self, number: u64) -> u64 {
        let chunk = self.chunks.get(&(number / WORDS as u64));
        // OK to cut: less than WORDS.
        chunk.map_or(0, |chunk| chunk[(number % WORDS as u64) as usize])
    }

    /// The 64 bits from `bit` on.
    pub(super) fn bits_at(&self, bit: u64) -> u64 {
        let (word, low) = (bit / 64, bit % 64);
        if low == 0 {
            return self.word(word);
        }
        self.word(word) >> low | self.word(word + 1) << (64 - low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stop_at_what_is_taken() {
        let mut bits = Bits::default();
        assert_eq!(bits.insert_range(4000, 1000), None);
        assert_eq!(bits.insert_range(3990, 20), Some(4000));
        assert!(bits.contains(3999) && bits.contains(3990) && !bits.contains(3989));
        assert_eq!(bits.insert_range(4999, 1), Some(4999));
        assert_eq!(bits.insert_range(5000, 64 * 1000), None);
        assert!(!bits.insert(69_000 - 1) && bits.insert(69_000));
        assert_eq!(bits.bits_at(3985), !0 << 5);
        assert_eq!(bits.bits_at(69_001 - 3), 0b111);
    }

    #[test]
    fn agrees_with_a_plain_set() {
        let (mut bits, mut plain) = (Bits::default(), std::collections::BTreeSet::new());
        let mut seed = 1u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        for _ in 0..2000 {
            let (first, len) = (random(20_000), random(90));
            let taken = (first..first + len).find(|bit| plain.contains(bit));
            plain.extend(first..taken.unwrap_or(first + len));
            assert_eq!(bits.insert_range(first, len), taken);
        }
        for bit in 0..20_100 {
            assert_eq!(bits.contains(bit), plain.contains(&bit), "{bit}");
        }
    }
}
