//! What clients ask for, drawn from a seed.

use crate::script;

/// Few keys, so that commands meet. Their letter is the kind that they mostly hold.
const KEYS: [&str; 11] = ["l0", "l1", "l2", "z0", "z1", "s0", "s1", "t0", "t1", "h0", "h1"];
/// Half of the seeds use these only.
const KEYS_FEW: [&str; 6] = ["l0", "l1", "z0", "s0", "t0", "h0"];
const WORDS: [&str; 6] = ["a", "b", "c", "7", "-3", "12"];
const CHANNELS: [&str; 3] = ["x:0", "x:1", "y:0"];
/// No channel fits two of them: which comes first would be open.
const PATTERNS: [&str; 2] = ["x:*", "y:*"];
/// In seconds. Nought is for ever.
const TIMEOUTS: [&str; 6] = ["0", "0", "0.003", "0.05", "0.5", "20"];
const SCRIPT_COMMANDS_MAX: u64 = 5;

/// Sebastiano Vigna's SplitMix64: a plan must not change with the version of a library.
pub(crate) struct Random {
    state: u64,
    keys: &'static [&'static str],
    /// How often a key is not of the kind that the command is about.
    stray_percent: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        if seed.is_multiple_of(2) {
            Self { state: seed, keys: &KEYS, stray_percent: 6 }
        } else {
            Self { state: seed, keys: &KEYS_FEW, stray_percent: 20 }
        }
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn of<'c>(&mut self, choices: &[&'c str]) -> &'c str {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A key that mostly holds this kind, now and then any key.
    pub(crate) fn key(&mut self, letter: char) -> &'static str {
        let fit: Vec<&str> = self.keys.iter().copied().filter(|key| key.starts_with(letter)).collect();
        if self.chance(self.stray_percent) { self.any_key() } else { self.of(&fit) }
    }

    fn any_key(&mut self) -> &'static str {
        let keys = self.keys;
        self.of(keys)
    }

    fn word(&mut self) -> &'static str {
        self.of(&WORDS)
    }

    fn index(&mut self) -> String {
        (self.below(7).cast_signed() - 3).to_string()
    }

    fn some(&mut self, most: u64) -> u64 {
        1 + self.below(most)
    }

    fn milliseconds(&mut self) -> String {
        let most = [5, 60, 60, 3_000, 100_000][self.below(5) as usize];
        self.some(most).to_string()
    }
}

/// Who asks, and who could be meant.
pub(crate) struct Asking {
    pub(crate) is_in_transaction: bool,
    /// Its next transaction depends on some key.
    pub(crate) is_watching: bool,
    /// It may end all of its subscriptions to channels at once.
    pub(crate) has_one_channel: bool,
    /// It is refused almost everything else.
    pub(crate) may_only_listen: bool,
    /// There are enough who do not wait.
    pub(crate) may_wait: bool,
    pub(crate) ids: Vec<u64>,
    pub(crate) sha: String,
}

fn line(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// The next command of a client.
pub(crate) fn command(random: &mut Random, asking: &Asking) -> Vec<String> {
    if asking.is_in_transaction && random.chance(25) {
        return line(random.of(&["EXEC", "EXEC", "EXEC", "EXEC", "EXEC", "EXEC", "DISCARD"]));
    }
    if asking.may_only_listen && random.chance(80) {
        return line(&listening(random, asking));
    }
    if asking.is_in_transaction && random.chance(40) {
        return line(&giving(random));
    }
    if asking.is_watching && !asking.is_in_transaction && random.chance(30) {
        return line("MULTI");
    }
    match random.below(100) {
        0..22 if asking.may_wait || asking.is_in_transaction => line(&waiting(random)),
        22..28 => eval(random, asking),
        28..30 => line(random.of(&["MULTI", "MULTI", "MULTI", "MULTI", "EXEC", "DISCARD", "UNWATCH"])),
        30..32 => vec!["MULTI".to_owned()],
        32..36 => line(&format!("WATCH {} {}", random.any_key(), random.any_key())),
        36..42 if asking.is_in_transaction => line(&format!("PUBLISH {} {}", random.of(&CHANNELS), random.word())),
        36..42 => line(&message(random, asking)),
        42..45 => line(&about_clients(random, asking)),
        45 => {
            line(random.of(&["NOPE a", "GET", "PING", "SELECT 1", "SELECT 0", "SELECT 0", "SELECT 0", "SCRIPT FLUSH"]))
        }
        46 if !asking.is_in_transaction => line(random.of(&["QUIT", "RESET", "FLUSHALL", "FLUSHDB", "FLUSHALL"])),
        _ => line(&plain(random)),
    }
}

/// A command about keys that never waits.
pub(crate) fn plain(random: &mut Random) -> String {
    match random.below(10) {
        0..4 => list(random),
        4 | 5 => sorted_set(random),
        6 => string(random),
        7 => random_of(random, &[set, hash]),
        _ => key(random),
    }
}

fn random_of(random: &mut Random, families: &[fn(&mut Random) -> String]) -> String {
    families[random.below(families.len() as u64) as usize](random)
}

fn waiting(random: &mut Random) -> String {
    let timeout = random.of(&TIMEOUTS);
    let (list, other, ends) = (random.key('l'), random.key('l'), ["LEFT", "RIGHT"]);
    let (sorted, another) = (random.key('z'), random.key('z'));
    match random.below(9) {
        0 | 1 => format!("BLPOP {list} {other} {timeout}"),
        2 => format!("BRPOP {list} {timeout}"),
        3 | 4 => format!("BLMOVE {list} {other} {} {} {timeout}", random.of(&ends), random.of(&ends)),
        5 => format!("BRPOPLPUSH {list} {other} {timeout}"),
        6 => format!("BLMPOP {timeout} 2 {list} {other} {} COUNT {}", random.of(&ends), random.some(3)),
        7 => format!("{} {sorted} {another} {timeout}", random.of(&["BZPOPMIN", "BZPOPMAX"])),
        _ => format!("BZMPOP {timeout} 2 {sorted} {another} {} COUNT {}", random.of(&["MIN", "MAX"]), random.some(3)),
    }
}

fn list(random: &mut Random) -> String {
    let (list, other, word) = (random.key('l'), random.key('l'), random.word());
    match random.below(18) {
        0..3 => format!("RPUSH {list} {word}"),
        3 | 4 => format!("LPUSH {list} {word} {}", random.word()),
        5 => format!("{} {list} {word}", random.of(&["LPUSHX", "RPUSHX"])),
        6 => format!("{} {list}", random.of(&["LPOP", "RPOP"])),
        7 => format!("{} {list} {}", random.of(&["LPOP", "RPOP"]), random.below(4)),
        8 => format!("LLEN {list}"),
        9 => format!("LRANGE {list} {} {}", random.index(), random.index()),
        10 => format!("LINDEX {list} {}", random.index()),
        11 => format!("LSET {list} {} {word}", random.index()),
        12 => format!("LINSERT {list} {} {word} {}", random.of(&["BEFORE", "AFTER"]), random.word()),
        13 => format!("LREM {list} {} {word}", random.index()),
        14 => format!("LTRIM {list} {} {}", random.index(), random.index()),
        15 => format!("LMOVE {list} {other} {} {}", random.of(&["LEFT", "RIGHT"]), random.of(&["LEFT", "RIGHT"])),
        16 => format!("RPOPLPUSH {list} {other}"),
        _ => format!("LMPOP 2 {list} {other} {} COUNT {}", random.of(&["LEFT", "RIGHT"]), random.some(3)),
    }
}

fn sorted_set(random: &mut Random) -> String {
    let (sorted, other, member, score) = (random.key('z'), random.key('z'), random.word(), random.index());
    match random.below(14) {
        0..3 => format!("ZADD {sorted} {score} {member} {} {}", random.index(), random.word()),
        3 => {
            format!("ZADD {sorted} {} {score} {member}", random.of(&["NX", "XX", "GT", "LT", "CH", "XX CH", "GT INCR"]))
        }
        4 => format!("ZINCRBY {sorted} {score} {member}"),
        5 => format!("ZREM {sorted} {member}"),
        6 => format!("ZREMRANGEBYSCORE {sorted} {score} {}", random.index()),
        7 => format!("ZSCORE {sorted} {member}"),
        8 => format!("ZRANK {sorted} {member}"),
        9 => format!("ZRANGE {sorted} {score} {} WITHSCORES", random.index()),
        10 => format!("{} {sorted}", random.of(&["ZPOPMIN", "ZPOPMAX", "ZCARD"])),
        11 => format!("{} {sorted} {}", random.of(&["ZPOPMIN", "ZPOPMAX"]), random.some(3)),
        12 => format!("ZMPOP 2 {sorted} {other} {} COUNT {}", random.of(&["MIN", "MAX"]), random.some(3)),
        _ => format!("ZUNIONSTORE {} 2 {sorted} {other}", random.key('z')),
    }
}

fn string(random: &mut Random) -> String {
    let (text, other, word) = (random.key('s'), random.key('s'), random.word());
    match random.below(16) {
        0 => format!("SET {text} {word}"),
        1 | 2 => format!("SET {text} {word} PX {}", random.milliseconds()),
        3 => format!("SET {text} {word} {}", random.of(&["NX", "XX", "GET", "KEEPTTL", "NX GET", "EX 1", "PX 0"])),
        4 | 5 => format!("GET {text}"),
        6 => format!("GETEX {text} PX {}", random.milliseconds()),
        7 => format!("GETEX {text} PERSIST"),
        8 => format!("{} {text}", random.of(&["GETDEL", "STRLEN", "GETEX"])),
        9 => format!("APPEND {text} {word}"),
        10 | 11 => format!("{} {text}", random.of(&["INCR", "DECR"])),
        12 => format!("INCRBY {text} {}", random.index()),
        13 => format!("{} {text} {word}", random.of(&["SETNX", "GETSET"])),
        14 => format!("{} {text} {word} {other} {}", random.of(&["MSET", "MSETNX"]), random.word()),
        _ => format!("MGET {text} {other} {}", random.any_key()),
    }
}

fn set(random: &mut Random) -> String {
    let (set, other, word) = (random.key('t'), random.key('t'), random.word());
    match random.below(8) {
        0 | 1 => format!("SADD {set} {word} {}", random.word()),
        2 => format!("SREM {set} {word}"),
        3 => format!("SMOVE {set} {other} {word}"),
        4 => format!("SISMEMBER {set} {word}"),
        5 => format!("{} {set}", random.of(&["SMEMBERS", "SCARD", "SRANDMEMBER"])),
        6 => format!("{} {set} {other}", random.of(&["SINTER", "SUNION", "SDIFF"])),
        _ => format!("{} {} {set} {other}", random.of(&["SINTERSTORE", "SUNIONSTORE", "SDIFFSTORE"]), random.key('t')),
    }
}

fn hash(random: &mut Random) -> String {
    let (hash, field, word) = (random.key('h'), random.word(), random.word());
    match random.below(7) {
        0 | 1 => format!("HSET {hash} {field} {word}"),
        2 => format!("HDEL {hash} {field}"),
        3 => format!("HINCRBY {hash} {field} {}", random.index()),
        4 => format!("{} {hash} {field}", random.of(&["HGET", "HEXISTS"])),
        5 => format!("{} {hash}", random.of(&["HGETALL", "HLEN"])),
        _ => format!("HSETNX {hash} {field} {word}"),
    }
}

fn key(random: &mut Random) -> String {
    let (key, other) = (random.any_key(), random.any_key());
    match random.below(13) {
        0..3 => format!("PEXPIRE {key} {}", random.milliseconds()),
        3 => format!("PEXPIRE {key} {} {}", random.milliseconds(), random.of(&["NX", "XX", "GT", "LT"])),
        4 => format!("EXPIRE {key} {}", random.of(&["1", "0", "-1", "10"])),
        5 => format!("PERSIST {key}"),
        6 => format!("{} {key}", random.of(&["TTL", "PTTL", "PEXPIRETIME", "TYPE"])),
        7 => format!("{} {key} {other}", random.of(&["DEL", "UNLINK"])),
        8 => format!("EXISTS {key} {other}"),
        9 => format!("{} {key} {other}", random.of(&["RENAME", "RENAMENX"])),
        10 if key != other => format!("COPY {key} {other}{}", random.of(&["", " REPLACE"])),
        11 => random.of(&["KEYS *", "RANDOMKEY"]).to_owned(),
        _ => format!("TYPE {key}"),
    }
}

/// A script with commands inside. It declares all keys, some, or none.
fn eval(random: &mut Random, asking: &Asking) -> Vec<String> {
    let (mut commands, gives) = (Vec::new(), random.chance(40));
    for _ in 0..random.some(SCRIPT_COMMANDS_MAX) {
        commands.push(match random.below(12) {
            1.. if gives => line(&giving(random)),
            0 => line(&format!("PUBLISH {} {}", random.of(&CHANNELS), random.word())),
            _ => line(&plain(random)),
        });
    }
    let declared = random.below(KEYS.len() as u64 + 1) as usize;
    let keys: Vec<String> = KEYS[..declared].iter().map(|key| (*key).to_owned()).collect();
    let mut words = match random.below(3) {
        0 => vec!["EVALSHA".to_owned(), asking.sha.clone()],
        _ => vec!["EVAL".to_owned(), script::TEXT.to_owned()],
    };
    words.extend(script::words(&keys, &commands));
    words
}

/// What those who wait may get, and what stands in its way.
fn giving(random: &mut Random) -> String {
    let (list, word) = (random.key('l'), random.word());
    match random.below(8) {
        0..3 => format!("RPUSH {list} {word}"),
        3 => format!("ZADD {} 1 {word}", random.key('z')),
        4 => format!("ZADD {list} 1 {word}"),
        5 => format!("SET {list} {word}"),
        6 => format!("RENAME {list} {}", random.key('l')),
        _ => format!("DEL {list}"),
    }
}

fn message(random: &mut Random, asking: &Asking) -> String {
    if random.chance(40) {
        format!("PUBLISH {} {}", random.of(&CHANNELS), random.word())
    } else {
        listening(random, asking)
    }
}

fn listening(random: &mut Random, asking: &Asking) -> String {
    match random.below(7) {
        0 => "PING".to_owned(),
        1 => format!("SUBSCRIBE {} {}", random.of(&CHANNELS), random.of(&CHANNELS)),
        2 => format!("PSUBSCRIBE {}", random.of(&PATTERNS)),
        3 | 4 => format!("UNSUBSCRIBE {}", random.of(&CHANNELS)),
        5 if asking.has_one_channel => "UNSUBSCRIBE".to_owned(),
        _ => format!("PUNSUBSCRIBE {} {}", PATTERNS[0], PATTERNS[1]),
    }
}

fn about_clients(random: &mut Random, asking: &Asking) -> String {
    let id = asking.ids[random.below(asking.ids.len() as u64) as usize];
    match random.below(8) {
        0..3 => format!("CLIENT UNBLOCK {id} {}", random.of(&["TIMEOUT", "ERROR"])),
        3 | 4 => format!("CLIENT KILL ID {id}"),
        5 if !asking.is_in_transaction => format!("CLIENT PAUSE {} {}", random.some(40), random.of(&["ALL", "WRITE"])),
        6 => "CLIENT UNPAUSE".to_owned(),
        _ => "CLIENT ID".to_owned(),
    }
}
