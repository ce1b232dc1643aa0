//! The two checksums of ext4's metadata, as running registers.
//!
//! These are not the writer's: a reader that shared its code would share its
//! faults.

use crc_fast::{CrcAlgorithm, Digest};

/// Continues `register` over `bytes` by CRC32C (`ext4_chksum`, feature
/// `metadata_csum`). A register starts at `!0` and is stored as it is, while
/// the library inverts its result.
#[must_use]
pub fn crc32c(register: u32, bytes: &[u8]) -> u32 {
    let digest = run(CrcAlgorithm::Crc32Iscsi, u64::from(register), bytes);
    // OK to cut: a 32-bit checksum's other bits are zero.
    !(digest as u32)
}

/// Continues `register` over `bytes` by the kernel's `crc16` (feature
/// `uninit_bg`, in e2fsprogs once called `gdt_csum`): polynomial 0x8005,
/// reflected. It starts at `!0` and nothing is inverted, which makes it the
/// CRC-16/MODBUS of the catalogues.
#[must_use]
pub fn crc16(register: u16, bytes: &[u8]) -> u16 {
    // OK to cut: a 16-bit checksum's other bits are zero.
    run(CrcAlgorithm::Crc16Modbus, u64::from(register), bytes) as u16
}

fn run(algorithm: CrcAlgorithm, register: u64, bytes: &[u8]) -> u64 {
    let mut digest = Digest::new_with_init_state(algorithm, register);
    digest.update(bytes);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalogue_values() {
        // Both as in the CRC catalogue, for "123456789".
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        assert_eq!(crc16(!0, b"123456789"), 0x4b37);
    }

    #[test]
    fn can_be_continued() {
        let bytes: Vec<u8> = (0..=255).collect();
        for cut in [0, 1, 30, 64, 255] {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(crc32c(crc32c(!0, head), tail), crc32c(!0, &bytes));
            assert_eq!(crc16(crc16(!0, head), tail), crc16(!0, &bytes));
        }
    }
}
