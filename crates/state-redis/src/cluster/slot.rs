//! Which of the 16,384 slots of a Cluster a key belongs to.
//!
//! Source: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model>

use std::ops::RangeInclusive;

use redis::{Arg, Cmd};

/// How many slots there are.
pub(crate) const SLOTS: usize = 16_384;

/// CRC-16/XMODEM, as the specification asks for.
const POLYNOMIAL: u16 = 0x1021;

const TABLE: [u16; 256] = table();

/// The slot of a key: of what stands between its first `{` and the next `}` where there is something, else of all of it.
pub(crate) fn of_key(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) % SLOTS as u16
}

/// The slot of the first key of a command; `None` for a command without keys.
///
/// Knows the commands that this driver sends, and no others.
pub(crate) fn of_command(cmd: &Cmd) -> Option<u16> {
    let mut arguments = cmd.args_iter().map(|argument| match argument {
        Arg::Simple(bytes) => bytes,
        _ => b"".as_slice(),
    });
    let key = match arguments.next()? {
        b"EVAL" | b"EVALSHA" => arguments.nth(2),
        b"GET" | b"SET" | b"DEL" | b"EXISTS" | b"PEXPIRE" => arguments.next(),
        _ => None,
    };
    key.map(of_key)
}

/// The slots of the node that answered CLUSTER NODES with this text.
pub(crate) fn own_ranges(nodes: &str) -> Vec<RangeInclusive<u16>> {
    own_slots(nodes).filter_map(parse_range).collect()
}

/// A digest of which node has which slots.
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds what a node answered to CLUSTER NODES of its own slots; `false` when some of them are on the move.
    pub(crate) fn add(&mut self, id: &str, nodes: &str) -> bool {
        self.add_text(id);
        for slots in own_slots(nodes) {
            if slots.starts_with('[') {
                return false;
            }
            self.add_text(slots);
        }
        true
    }

    pub(crate) fn finish(self) -> u64 {
        self.0
    }

    /// FNV-1a: the same in every process, and there is nobody to attack it.
    fn add_text(&mut self, text: &str) {
        for byte in text.bytes().chain([b' ']) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// The slots of the node that answered: ranges, and in brackets what is on the move.
fn own_slots(nodes: &str) -> impl Iterator<Item = &str> {
    let is_own = |line: &&str| line.split(' ').nth(2).is_some_and(|flags| flags.contains("myself"));
    nodes.lines().find(is_own).into_iter().flat_map(|line| line.split(' ').skip(8))
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let tag = || {
        let open = key.iter().position(|byte| *byte == b'{')?;
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    };
    tag().unwrap_or(key)
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::{crc16, of_command, of_key, own_ranges};

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // As CLUSTER KEYSLOT of a server says.
        for (key, slot) in [("foo", 12182), ("bar", 5061), ("", 0), ("{foo}.bar", 12182), ("a{foo}b{bar}", 12182)] {
            assert_eq!(of_key(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(of_key(b"{}foo"), crc16(b"{}foo") % 16_384);
        assert_eq!(of_key(b"{foo"), crc16(b"{foo") % 16_384);
    }

    #[test]
    fn a_command_goes_where_its_first_key_is() {
        let mut eval = redis::cmd("EVALSHA");
        eval.arg("sha").arg(1).arg("foo").arg("bar");
        assert_eq!(of_command(&eval), Some(12182));
        let mut get = redis::cmd("GET");
        get.arg("bar");
        assert_eq!(of_command(&get), Some(5061));
        assert_eq!(of_command(&redis::cmd("PING")), None);
    }

    #[test]
    fn a_node_knows_its_slots() {
        let nodes = "07c3 127.0.0.1:30004@31004,h slave e7d1 0 1426238317239 4 connected\n\
                     e7d1 127.0.0.1:30001@31001,h myself,master - 0 0 1 connected 0-5460 5462 [93->-292f]\n";
        assert_eq!(own_ranges(nodes), [0..=5460, 5462..=5462]);
        assert_eq!(own_ranges(""), []);
    }
}
