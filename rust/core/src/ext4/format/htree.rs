//! Hashed directories: `struct dx_root`, `struct dx_node`, and the hash of a
//! name (`fs/ext4/hash.c`, half MD4 over signed chars).

use super::checksum::Checksum;
use super::dirent::{record_size, DIRECTORY};
use super::{put_u16, put_u32, BlockSize};

/// Where the root's index begins: behind ".", ".." and `dx_root_info`.
const ROOT_OFFSET: usize = record_size(1) + record_size(2) + 8;
/// Where a node's index begins: behind one free record that fills the block.
const NODE_OFFSET: usize = 8;
/// Bytes of `struct dx_tail` at a block's end.
const TAIL_SIZE: usize = 8;
/// Bytes of `struct dx_entry`.
const ENTRY_SIZE: usize = 8;

/// Blocks that the root points at (`dx_root_limit`).
#[must_use]
pub const fn root_limit(block: BlockSize) -> usize {
    limit(block.size(), ROOT_OFFSET)
}

/// Blocks that a node points at (`dx_node_limit`).
#[must_use]
pub const fn node_limit(block: BlockSize) -> usize {
    limit(block.size(), NODE_OFFSET)
}

const fn limit(bytes: usize, offset: usize) -> usize {
    (bytes - offset - TAIL_SIZE) / ENTRY_SIZE
}

/// A block of the directory and the least hash below it. Bit 0 of the hash
/// says that the block before ends with the same hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DxEntry {
    /// Hash; without meaning in the first entry of a block.
    pub hash: u32,
    /// Block within the directory.
    pub block: u32,
}

/// The first block of a hashed directory. `seed` is that of its inode.
pub fn encode_root(
    raw: &mut [u8],
    inode: u32,
    parent: u32,
    levels: u8,
    entries: impl ExactSizeIterator<Item = DxEntry>,
    seed: Checksum,
) {
    put_u32(raw, 0, inode);
    put_u16(raw, 4, record_size(1) as u16); // rec_len
    raw[6] = 1; // name_len
    raw[7] = DIRECTORY;
    raw[8] = b'.';
    put_u32(raw, 12, parent);
    let rest = raw.len() - record_size(1);
    put_u16(raw, 16, rest as u16); // hides the rest
    raw[18] = 2;
    raw[19] = DIRECTORY;
    raw[20..22].copy_from_slice(b"..");
    raw[28] = 1; // hash_version: half MD4; s_flags says that it is signed
    raw[29] = 8; // info_length
    raw[30] = levels; // indirect_levels
    put_index(raw, ROOT_OFFSET, entries, seed);
}

/// A block between root and leaves. `seed` is that of the directory's inode.
pub fn encode_node(
    raw: &mut [u8],
    entries: impl ExactSizeIterator<Item = DxEntry>,
    seed: Checksum,
) {
    let all = raw.len() as u16;
    put_u16(raw, 4, all); // one free record hides all
    put_index(raw, NODE_OFFSET, entries, seed);
}

/// Limit and count lie where the first entry's hash would.
fn put_index(
    raw: &mut [u8],
    offset: usize,
    entries: impl ExactSizeIterator<Item = DxEntry>,
    seed: Checksum,
) {
    let limit = limit(raw.len(), offset);
    let count = entries.len();
    let slots = raw[offset..].chunks_exact_mut(ENTRY_SIZE);
    for (slot, entry) in slots.zip(entries) {
        put_u32(slot, 0, entry.hash);
        put_u32(slot, 4, entry.block);
    }
    // Without a tail there is room for one more, which the kernel demands to be
    // told (dx_root_limit, dx_node_limit); we never use it.
    let told = if seed.is_on() { limit } else { limit + 1 };
    put_u16(raw, offset, told as u16);
    put_u16(raw, offset + 2, count as u16);
    // dt_checksum: over what is used, and the tail with 0 in its place
    // (ext4_dx_csum).
    let used = seed.bytes(&raw[..offset + count * ENTRY_SIZE]);
    let checksum = used.bytes(&[0; TAIL_SIZE]).value();
    put_u32(raw, offset + limit * ENTRY_SIZE + 4, checksum); // 0 when off
}

/// The hash of a name: what a directory is sorted by (without bit 0), and a
/// second one for the order among equals.
#[must_use]
pub fn hash(name: &[u8], seed: &[u8; 16]) -> (u32, u32) {
    // The hash that means "end of directory" is taken (EXT4_HTREE_EOF_32BIT).
    const END: u32 = 0x7fff_ffff << 1;
    let mut state = [0; 4];
    for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    let mut rest = name;
    while !rest.is_empty() {
        half_md4(&mut state, &words(rest));
        rest = rest.get(32..).unwrap_or_default();
    }
    let hash = state[1] & !1;
    (if hash == END { END - 2 } else { hash }, state[2])
}

/// `str2hashbuf_signed`: eight words of four chars each, the last one and all
/// behind it padded with the length of what is left of the name.
fn words(rest: &[u8]) -> [u32; 8] {
    let len = rest.len() as u32;
    let short = len | len << 8;
    let pad = short | short << 16;
    let mut out = [pad; 8];
    for (word, chars) in out.iter_mut().zip(rest.chunks(4)) {
        *word = chars.iter().fold(pad, |value, &char| {
            (value << 8).wrapping_add(i32::from(char as i8) as u32)
        });
    }
    out
}

fn half_md4(state: &mut [u32; 4], input: &[u32; 8]) {
    const K2: u32 = 0x5a82_7999;
    const K3: u32 = 0x6ed9_eba1;
    type Mix = fn(u32, u32, u32) -> u32;
    let f: Mix = |x, y, z| z ^ (x & (y ^ z));
    let g: Mix = |x, y, z| (x & y).wrapping_add((x ^ y) & z);
    let h: Mix = |x, y, z| x ^ y ^ z;
    let rounds: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (f, 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (g, K2, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (h, K3, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, shifts) in rounds {
        for (step, &word) in order.iter().enumerate() {
            let sum = a
                .wrapping_add(mix(b, c, d))
                .wrapping_add(input[word])
                .wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(shifts[step % 4]), b, c);
        }
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `debugfs -R 'dx_hash -h half_md4 -s SEED NAME'` of e2fsprogs
    /// 1.47.0, which hashes signed chars unless told otherwise.
    #[test]
    fn hashes_are_those_of_debugfs() {
        let seed: [u8; 16] = *b"\x17\xeb\x1f\x04\x63\x72\x4c\xfa\x96\x0c\xb3\xbb\x29\x2d\xba\xc9";
        for &(name, expected) in DEBUGFS {
            assert_eq!(hash(name, &seed), expected, "{}", name.escape_ascii());
        }
    }

    const DEBUGFS: &[(&[u8], (u32, u32))] = &[
        (b"a", (0x3336_2bdc, 0x998e_7426)),
        (b"hello", (0x53d0_6d04, 0x58a9_e380)),
        (b"lost+found", (0xd6f9_0678, 0x0e12_4093)),
        (
            b"12345678901234567890123456789012",
            (0xdd52_9d2e, 0x5f4c_961a),
        ),
        (
            b"a name that is longer than thirty-two bytes, by some",
            (0x7eef_4cd8, 0x03f5_1c71),
        ),
        (b"\xc3\xa4\xff", (0x014f_346c, 0xf232_ae8a)),
    ];
}
