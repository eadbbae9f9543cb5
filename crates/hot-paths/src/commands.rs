//! Commands of Redis on an instance without sockets: from arguments to the bytes of the reply.

use acteon_engine::{Client, ClientOptions, Engine, EngineConfig, Flow, Instance, InstanceConfig};

use crate::meter::{KEYS, repeat, walk};
use crate::{Outcome, Path};

pub(crate) const PATHS: &[Path] = &[
    Path { name: "command-get", run: get },
    Path { name: "command-set", run: set },
    Path { name: "command-set-nx-px", run: set_nx_px },
    Path { name: "command-incr", run: incr },
    Path { name: "command-lpush", run: lpush },
    Path { name: "command-hset", run: hset },
    Path { name: "command-hset-packed", run: hset_packed },
    Path { name: "command-zadd", run: zadd },
    Path { name: "command-mset-10", run: mset },
    Path { name: "command-evalsha-compare-and-delete", run: compare_and_delete },
    Path { name: "command-evalsha-bounded-counter", run: bounded_counter },
];

const NOW_US: u64 = 1_000_000_000;
const VALUE: &[u8] = &[b'x'; 64];
/// The script of a lock's release, as the literature has it: <https://redis.io/docs/latest/develop/use/patterns/distributed-locks/>.
const COMPARE_AND_DELETE: &[u8] =
    b"if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";
/// Three commands: a counter of a window that is not to pass a bound, as limits are kept.
const BOUNDED_COUNTER: &[u8] = b"local count = redis.call('INCRBY', KEYS[1], ARGV[1]) \
    if count > tonumber(ARGV[2]) then redis.call('DECRBY', KEYS[1], ARGV[1]) return -1 end \
    redis.call('PEXPIRE', KEYS[1], ARGV[3]) return {count, redis.call('PTTL', KEYS[1])}";

/// One connection to an instance of its own.
struct Connection {
    client: Client,
    replies: Vec<u8>,
}

fn get() -> Outcome {
    let (mut connection, keys) = filled();
    repeat(|turn| connection.expect(&[b"GET", &keys[walk(turn)]], "$64\r\n"));
    Ok(())
}

fn set() -> Outcome {
    let (mut connection, keys) = filled();
    repeat(|turn| connection.expect(&[b"SET", &keys[walk(turn)], VALUE], "+OK"));
    Ok(())
}

/// On keys that are not there, as a lock is taken.
fn set_nx_px() -> Outcome {
    let (mut connection, keys) = (Connection::open(), names());
    repeat(|turn| connection.expect(&[b"SET", &keys[walk(turn)], VALUE, b"NX", b"PX", b"30000"], "+OK"));
    Ok(())
}

fn incr() -> Outcome {
    let (mut connection, keys) = (Connection::open(), names());
    keys.iter().for_each(|key| connection.expect(&[b"SET", key, b"41"], "+OK"));
    repeat(|turn| connection.expect(&[b"INCR", &keys[walk(turn)]], ":42\r\n"));
    Ok(())
}

/// One long list, as redis-benchmark has it.
fn lpush() -> Outcome {
    let mut connection = Connection::open();
    repeat(|_| connection.expect(&[b"LPUSH", b"list", VALUE], ":"));
    Ok(())
}

/// On one hash that is too large to lie in one piece.
fn hset() -> Outcome {
    let (mut connection, fields) = (Connection::open(), names());
    fields.iter().for_each(|field| connection.expect(&[b"HSET", b"hash", field, b"old"], ":1\r\n"));
    repeat(|turn| connection.expect(&[b"HSET", b"hash", &fields[walk(turn)], VALUE], ":0\r\n"));
    Ok(())
}

/// On one hash that lies in one piece, where fields are looked for from its beginning.
fn hset_packed() -> Outcome {
    const FIELDS: usize = 16;
    let (mut connection, fields) = (Connection::open(), names());
    let fields = &fields[..FIELDS];
    fields.iter().for_each(|field| connection.expect(&[b"HSET", b"hash", field, b"old"], ":1\r\n"));
    repeat(|turn| connection.expect(&[b"HSET", b"hash", &fields[walk(turn) % FIELDS], VALUE], ":0\r\n"));
    Ok(())
}

/// Members of one large sorted set, whose places change.
fn zadd() -> Outcome {
    let (mut connection, members) = (Connection::open(), names());
    members.iter().for_each(|member| connection.expect(&[b"ZADD", b"sorted", b"0", member], ":1\r\n"));
    let scores: Vec<String> = (1..=KEYS).map(|score| score.to_string()).collect();
    repeat(|turn| {
        let at = walk(turn);
        connection.expect(&[b"ZADD", b"sorted", scores[at].as_bytes(), &members[at]], ":0\r\n");
    });
    Ok(())
}

fn mset() -> Outcome {
    const PAIRS: usize = 10;
    let (mut connection, keys) = filled();
    repeat(|turn| {
        let mut args = [VALUE; 1 + 2 * PAIRS];
        args[0] = b"MSET";
        for pair in 0..PAIRS {
            args[1 + 2 * pair] = &keys[(walk(turn) + pair) % keys.len()];
        }
        connection.expect(&args, "+OK");
    });
    Ok(())
}

fn compare_and_delete() -> Outcome {
    let (mut connection, keys) = filled();
    let hash = connection.load(COMPARE_AND_DELETE);
    // Each turn has a key of its own, so that there is something to delete.
    repeat(|turn| connection.expect(&[b"EVALSHA", &hash, b"1", &keys[walk(turn)], VALUE], ":1\r\n"));
    Ok(())
}

fn bounded_counter() -> Outcome {
    let (mut connection, keys) = (Connection::open(), names());
    let hash = connection.load(BOUNDED_COUNTER);
    repeat(|turn| {
        let args: [&[u8]; 7] = [b"EVALSHA", &hash, b"1", &keys[walk(turn)], b"3", b"100", b"60000"];
        connection.expect(&args, "*2\r\n:3\r\n:60000\r\n");
    });
    Ok(())
}

/// A connection to an instance that holds all keys.
fn filled() -> (Connection, Vec<Vec<u8>>) {
    let (mut connection, keys) = (Connection::open(), names());
    keys.iter().for_each(|key| connection.expect(&[b"SET", key, VALUE], "+OK"));
    (connection, keys)
}

fn names() -> Vec<Vec<u8>> {
    (0..KEYS).map(|at| format!("key:{at:012}").into_bytes()).collect()
}

impl Connection {
    fn open() -> Self {
        let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
        Self { client: Client::connect(&instance, ClientOptions::default()), replies: Vec::new() }
    }

    /// Keeps a script, and gives the name by which it is run.
    fn load(&mut self, script: &[u8]) -> Vec<u8> {
        const HEADER: &str = "$40\r\n";
        self.expect(&[b"SCRIPT", b"LOAD", script], HEADER);
        self.replies[HEADER.len()..][..40].to_vec()
    }

    /// Carries out a command whose reply begins like this.
    fn expect(&mut self, args: &[&[u8]], reply: &str) {
        self.replies.clear();
        let flow = self.client.execute(args, NOW_US, &mut self.replies);
        let is_expected = flow == Flow::Done && self.replies.starts_with(reply.as_bytes());
        assert!(is_expected, "{} was answered {}", args[0].escape_ascii(), self.replies.escape_ascii());
    }
}
