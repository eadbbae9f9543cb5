//! Which of the 16,384 slots of a Cluster a key belongs to.
//!
//! Source: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model>

use std::ops::RangeInclusive;

use crate::wire::Cmd;

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
    let mut arguments = cmd.args();
    let key = match arguments.next()? {
        b"EVAL" | b"EVALSHA" => arguments.nth(2),
        b"GET" | b"SET" | b"DEL" | b"EXISTS" | b"PEXPIRE" => arguments.next(),
        _ => None,
    };
    key.map(of_key)
}

/// What a node says of itself in its answer to CLUSTER NODES.
#[derive(Debug, PartialEq)]
pub(crate) struct Own {
    /// Rises whenever it takes over slots, by a failover or one at a time.
    pub(crate) epoch: u64,
    pub(crate) ranges: Vec<RangeInclusive<u16>>,
    /// Whether one of its slots is on the move, or one of another node to it.
    pub(crate) is_moving: bool,
}

impl Own {
    /// Reads `id address flags primary pinged ponged epoch link slot…` on the line of the node that answered; `None` if that is
    /// not there.
    pub(crate) fn read(nodes: &str) -> Option<Self> {
        let is_own = |line: &&str| line.split(' ').nth(2).is_some_and(|flags| flags.contains("myself"));
        let mut fields = nodes.lines().find(is_own)?.split(' ').skip(6);
        let mut own = Self { epoch: fields.next()?.parse().ok()?, ranges: Vec::new(), is_moving: false };
        for slots in fields.skip(1) {
            if slots.starts_with('[') {
                own.is_moving = true;
            } else {
                own.ranges.push(parse_range(slots)?);
            }
        }
        Some(own)
    }
}

/// A digest of which node has which slots.
pub(crate) struct Digest {
    hash: u64,
    /// The slots of all nodes together.
    has: Vec<bool>,
}

impl Digest {
    pub(crate) fn new() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, has: vec![false; SLOTS] }
    }

    /// Adds a node. Its epoch tells a slot that went and came back from one that stayed.
    pub(crate) fn add(&mut self, id: &str, own: &Own) {
        self.add_text(id);
        self.add_text(&own.epoch.to_string());
        for range in &own.ranges {
            self.add_text(&format!("{}-{}", range.start(), range.end()));
            range.clone().for_each(|slot| self.has[usize::from(slot)] = true);
        }
    }

    /// The slots of all nodes that were added.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u16> {
        (0..).zip(&self.has).filter(|(_, has)| **has).map(|(slot, _)| slot)
    }

    pub(crate) fn finish(self) -> u64 {
        self.hash
    }

    /// FNV-1a: the same in every process, and there is nobody to attack it.
    fn add_text(&mut self, text: &str) {
        for byte in text.bytes().chain([b' ']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && usize::from(last) < SLOTS).then_some(first..=last)
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
    use super::{Digest, Own, crc16, hash_tag, of_command, of_key};
    use crate::wire::Cmd;

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
        let mut eval = Cmd::new("EVALSHA");
        eval.arg("sha").number(1).arg("foo").arg("bar");
        assert_eq!(of_command(&eval), Some(12182));
        let mut get = Cmd::new("GET");
        get.arg("bar");
        assert_eq!(of_command(&get), Some(5061));
        assert_eq!(of_command(&Cmd::new("PING")), None);
    }

    const NODES: &str = "07c3 127.0.0.1:30004@31004,h slave e7d1 0 1426238317239 4 connected\n\
                         e7d1 127.0.0.1:30001@31001,h myself,master - 0 0 9 connected 0-5460 5462 [93->-292f]\n";

    #[test]
    fn a_node_knows_its_slots() {
        let own = Own::read(NODES).unwrap();
        assert_eq!(own, Own { epoch: 9, ranges: vec![0..=5460, 5462..=5462], is_moving: true });
        let mut digest = Digest::new();
        digest.add("e7d1", &own);
        assert!(digest.slots().eq((0..=5460).chain([5462])));
        let replica = Own::read("07c3 h:1@2 myself,slave e7d1 0 1 4 connected").unwrap();
        assert_eq!((replica.ranges.len(), replica.is_moving), (0, false));
    }

    #[test]
    fn a_text_of_another_shape_is_nobody_s_slots() {
        let line = |slots: &str| format!("e7d1 h:1@2 myself,master - 0 0 1 connected {slots}\n");
        assert!(Own::read(&line("0-16383")).is_some());
        for text in ["", "myself", "a b myself", "a b myself d e f x connected 1"] {
            assert_eq!(Own::read(text), None, "{text}");
        }
        for slots in ["0-16384", "65535", "9-8", "a-b", "-", "1-", "99999999"] {
            assert_eq!(Own::read(&line(slots)), None, "{slots}");
        }
    }

    #[test]
    fn each_change_of_the_slots_changes_the_digest() {
        let digest = |id: &str, nodes: &str| {
            let mut digest = Digest::new();
            digest.add(id, &Own::read(nodes).unwrap());
            digest.finish()
        };
        let first = digest("a", NODES);
        assert_eq!(first, digest("a", NODES));
        assert_ne!(first, digest("b", NODES));
        assert_ne!(first, digest("a", &NODES.replace("0-5460", "0-5459")));
        // Away and back again: the epoch has risen.
        assert_ne!(first, digest("a", &NODES.replace("0 0 9 ", "0 0 10 ")));
    }

    #[test]
    fn the_hash_tag_is_the_first_one_with_something_in_it() {
        for (key, tag) in [
            ("{user}.a", "user"),
            ("a{user}b{other}", "user"),
            ("{{x}y}", "{x"),
            ("a{}b{c}", "a{}b{c}"),
            ("}{x}", "x"),
            ("{x", "{x"),
            ("x}", "x}"),
            ("{}", "{}"),
            ("", ""),
        ] {
            assert_eq!(hash_tag(key.as_bytes()), tag.as_bytes(), "{key}");
        }
    }
}
