//! The hash slot of a key, as CLUSTER KEYSLOT replies it and clients of a cluster compute it.
//!
//! The checksum is CRC-16/XMODEM (polynomial 0x1021, nothing reflected, starting at 0).

/// How many slots there are.
pub(crate) const SLOTS: u16 = 16_384;

/// The slot of a key: that of its hash tag, which is what stands between the first `{` and the next `}`, unless that is empty.
pub(crate) fn key_slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key).unwrap_or(key)) % SLOTS
}

fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&byte| byte == b'{')?;
    let behind = &key[open + 1..];
    let len = behind.iter().position(|&byte| byte == b'}')?;
    (len > 0).then_some(&behind[..len])
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| crc << 8 ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

/// What a byte leaves in a checksum of zero.
const TABLE: [u16; 256] = {
    const POLYNOMIAL: u16 = 0x1021;
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ POLYNOMIAL };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::{crc16, key_slot};

    #[test]
    fn the_published_check_value_comes_out() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn slots_are_those_of_redis() {
        let slots: [(&[u8], u16); 9] = [
            (b"", 0),
            (b"foo", 12_182),
            (b"somekey", 11_058),
            (b"foo{hash_tag}", 2_515),
            (b"{user1000}.following", 3_443),
            (b"foo{}{bar}", 8_363),
            (b"foo{{bar}}zap", 4_015),
            (b"foo{bar}{zap}", 5_061),
            (b"foo{bar", 15_278),
        ];
        for (key, slot) in slots {
            assert_eq!(key_slot(key), slot, "{}", key.escape_ascii());
        }
    }
}
