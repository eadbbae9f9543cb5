//! Random commands: each that writes, and some that do not.

use crate::algorithm::random::Random;

/// Commands by example. `%s %l %h %e %z %p` are keys that mostly hold strings, lists, hashes, sets, sorted sets and counters of distinct
/// elements; `%y` is a key of any type, `%d` a database, `%f` a field or member, `%v` a value, `%n` a number, `%c` a score, `%t` a time to live,
/// `%a` a deadline, and `%w` what DUMP has said.
const WRITES: &[&str] = &[
    "SET %s %v",
    "SET %y %v",
    "SET %s %v PX %t",
    "SET %s %v KEEPTTL",
    "SET %s %v NX GET",
    "SET %s %v XX PXAT %a",
    "SETNX %s %v",
    "SETEX %s %n %v",
    "PSETEX %s %t %v",
    "GETSET %s %v",
    "GETDEL %s",
    "GETEX %s PX %t",
    "GETEX %s PERSIST",
    "MSET %s %v %s %v",
    "MSETNX %s %v %s %v",
    "APPEND %s %v",
    "SETRANGE %s %n %v",
    "SETRANGE %s 700 %v",
    "INCR %s",
    "DECR %s",
    "INCRBY %s %n",
    "DECRBY %s %n",
    "INCRBYFLOAT %s %c",
    "SETBIT %s %n 1",
    "SETBIT %s %n 0",
    "SETBIT %s 9000 1",
    "BITOP OR %s %s %s",
    "BITOP NOT %s %s",
    "BITFIELD %s SET u8 %n %n INCRBY i5 100 %n OVERFLOW FAIL INCRBY u2 %n 1",
    "BITFIELD %s GET u8 0 SET i64 3 %n",
    "PFADD %p %v %v",
    "PFADD %p %f",
    "PFMERGE %p %p",
    "PFMERGE %p %p %p",
    "PFDEBUG TODENSE %p",
    "PFDEBUG GETREG %p",
    "DEL %y",
    "DEL %y %y",
    "UNLINK %y %y",
    "RENAME %y %y",
    "RENAMENX %y %y",
    "COPY %y %y",
    "COPY %y %y REPLACE",
    "COPY %y %y DB %d REPLACE",
    "MOVE %y %d",
    "RESTORE %y 0 %w",
    "RESTORE %y %t %w REPLACE",
    "RESTORE %y %a %w ABSTTL REPLACE",
    "EXPIRE %y %n",
    "PEXPIRE %y %t",
    "PEXPIRE %y %t GT",
    "EXPIREAT %y %n",
    "PEXPIREAT %y %a",
    "PEXPIREAT %y %a LT",
    "PERSIST %y",
    "SORT %l ALPHA STORE %l",
    "SORT %e BY nosort STORE %l",
    "SORT %z ALPHA DESC LIMIT 1 3 STORE %y",
    "HSET %h %f %v",
    "HSET %h %f %v %f %v",
    "HMSET %h %f %v",
    "HSETNX %h %f %v",
    "HDEL %h %f",
    "HDEL %h %f %f %f",
    "HINCRBY %h %f %n",
    "HINCRBYFLOAT %h %f %c",
    "LPUSH %l %v",
    "RPUSH %l %v %v %v",
    "LPUSH %l %f %f",
    "LPUSHX %l %v",
    "RPUSHX %l %v",
    "LPOP %l",
    "RPOP %l",
    "LPOP %l 2",
    "RPOP %l %n",
    "LSET %l %n %v",
    "LSET %l -1 %v",
    "LINSERT %l BEFORE %f %v",
    "LINSERT %l AFTER %f %v",
    "LREM %l %n %f",
    "LREM %l 0 %f",
    "LTRIM %l %n -1",
    "LTRIM %l 0 %n",
    "LMOVE %l %l LEFT RIGHT",
    "LMOVE %l %l RIGHT LEFT",
    "RPOPLPUSH %l %l",
    "LMPOP 2 %l %l LEFT COUNT 2",
    "BLPOP %l %l 0.01",
    "BRPOP %l 0.01",
    "BLMOVE %l %l LEFT LEFT 0.01",
    "BRPOPLPUSH %l %l 0.01",
    "BLMPOP 0.01 2 %l %l RIGHT COUNT 3",
    "SADD %e %f",
    "SADD %e %f %f %v",
    "SADD %e 1 2 3",
    "SREM %e %f",
    "SREM %e %f %f",
    "SMOVE %e %e %f",
    "SPOP %e",
    "SPOP %e 2",
    "SPOP %e 0",
    "SINTERSTORE %e %e %e",
    "SUNIONSTORE %e %e %e",
    "SDIFFSTORE %e %e %e",
    "SUNIONSTORE %y %e",
    "ZADD %z %c %f",
    "ZADD %z %c %f %c %f",
    "ZADD %z GT CH %c %f",
    "ZADD %z XX INCR %n %f",
    "ZADD %z NX %c %f",
    "ZADD %z -0 %f",
    "ZINCRBY %z %n %f",
    "ZREM %z %f",
    "ZREM %z %f %f %f",
    "ZREMRANGEBYRANK %z %n %n",
    "ZREMRANGEBYRANK %z -2 -1",
    "ZREMRANGEBYSCORE %z %n inf",
    "ZREMRANGEBYLEX %z [f0 [f2",
    "ZPOPMIN %z",
    "ZPOPMAX %z 2",
    "ZMPOP 2 %z %z MAX COUNT 2",
    "BZPOPMIN %z %z 0.01",
    "BZPOPMAX %z 0.01",
    "BZMPOP 0.01 2 %z %z MIN",
    "ZRANGESTORE %z %z 0 %n",
    "ZUNIONSTORE %z 2 %z %e WEIGHTS 2 -1",
    "ZINTERSTORE %z 2 %z %z AGGREGATE MAX",
    "ZDIFFSTORE %z 2 %z %z",
    "GEOADD %z 15 37 %f 15.1 37.2 %f",
    "GEOSEARCHSTORE %z %z FROMLONLAT 15 37 BYRADIUS 200 km",
    "GEOADD g 15 37 m 15.1 37.1 n",
    "GEOADD g 15 37 m 15.1 37.1 n",
    "GEOSEARCHSTORE %z g FROMLONLAT 15 37 BYRADIUS 200 km STOREDIST",
    "GEORADIUS g 15 37 200 km STORE %z",
    "GEORADIUSBYMEMBER g m 200 km STOREDIST %z",
];

/// Commands that only sometimes change something, or nothing by themselves.
const OTHERS: &[&str] = &[
    "GET %s",
    "PFCOUNT %p",
    "PFCOUNT %p %p",
    "SORT %z ALPHA",
    "TTL %y",
    "TYPE %y",
    "EXISTS %y",
    "SCAN 0",
    "RANDOMKEY",
    "DBSIZE",
    "OBJECT ENCODING %y",
    "HGETALL %h",
    "SRANDMEMBER %e 3",
    "KEYS *",
    "SELECT %d",
    "SELECT 0",
    "SELECT 0",
    "WATCH %y",
    "UNWATCH",
];

/// Commands over whole databases, which are rare, because little is there after them.
const WHOLE: &[&str] = &["FLUSHDB", "FLUSHDB ASYNC", "FLUSHALL", "SWAPDB 0 %d", "SWAPDB %d %d", "SWAPDB 0 1"];

/// Commands that wait.
const WAITS: &[&str] = &[
    "BLPOP %l %l 0",
    "BRPOP %l 0",
    "BLMOVE %l %l RIGHT LEFT 0",
    "BRPOPLPUSH %l %l 0.02",
    "BLMPOP 0 2 %l %l LEFT COUNT 3",
    "BZPOPMIN %z %z 0",
    "BZPOPMAX %z 0.02",
    "BZMPOP 0 1 %z MAX COUNT 2",
];

/// Scripts, with their keys: those that keep to them, those that stray, and those that fail halfway.
const SCRIPTS: &[&str] = &[
    "EVAL redis.call('SET',KEYS[1],ARGV[1])redis.call('RPUSH',KEYS[2],ARGV[1])return(redis.call('LPOP',KEYS[2])) 2 %s %l %v",
    "EVAL redis.call('SADD',KEYS[1],ARGV[1])return(redis.call('SPOP',KEYS[1])) 1 %e %f",
    "EVAL redis.call('HSET',KEYS[1],'f0',ARGV[1])return(redis.call('HINCRBY',KEYS[1],'f0',1)) 1 %h %v",
    "EVAL redis.call('SET','s1',ARGV[1])redis.call('DEL','l0')return(redis.call('ZADD','z1',1,ARGV[1])) 0 %v",
    "EVAL redis.call('INCR','s0')redis.call('FLUSHDB')redis.call('SET','s1',ARGV[1])return(redis.call('SELECT','1')) 0 %v",
    "EVAL redis.call('SELECT',ARGV[1])redis.call('SET','s2',ARGV[1])return(redis.call('PEXPIRE','s2',10)) 0 %d",
    "EVAL redis.pcall('INCR',KEYS[1])redis.pcall('LPUSH',KEYS[1],'x')return(redis.call('NOTHING')) 1 %y",
    "EVAL redis.call('SWAPDB','0','1')return(redis.call('RENAME','s0','s1')) 0",
];

/// A source of commands.
pub(crate) struct Words {
    pub(super) random: Random,
}

impl Words {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed) }
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.random.index(bound)
    }

    /// One command, which may be of any kind but those that wait for long.
    pub(crate) fn command(&mut self, now_ms: u64, dumped: &[u8]) -> Vec<Vec<u8>> {
        let table = match self.below(100) {
            0..2 => WHOLE,
            2..12 => OTHERS,
            _ => WRITES,
        };
        self.pick(table, now_ms, dumped)
    }

    pub(crate) fn wait(&mut self, now_ms: u64) -> Vec<Vec<u8>> {
        self.pick(WAITS, now_ms, &[])
    }

    pub(crate) fn script(&mut self, now_ms: u64) -> Vec<Vec<u8>> {
        self.pick(SCRIPTS, now_ms, &[])
    }

    fn pick(&mut self, table: &[&str], now_ms: u64, dumped: &[u8]) -> Vec<Vec<u8>> {
        let example = table[self.below(table.len())];
        example.split(' ').map(|word| self.word(word, now_ms, dumped)).collect()
    }

    fn word(&mut self, word: &str, now_ms: u64, dumped: &[u8]) -> Vec<u8> {
        let Some(kind) = word.strip_prefix('%') else { return word.as_bytes().to_vec() };
        let text = match kind {
            "y" => return self.any_key(),
            "s" | "l" | "h" | "e" | "z" | "p" if self.below(12) == 0 => return self.any_key(),
            "s" | "l" | "h" | "e" | "z" | "p" => format!("{kind}{}", self.below(3)),
            "d" => self.below(4).to_string(),
            "f" => ["f0", "f1", "f2", "f3", "1", "2", "-7", ""][self.below(8)].to_owned(),
            "v" => return self.value(),
            "n" => (self.below(14) as i64 - 3).to_string(),
            "c" => ["1", "2", "-1", "2.5", "inf", "-inf", "0", "-0", "3e10"][self.below(9)].to_owned(),
            "t" => (self.below(60) as u64 + 1).to_string(),
            "a" => (now_ms + self.below(60) as u64).saturating_sub(5).to_string(),
            "w" => return dumped.to_vec(),
            other => panic!("no words for {other}"),
        };
        text.into_bytes()
    }

    fn any_key(&mut self) -> Vec<u8> {
        let kind = ["s", "l", "h", "e", "z", "p"][self.below(6)];
        format!("{kind}{}", self.below(3)).into_bytes()
    }

    fn value(&mut self) -> Vec<u8> {
        match self.below(8) {
            0 => b"x".repeat(70 + self.below(200)),
            1 => vec![],
            2 => vec![0, 0xff, b'\r', b'\n'],
            3..6 => self.below(50).to_string().into_bytes(),
            _ => ["f0", "f1", "one"][self.below(3)].as_bytes().to_vec(),
        }
    }
}
