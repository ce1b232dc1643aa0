//! Directory blocks of `struct ext4_dir_entry_2` records.

use super::checksum::Checksum;
use super::{put_u16, put_u32, BlockSize};
use crate::tree::Kind;

/// Bytes of the checksum record at a block's end (`ext4_dir_entry_tail`). It is
/// there in every profile, so that directories have the same blocks in all.
pub const TAIL_SIZE: usize = 12;

/// Bytes of a block that hold records.
#[must_use]
pub const fn room(block: BlockSize) -> usize {
    block.size() - TAIL_SIZE
}

/// Bytes a record of that name needs (`ext4_dir_rec_len`).
#[must_use]
pub const fn record_size(name_len: usize) -> usize {
    (8 + name_len + 3) & !3
}

/// `file_type` of a record.
#[must_use]
pub const fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => 1,
        Kind::Directory(_) => DIRECTORY,
        Kind::CharDevice(_) => 3,
        Kind::BlockDevice(_) => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink(_) => 7,
    }
}

/// `file_type` of a directory.
pub const DIRECTORY: u8 = 2;

/// Fills one block with records. The last record takes all that is left.
#[derive(Debug)]
pub struct BlockWriter<'a> {
    block: &'a mut [u8],
    at: usize,
    last: usize,
}

impl<'a> BlockWriter<'a> {
    /// Begins an empty block, which must be zeros.
    #[must_use]
    pub fn new(block: &'a mut [u8]) -> Self {
        Self {
            block,
            at: 0,
            last: 0,
        }
    }

    /// Adds a record; the caller has seen that it fits.
    pub fn push(&mut self, inode: u32, name: &[u8], file_type: u8) {
        let size = record_size(name.len());
        let record = &mut self.block[self.at..self.at + size];
        put_u32(record, 0, inode); // inode
        put_u16(record, 4, size as u16); // rec_len
        record[6] = name.len() as u8; // name_len
        record[7] = file_type; // file_type
        record[8..8 + name.len()].copy_from_slice(name); // name
        self.last = self.at;
        self.at += size;
    }

    /// Ends the block: stretches the last record (or makes one that is free)
    /// and writes the checksum. `seed` is that of the directory's inode.
    pub fn finish(self, seed: Checksum) {
        let room = self.block.len() - TAIL_SIZE;
        let rest = room - self.last;
        put_u16(&mut self.block[self.last..], 4, rest as u16);
        let (records, tail) = self.block.split_at_mut(room);
        // Without checksums the same bytes are a free record.
        put_u16(tail, 4, TAIL_SIZE as u16); // det_rec_len
        if seed.is_on() {
            tail[7] = 0xde; // det_reserved_ft
            put_u32(tail, 8, seed.bytes(records).value()); // det_checksum
        }
    }
}
