//! Hashes of names in hashed directories (`fs/ext4/hash.c`): all three
//! functions, over signed and unsigned chars.

use super::bytes::u32_at;

/// How names are hashed (`DX_HASH_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    function: Function,
    unsigned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Legacy,
    HalfMd4,
    Tea,
}

impl Version {
    /// By `hash_version` of a directory; whether the chars of versions 0 to 2
    /// are unsigned the superblock's `s_flags` say. `None`: not one that needs a
    /// name only.
    #[must_use]
    pub const fn of(hash_version: u8, unsigned: bool) -> Option<Self> {
        let (function, unsigned) = match hash_version {
            0 => (Function::Legacy, unsigned),
            1 => (Function::HalfMd4, unsigned),
            2 => (Function::Tea, unsigned),
            3 => (Function::Legacy, true),
            4 => (Function::HalfMd4, true),
            5 => (Function::Tea, true),
            _ => return None,
        };
        Some(Self { function, unsigned })
    }
}

/// The hash of a name without its lowest bit, which is not part of it, and the
/// minor one, which orders among equals. `seed` is `s_hash_seed`; zeros stand
/// for the functions' own.
#[must_use]
pub fn hash(name: &[u8], version: Version, seed: &[u8; 16]) -> (u32, u32) {
    let mut state = if *seed == [0; 16] {
        [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476]
    } else {
        [0, 4, 8, 12].map(|at| u32_at(seed, at))
    };
    let unsigned = version.unsigned;
    let (hash, minor) = match version.function {
        Function::Legacy => (legacy(name, unsigned), 0),
        Function::HalfMd4 => {
            for at in (0..name.len()).step_by(32) {
                half_md4(&mut state, &words::<8>(&name[at..], unsigned));
            }
            (state[1], state[2])
        }
        Function::Tea => {
            for at in (0..name.len()).step_by(16) {
                tea(&mut state, &words::<4>(&name[at..], unsigned));
            }
            (state[0], state[1])
        }
    };
    (hash & !1, minor)
}

fn char_value(char: u8, unsigned: bool) -> u32 {
    if unsigned {
        char.into()
    } else {
        i32::from(char.cast_signed()).cast_unsigned()
    }
}

/// `dx_hack_hash_signed`, `dx_hack_hash_unsigned`
fn legacy(name: &[u8], unsigned: bool) -> u32 {
    let (mut hash0, mut hash1) = (0x12a3_fe2du32, 0x37ab_e8f9u32);
    for &char in name {
        let product = char_value(char, unsigned).wrapping_mul(7_152_373);
        let mut hash = hash1.wrapping_add(hash0 ^ product);
        if hash & 0x8000_0000 != 0 {
            hash = hash.wrapping_sub(0x7fff_ffff);
        }
        hash1 = hash0;
        hash0 = hash;
    }
    hash0 << 1
}

/// `str2hashbuf_signed`, `str2hashbuf_unsigned`: words of four chars each, the
/// last one and all behind it padded with the length of what is left.
fn words<const N: usize>(rest: &[u8], unsigned: bool) -> [u32; N] {
    // OK to cut: a name has at most 255 bytes, and the kernel shifts bits out.
    let len = rest.len() as u32;
    let short = len | len << 8;
    let pad = short | short << 16;
    let mut out = [pad; N];
    for (word, chars) in out.iter_mut().zip(rest.chunks(4)) {
        for &char in chars {
            *word = (*word << 8).wrapping_add(char_value(char, unsigned));
        }
    }
    out
}

/// `TEA_transform`
fn tea(state: &mut [u32; 4], input: &[u32; 4]) {
    let [mut left, mut right, ..] = *state;
    let mut sum = 0u32;
    let mix = |value: u32, sum: u32, a: u32, b: u32| {
        (value << 4).wrapping_add(a) ^ value.wrapping_add(sum) ^ (value >> 5).wrapping_add(b)
    };
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        left = left.wrapping_add(mix(right, sum, input[0], input[1]));
        right = right.wrapping_add(mix(left, sum, input[2], input[3]));
    }
    state[0] = state[0].wrapping_add(left);
    state[1] = state[1].wrapping_add(right);
}

/// `half_md4_transform`
fn half_md4(state: &mut [u32; 4], input: &[u32; 8]) {
    let [mut a, mut b, mut c, mut d] = *state;
    let mut round = |mix: fn(u32, u32, u32) -> u32, add: u32, order: [usize; 8], by: [u32; 4]| {
        for (step, word) in order.into_iter().enumerate() {
            let sum = a
                .wrapping_add(mix(b, c, d))
                .wrapping_add(input[word])
                .wrapping_add(add);
            (a, d, c, b) = (d, c, b, sum.rotate_left(by[step % 4]));
        }
    };
    round(
        |x, y, z| z ^ (x & (y ^ z)),
        0,
        [0, 1, 2, 3, 4, 5, 6, 7],
        [3, 7, 11, 19],
    );
    round(
        |x, y, z| (x & y).wrapping_add((x ^ y) & z),
        0x5a82_7999,
        [1, 3, 5, 7, 0, 2, 4, 6],
        [3, 5, 9, 13],
    );
    round(
        |x, y, z| x ^ y ^ z,
        0x6ed9_eba1,
        [3, 7, 2, 6, 1, 5, 0, 4],
        [3, 9, 11, 15],
    );
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &[u8; 16] = b"\x17\xeb\x1f\x04\x63\x72\x4c\xfa\x96\x0c\xb3\xbb\x29\x2d\xba\xc9";
    const LONG: &[u8] = b"a name that is longer than thirty-two bytes, by some";

    /// From `debugfs -R 'dx_hash -h VERSION -s SEED NAME'` of e2fsprogs 1.47.0.
    #[test]
    fn hashes_are_those_of_debugfs() {
        for &(version, unsigned, name, expected) in DEBUGFS {
            let version = Version::of(version, unsigned).unwrap();
            let found = hash(name, version, SEED);
            assert_eq!(found, expected, "{version:?} {}", name.escape_ascii());
        }
    }

    type Case = (u8, bool, &'static [u8], (u32, u32));

    const DEBUGFS: &[Case] = &[
        (0, false, b"a", (0xe74b_53e2, 0x0000_0000)),
        (0, false, b"lost+found", (0x5e2a_ba24, 0x0000_0000)),
        (0, false, LONG, (0xbc34_58f4, 0x0000_0000)),
        (0, false, b"\xc3\xa4\xff", (0x49d3_a264, 0x0000_0000)),
        (0, true, b"\xc3\xa4\xff", (0x3a18_7666, 0x0000_0000)),
        (1, false, b"a", (0x3336_2bdc, 0x998e_7426)),
        (1, false, b"lost+found", (0xd6f9_0678, 0x0e12_4093)),
        (1, false, LONG, (0x7eef_4cd8, 0x03f5_1c71)),
        (1, false, b"\xc3\xa4\xff", (0x014f_346c, 0xf232_ae8a)),
        (1, true, b"\xc3\xa4\xff", (0x9d3f_8570, 0x1d3e_9f63)),
        (2, false, b"a", (0xb83c_3828, 0xf72f_7212)),
        (2, false, b"lost+found", (0x3e16_0c78, 0x064f_0a62)),
        (2, false, LONG, (0xd783_ac4a, 0x1fce_93dc)),
        (2, false, b"\xc3\xa4\xff", (0x9f07_cc96, 0x9282_e329)),
        (2, true, b"\xc3\xa4\xff", (0x74a9_07ae, 0xee7f_21ae)),
    ];

    #[test]
    fn versions_that_need_more_than_a_name_are_none() {
        assert_eq!(Version::of(6, false), None); // siphash, with a key
        assert_eq!(Version::of(1, true), Version::of(4, false));
    }
}
