//! The checksum at the end of an RDB file and of a `DUMP` payload: CRC-64 with the polynomial of Jones, reflected.
//!
//! # Guarantees
//! Any change of up to 64 bits in a row is detected, and any other with a probability of all but 2^-64.
//!
//! # How it works
//! Eight bytes at a time, through eight tables, of which each says what a byte has become after the seven others: about five times
//! as quick as one byte at a time.

/// The polynomial with its bits reversed.
const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;

const TABLES: [[u64; 256]; 8] = tables();

/// A checksum that grows with what it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Crc64(u64);

impl Crc64 {
    /// The checksum of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> u64 {
        let mut crc = Self::default();
        crc.add(bytes);
        crc.value()
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut crc = self.0;
        for word in words {
            let mixed = crc ^ u64::from_le_bytes(*word);
            crc = 0;
            for (table, byte) in TABLES.iter().rev().zip(mixed.to_le_bytes()) {
                crc ^= table[byte as usize];
            }
        }
        for byte in rest {
            crc = TABLES[0][usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
        }
        self.0 = crc;
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut byte = 0;
    while byte < 256 {
        let mut number = 1;
        while number < 8 {
            let before: u64 = tables[number - 1][byte];
            tables[number][byte] = tables[0][(before & 0xff) as usize] ^ (before >> 8);
            number += 1;
        }
        byte += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::Crc64;

    #[test]
    fn checksum_is_that_of_the_catalogue() {
        assert_eq!(Crc64::of(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(Crc64::of(b""), 0);
    }

    #[test]
    fn checksum_is_the_same_however_the_bytes_are_cut() {
        let bytes: Vec<u8> = (0..300_u32).map(|number| (number * 7 + number / 256) as u8).collect();
        for cut in 0..bytes.len() {
            let mut crc = Crc64::default();
            crc.add(&bytes[..cut]);
            crc.add(&bytes[cut..]);
            assert_eq!(crc.value(), Crc64::of(&bytes), "cut at {cut}");
        }
    }
}
