//! Checksums: CRC32C as ext4 uses it (`ext4_chksum`, feature `metadata_csum`).
//!
//! ext4 keeps the *running* register: it starts at `!0` (or at a former
//! result) and is not inverted at the end. The library computes the usual
//! CRC-32/ISCSI, which starts at `!0` and inverts at the end; between the two
//! lies one `!`, and a running register is resumed through the same `!`.

use crc_fast::{CrcAlgorithm, Digest};

/// A running checksum. Copies branch off: the file system's seed is computed
/// once and continued for each structure. In a file system without the feature
/// it is off: whatever it is continued over, its value is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum(Option<u32>);

impl Checksum {
    /// A fresh register (`~0`), as for the superblock.
    #[must_use]
    pub const fn new() -> Self {
        Self(Some(!0))
    }

    /// The one that goes on from a stored register (feature `metadata_csum_seed`).
    #[must_use]
    pub const fn resumed(register: u32) -> Self {
        Self(Some(register))
    }

    /// The one that is off.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Whether the file system has checksums.
    #[must_use]
    pub const fn is_on(self) -> bool {
        self.0.is_some()
    }

    /// The seed of every other structure: the checksum of the UUID
    /// (`ext4_super_block::s_uuid`; without the feature `metadata_csum_seed`).
    #[must_use]
    pub fn seed(uuid: &[u8; 16]) -> Self {
        Self::new().bytes(uuid)
    }

    /// The seed of an inode and of what belongs to it (extent blocks, its
    /// directory blocks): number and generation, both little endian.
    #[must_use]
    pub fn for_inode(self, inode: u32, generation: u32) -> Self {
        self.u32(inode).u32(generation)
    }

    /// Continues over `bytes`.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let Some(register) = self.0 else { return self };
        let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(register));
        digest.update(bytes);
        // The library's result is inverted; 32 bits of it count.
        Self(Some(!super::low32(digest.finalize())))
    }

    /// Continues over a number's little-endian bytes.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Continues over a number's little-endian bytes.
    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// The register, as it is stored.
    #[must_use]
    pub const fn value(self) -> u32 {
        match self.0 {
            Some(register) => register,
            None => 0,
        }
    }
}

/// The older checksum of group descriptors (feature `uninit_bg`): CRC-16 with
/// the polynomial 0x8005, reflected, begun at `!0` (`ext4_group_desc_csum`).
#[must_use]
pub fn crc16(register: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(register, |register, &byte| {
        (0..8).fold(register ^ u16::from(byte), |register, _| {
            (register >> 1) ^ if register & 1 == 1 { 0xa001 } else { 0 }
        })
    })
}

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_uninverted_crc32c() {
        // CRC-32C of "123456789" is 0xe3069283 (RFC 3720's polynomial).
        assert_eq!(Checksum::new().bytes(b"123456789").value(), !0xe306_9283);
    }

    #[test]
    fn off_stays_off() {
        assert_eq!(Checksum::off().bytes(b"anything").value(), 0);
    }

    #[test]
    fn crc16_is_that_of_modbus() {
        // CRC-16/MODBUS of "123456789" is 0x4b37: the same polynomial and start.
        assert_eq!(crc16(!0, b"123456789"), 0x4b37);
    }

    #[test]
    fn can_be_continued() {
        let whole = Checksum::new().bytes(b"hello, world: a text of more than one chunk");
        let parts = Checksum::new()
            .bytes(b"hello, ")
            .bytes(b"")
            .bytes(b"world: a text of more than one chunk");
        assert_eq!(whole, parts);
    }
}
