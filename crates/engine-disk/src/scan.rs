//! A journal file, group by group, and what its end looks like.
//!
//! # What an end may be
//! *Whole*: the file ends behind a record. *Torn*: it ends within a record, or in zeros where the record was to go on, because the process or
//! the machine stopped while it was being written; what came before counts. *Damaged*: anything else. A record that is there in full length and
//! has a wrong checksum was written and has changed since; so has a header that makes no sense.
//!
//! # Bounds
//! One group is in memory at a time, and never more than the file holds.

use std::fmt;
use std::io::{self, BufReader, Read};

use crate::format::{
    GROUP_BYTES_MAX, HEADER_BYTES, HeaderProblem, RECORD_HEADER_BYTES, VERSION, read_header, read_record_header,
};

/// File systems lose what was not synced in units of this size, or multiples of it; zeros are in its place.
const SECTOR_BYTES: u64 = 512;

/// Read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// How a file ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    /// From this byte on.
    Torn(Torn),
    Damaged(Damage),
}

/// Where the whole records of a file end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Torn {
    pub(crate) offset: u64,
    /// What follows.
    pub(crate) bytes: u64,
    pub(crate) reason: TornReason,
}

/// In which way a record was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TornReason {
    /// The file ends within the header of a record.
    WithinHeader,
    /// The file ends within the group of a record.
    WithinGroup,
    /// Zeros follow to the end of the file, as where a file system has lost what was not synced.
    Zeros,
}

impl fmt::Display for TornReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WithinHeader => "the file ends within the header of a record",
            Self::WithinGroup => "the file ends within a record",
            Self::Zeros => "only zeros follow",
        })
    }
}

/// What is wrong with a file, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) offset: u64,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Header(HeaderProblem),
    ShortHeader,
    RecordHeader,
    Group,
    TooLong(u32),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(HeaderProblem::NotAJournal) => f.write_str("this is no journal"),
            Self::Header(HeaderProblem::Checksum) => f.write_str("the header of the file has a wrong checksum"),
            Self::Header(HeaderProblem::Newer(version)) => {
                write!(f, "this is version {version} of the format, and this program knows {VERSION}: use a newer one")
            }
            Self::ShortHeader => f.write_str("the file ends within its header"),
            Self::RecordHeader => f.write_str("the header of a record has a wrong checksum"),
            Self::Group => f.write_str("a record of full length has a wrong checksum"),
            Self::TooLong(bytes) => write!(f, "a record of {bytes} bytes is longer than any that is written"),
        }
    }
}

/// A journal that is being read.
pub(crate) struct JournalReader<R> {
    input: BufReader<R>,
    /// Of the file.
    bytes: u64,
    offset: u64,
    position: u64,
    /// The last one, with its header.
    record: Vec<u8>,
}

/// What comes next.
pub(crate) enum Next<'a> {
    Group(&'a [u8]),
    End(End),
}

impl<R: Read> JournalReader<R> {
    /// Begins to read a file of `bytes` bytes. The inner result says what is wrong with its header.
    pub(crate) fn open(input: R, bytes: u64) -> io::Result<Result<Self, Damage>> {
        let mut input = BufReader::with_capacity(CHUNK_BYTES, input);
        let damage = |what| Ok(Err(Damage { offset: 0, what }));
        if bytes < HEADER_BYTES as u64 {
            return damage(What::ShortHeader);
        }
        let mut header = [0; HEADER_BYTES];
        input.read_exact(&mut header)?;
        match read_header(&header) {
            Ok(position) => Ok(Ok(Self { input, bytes, offset: HEADER_BYTES as u64, position, record: Vec::new() })),
            Err(problem) => damage(What::Header(problem)),
        }
    }

    /// The position of the next group.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Where the next record begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next group. After an end there is nothing more to ask.
    pub(crate) fn next(&mut self) -> io::Result<Next<'_>> {
        let left = self.bytes - self.offset;
        if left == 0 {
            return Ok(Next::End(End::Whole));
        }
        if left < RECORD_HEADER_BYTES as u64 {
            return self.torn(TornReason::WithinHeader);
        }
        let mut bytes = [0; RECORD_HEADER_BYTES];
        self.input.read_exact(&mut bytes)?;
        let after_header = self.offset + RECORD_HEADER_BYTES as u64;
        let Some(header) = read_record_header(bytes, self.position) else {
            return self.damaged(&bytes, after_header, What::RecordHeader);
        };
        if header.group_bytes as usize > GROUP_BYTES_MAX {
            return Ok(damage(self.offset, What::TooLong(header.group_bytes)));
        }
        let end = after_header + u64::from(header.group_bytes);
        if end > self.bytes {
            return self.torn(TornReason::WithinGroup);
        }
        self.record.resize(RECORD_HEADER_BYTES + header.group_bytes as usize, 0);
        let (head, group) = self.record.split_at_mut(RECORD_HEADER_BYTES);
        head.copy_from_slice(&bytes);
        self.input.read_exact(group)?;
        if !header.fits(group) {
            let record = std::mem::take(&mut self.record);
            return self.damaged(&record, end, What::Group);
        }
        (self.offset, self.position) = (end, self.position + 1);
        Ok(Next::Group(self.group()))
    }

    /// The last group.
    pub(crate) fn group(&self) -> &[u8] {
        self.record.get(RECORD_HEADER_BYTES..).unwrap_or_default()
    }

    /// The last group as it is in the file, with its header.
    pub(crate) fn record(&self) -> &[u8] {
        &self.record
    }

    fn torn(&self, reason: TornReason) -> io::Result<Next<'static>> {
        let (offset, bytes) = (self.offset, self.bytes - self.offset);
        Ok(Next::End(End::Torn(Torn { offset, bytes, reason })))
    }

    /// What was read last, up to `end`, is wrong; unless a file system has left zeros in its place.
    fn damaged(&mut self, read: &[u8], end: u64, what: What) -> io::Result<Next<'static>> {
        let zeros_from = self.zeros_from(read, end)?;
        let is_lost = zeros_from <= self.offset || zeros_from.next_multiple_of(SECTOR_BYTES) < end;
        if is_lost { self.torn(TornReason::Zeros) } else { Ok(damage(self.offset, what)) }
    }

    /// From where on there is nothing but zeros. Before `end` lies `read`, which does not come from the input any more.
    fn zeros_from(&mut self, read: &[u8], end: u64) -> io::Result<u64> {
        let mut zeros_from = match read.iter().rposition(|byte| *byte != 0) {
            Some(last) => end - (read.len() - 1 - last) as u64,
            None => end - read.len() as u64,
        };
        let (mut at, mut chunk) = (end, [0; 4 << 10]);
        loop {
            match self.input.read(&mut chunk) {
                Ok(0) => return Ok(zeros_from),
                Ok(count) => {
                    if let Some(last) = chunk[..count].iter().rposition(|byte| *byte != 0) {
                        zeros_from = at + last as u64 + 1;
                    }
                    at += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn damage(offset: u64, what: What) -> Next<'static> {
    Next::End(End::Damaged(Damage { offset, what }))
}

#[cfg(test)]
mod tests {
    use super::{End, JournalReader, Next, SECTOR_BYTES, Torn, TornReason};
    use crate::format::{HEADER_BYTES, RECORD_HEADER_BYTES, frame, header, seal};

    const GROUPS: [&[u8]; 3] = [b"first", &[7; 2_000], b"the third"];

    /// A file, and where its records begin, and where it ends.
    fn file() -> (Vec<u8>, Vec<usize>) {
        let (mut records, mut starts) = (Vec::new(), vec![HEADER_BYTES]);
        for group in GROUPS {
            frame(group, &mut records);
            starts.push(HEADER_BYTES + records.len());
        }
        seal(&mut records, 40);
        (header(40).into_iter().chain(records).collect(), starts)
    }

    fn read(file: &[u8]) -> (usize, End) {
        let reader = JournalReader::open(file, file.len() as u64).expect("no I/O");
        let mut reader = match reader {
            Ok(reader) => reader,
            Err(damage) => return (0, End::Damaged(damage)),
        };
        let mut groups = 0;
        loop {
            match reader.next().expect("no I/O") {
                Next::Group(group) => assert_eq!(group, GROUPS[groups]),
                Next::End(end) => return (groups, end),
            }
            groups += 1;
            assert_eq!(reader.position(), 40 + groups as u64);
        }
    }

    #[test]
    fn file_that_is_cut_anywhere_ends_behind_its_last_whole_record() {
        let (file, starts) = file();
        assert_eq!(read(&file), (3, End::Whole));
        for len in HEADER_BYTES..file.len() {
            let whole = starts.iter().filter(|start| **start <= len).count() - 1;
            let (offset, bytes) = (starts[whole] as u64, (len - starts[whole]) as u64);
            let reason = match bytes {
                0 => {
                    assert_eq!(read(&file[..len]), (whole, End::Whole));
                    continue;
                }
                bytes if bytes < RECORD_HEADER_BYTES as u64 => TornReason::WithinHeader,
                _ => TornReason::WithinGroup,
            };
            assert_eq!(read(&file[..len]), (whole, End::Torn(Torn { offset, bytes, reason })), "{len} bytes");
        }
        for len in 0..HEADER_BYTES {
            assert!(matches!(read(&file[..len]), (0, End::Damaged(_))), "{len} bytes");
        }
    }

    #[test]
    fn flipped_bit_is_damage_wherever_it_is() {
        let (mut file, starts) = file();
        for bit in 0..file.len() * 8 {
            let (byte, flip) = (bit / 8, 1 << (bit % 8));
            file[byte] ^= flip;
            let (groups, end) = read(&file);
            let End::Damaged(damage) = end else { panic!("bit {bit}: {end:?}") };
            let before = starts.iter().filter(|start| **start <= byte).count().saturating_sub(1);
            assert_eq!(groups, before, "bit {bit}");
            let expected = if byte < HEADER_BYTES { 0 } else { starts[before] };
            assert_eq!(damage.offset, expected as u64);
            file[byte] ^= flip;
        }
    }

    /// The length and its checksum were there, and nothing else: the zeros begin in the middle of the header.
    #[test]
    fn zeros_may_begin_anywhere_in_a_record() {
        for before in 400..SECTOR_BYTES as usize {
            let (mut records, group) = (Vec::new(), vec![1; before]);
            frame(&group, &mut records);
            let start = HEADER_BYTES + records.len();
            frame(b"the last one", &mut records);
            seal(&mut records, 40);
            let mut file: Vec<u8> = header(40).into_iter().chain(records).collect();
            if file.len() <= SECTOR_BYTES as usize {
                continue;
            }
            file[SECTOR_BYTES as usize..].fill(0);
            let mut reader = JournalReader::open(&*file, file.len() as u64).expect("no I/O").expect("a journal");
            if start <= SECTOR_BYTES as usize {
                assert!(matches!(reader.next().expect("no I/O"), Next::Group(_)), "{before}");
            }
            let Next::End(End::Torn(torn)) = reader.next().expect("no I/O") else { panic!("{before}") };
            assert_eq!(torn.reason, TornReason::Zeros);
        }
    }

    #[test]
    fn zeros_that_a_file_system_left_are_a_torn_end() {
        let (file, starts) = file();
        let torn = |offset: usize, len: usize| {
            End::Torn(Torn { offset: offset as u64, bytes: (len - offset) as u64, reason: TornReason::Zeros })
        };
        // Behind all records, and in the place of some.
        let longer: Vec<u8> = file.iter().copied().chain([0; 1_000]).collect();
        assert_eq!(read(&longer), (3, torn(file.len(), longer.len())));
        for start in (SECTOR_BYTES as usize..file.len()).step_by(SECTOR_BYTES as usize) {
            let mut lost = file.clone();
            lost[start..].fill(0);
            let whole = starts.iter().filter(|one| **one <= start).count() - 1;
            assert_eq!(read(&lost), (whole, torn(starts[whole], lost.len())), "from {start} on");
            // With something behind them, they are damage.
            lost.push(1);
            assert!(matches!(read(&lost), (_, End::Damaged(_))), "from {start} on");
        }
    }
}
