//! The journal's superblock (`journal_superblock_t`), big endian.

/// An empty journal's first block. The rest of an empty journal may be zeros:
/// with `s_start` 0 there is nothing to replay.
#[must_use]
pub fn encode_superblock(blocks: u32, block_size: u32, uuid: &[u8; 16]) -> Vec<u8> {
    let mut raw = vec![0; block_size as usize];
    let mut put = |at: usize, value: u32| {
        raw[at..at + 4].copy_from_slice(&value.to_be_bytes());
    };
    put(0x00, 0xc03b_3998); // h_magic (JBD2_MAGIC_NUMBER)
    put(0x04, 4); // h_blocktype: superblock, version 2
    put(0x0c, block_size); // s_blocksize
    put(0x10, blocks); // s_maxlen
    put(0x14, 1); // s_first: the first block of the log
    put(0x18, 1); // s_sequence
    put(0x40, 1); // s_nr_users
    raw[0x30..0x40].copy_from_slice(uuid); // s_uuid
    raw
}
