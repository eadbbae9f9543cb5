//! The bytes of a journal file.
//!
//! # Layout
//! ```text
//! file    ┌──────────┬─────────┬────────────────┬──────────┐ records..
//!         │ ACTEONJL │ version │ first position │ checksum │
//!         └──────────┴─────────┴────────────────┴──────────┘
//!           8 bytes    4         8                4, of the 20 before
//! record  ┌────────┬────────────────────┬───────────────────┬─────────┐
//!         │ length │ checksum of header │ checksum of group │ group.. │
//!         └────────┴────────────────────┴───────────────────┴─────────┘
//!           4        4, of length and position   4, of these and the group
//! ```
//! All little endian, all checksums CRC-32C. The first record has the first position of its file, the next one the position after it: a record
//! that was copied from elsewhere does not fit. A header has a checksum of its own, so that a length can be trusted: a record that ends
//! behind the file was cut off there, and nothing else.
//!
//! The header of a file looks the same in all versions, so that a newer one can be told from a damaged one.

use crate::crc32c;

/// The version that is written, and the newest one that is read.
pub const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"ACTEONJL";

/// Bytes of the header of a file.
pub(crate) const HEADER_BYTES: usize = 24;

/// Bytes in front of a group.
pub(crate) const RECORD_HEADER_BYTES: usize = 12;

/// The largest group that fits: twice the longest string and what stands around it.
pub(crate) const GROUP_BYTES_MAX: usize = (1 << 30) + (1 << 20);

/// What is wrong with the header of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderProblem {
    NotAJournal,
    Checksum,
    Newer(u32),
}

pub(crate) fn header(first_position: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&first_position.to_le_bytes());
    let checksum = crc32c::of(&header[..20]);
    header[20..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// The first position of a file.
pub(crate) fn read_header(header: &[u8; HEADER_BYTES]) -> Result<u64, HeaderProblem> {
    let [magic @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = header;
    if *magic != MAGIC {
        return Err(HeaderProblem::NotAJournal);
    }
    let [.., a, b, c, d] = *header;
    if u32::from_le_bytes([a, b, c, d]) != crc32c::of(&header[..20]) {
        return Err(HeaderProblem::Checksum);
    }
    let mut version = [0; 4];
    version.copy_from_slice(&header[8..12]);
    let mut first_position = [0; 8];
    first_position.copy_from_slice(&header[12..20]);
    match u32::from_le_bytes(version) {
        VERSION => Ok(u64::from_le_bytes(first_position)),
        newer => Err(HeaderProblem::Newer(newer)),
    }
}

/// Appends a group with room for its checksums to `out`. It must not be longer than [`GROUP_BYTES_MAX`].
pub(crate) fn frame(group: &[u8], out: &mut Vec<u8>) {
    debug_assert!(group.len() <= GROUP_BYTES_MAX, "the journal refuses longer ones");
    out.extend_from_slice(&(group.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; RECORD_HEADER_BYTES - 4]);
    out.extend_from_slice(group);
}

/// Fills in the checksums of records, the first of which has the position `position`. Returns the position after the last one.
pub(crate) fn seal(mut records: &mut [u8], mut position: u64) -> u64 {
    while !records.is_empty() {
        let (header, rest) = records.split_at_mut(RECORD_HEADER_BYTES);
        let len = [header[0], header[1], header[2], header[3]];
        let (group, rest) = rest.split_at_mut(u32::from_le_bytes(len) as usize);
        let of_header = header_checksum(len, position);
        header[4..8].copy_from_slice(&of_header.to_le_bytes());
        header[8..].copy_from_slice(&crc32c::extend(of_header, group).to_le_bytes());
        position += 1;
        records = rest;
    }
    position
}

/// The header of a record whose own checksum is right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordHeader {
    pub(crate) group_bytes: u32,
    of_header: u32,
    of_group: u32,
}

/// `None`: the checksum is wrong.
pub(crate) fn read_record_header(header: [u8; RECORD_HEADER_BYTES], position: u64) -> Option<RecordHeader> {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = header;
    let of_header = u32::from_le_bytes([e, f, g, h]);
    let is_right = of_header == header_checksum([a, b, c, d], position);
    is_right.then_some(RecordHeader {
        group_bytes: u32::from_le_bytes([a, b, c, d]),
        of_header,
        of_group: u32::from_le_bytes([i, j, k, l]),
    })
}

impl RecordHeader {
    pub(crate) fn fits(&self, group: &[u8]) -> bool {
        crc32c::extend(self.of_header, group) == self.of_group
    }
}

fn header_checksum(len: [u8; 4], position: u64) -> u32 {
    crc32c::extend(crc32c::of(&len), &position.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::{HeaderProblem, RECORD_HEADER_BYTES, frame, header, read_header, read_record_header, seal};
    use crate::crc32c;

    #[test]
    fn header_says_where_a_file_begins_and_which_version_it_is() {
        let mut bytes = header(77);
        assert_eq!(read_header(&bytes), Ok(77));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read_header(&bytes), Err(HeaderProblem::NotAJournal | HeaderProblem::Checksum)));
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        bytes[8] = 9;
        let checksum = crc32c::of(&bytes[..20]);
        bytes[20..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(read_header(&bytes), Err(HeaderProblem::Newer(9)));
    }

    #[test]
    fn records_fit_at_their_position_only() {
        let mut records = Vec::new();
        frame(b"first", &mut records);
        frame(b"", &mut records);
        assert_eq!(seal(&mut records, 5), 7);
        let at = |offset: usize| *records[offset..].first_chunk::<RECORD_HEADER_BYTES>().expect("a header");
        let first = read_record_header(at(0), 5).expect("whole");
        assert!(first.fits(b"first") && !first.fits(b"firsT"));
        assert!(read_record_header(at(0), 6).is_none());
        assert!(read_record_header(at(RECORD_HEADER_BYTES + 5), 6).expect("whole").fits(b""));
    }
}
