//! CRC-32C, the checksum of journals and manifests.
//!
//! # How it works
//! By the processor's instruction for it where there is one, which is several times as fast as tables: the writer of a journal spends most
//! of its own time here, and so does whoever reads one.

/// The checksum of bytes whose beginning has the checksum `crc` (0 for nothing) and that go on with `bytes`.
pub(crate) fn extend(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// The checksum of `bytes`.
pub(crate) fn of(bytes: &[u8]) -> u32 {
    extend(0, bytes)
}

#[cfg(test)]
mod tests {
    use super::{extend, of};

    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(of(b""), 0);
        assert_eq!(of(b"123456789"), 0xe306_9283);
        // RFC 3720, B.4.
        assert_eq!(of(&[0; 32]), 0x8a91_36aa);
        assert_eq!(of(&[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(of(&rising), 0x46dd_794e);
    }

    #[test]
    fn checksum_is_the_same_however_the_bytes_are_cut() {
        let bytes: Vec<u8> = (0..100_u8).map(|number| number.wrapping_mul(37)).collect();
        for cut in 0..bytes.len() {
            assert_eq!(extend(of(&bytes[..cut]), &bytes[cut..]), of(&bytes), "cut at {cut}");
        }
    }
}
