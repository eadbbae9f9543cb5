//! A data set with every type in every encoding and size class.

use acteon_engine_tests::command::Command;
use acteon_engine_tests::random::Random;

/// Commands that build the data set in four databases.
pub(crate) fn data_set() -> Vec<Command> {
    let mut commands = Vec::new();
    let mut add = |words: &[&[u8]]| commands.push(Command::new(words.iter().map(|word| word.to_vec()).collect()));
    for database in ["0", "1", "3"] {
        add(&[b"SELECT", database.as_bytes()]);
        strings(&mut add);
        lists(&mut add);
        sets(&mut add);
        hashes(&mut add);
        sorted_sets(&mut add);
    }
    commands
}

fn strings(add: &mut impl FnMut(&[&[u8]])) {
    let texts: &[&[u8]] = &[
        b"",
        b"0",
        b"-1",
        b"127",
        b"-129",
        b"32767",
        b"-32769",
        b"2147483647",
        b"2147483648",
        b"-2147483648",
        b"-2147483649",
        b"9223372036854775807",
        b"-9223372036854775808",
        b"9223372036854775808",
        b"007",
        b"-0",
        b"+1",
        b" 1",
        b"1.5",
        b"\0\xff\r\n",
    ];
    for text in texts {
        add(&[b"SET", &[b"string:", *text].concat(), text]);
    }
    for len in [20, 21, 44, 45, 63, 64, 16_383, 16_384, 100_000] {
        let name = len.to_string();
        add(&[b"SET", format!("noise:{name}").as_bytes(), &noise(len)]);
        add(&[b"SET", format!("repeated:{name}").as_bytes(), &b"again and ".repeat(len / 10 + 1)[..len]]);
        add(&[b"SET", format!("zeros:{name}").as_bytes(), &vec![0; len]]);
    }
    add(&[b"SET", b"", b"an empty key"]);
    add(&[b"SET", b"12345", b"a key that is an integer"]);
    add(&[b"SET", &b"a long key ".repeat(30), b"v"]);
    add(&[b"SET", b"changed", b"1"]);
    add(&[b"APPEND", b"changed", b"2"]);
    add(&[b"SETBIT", b"bits", b"100", b"1"]);
    add(&[b"PFADD", b"sparse", b"a", b"b", b"c"]);
    for number in 0..300 {
        add(&[b"PFADD", b"dense", &noise(number + 5)]);
    }
    add(&[b"SET", b"with a deadline", b"v", b"EX", b"100000"]);
    add(&[b"SET", b"far away", b"v", b"PXAT", b"99999999999999"]);
}

fn lists(add: &mut impl FnMut(&[&[u8]])) {
    for count in [1, 5, 127, 3_000] {
        for number in 0..count {
            add(&[b"RPUSH", format!("list:{count}").as_bytes(), element(number).as_bytes()]);
        }
    }
    for element in [&noise(9_000)[..], b"x", b"", &b"large ".repeat(20_000), b"-7", &noise(200)] {
        add(&[b"LPUSH", b"list of large", element]);
    }
    add(&[b"EXPIRE", b"list:5", b"100000"]);
}

fn sets(add: &mut impl FnMut(&[&[u8]])) {
    for (name, factor) in [("16", 1_i64), ("32", 100_000), ("64", 10_000_000_000)] {
        for number in -20..20 {
            add(&[b"SADD", format!("integers:{name}").as_bytes(), (number * factor).to_string().as_bytes()]);
        }
    }
    for number in 0..600 {
        add(&[b"SADD", b"many integers", number.to_string().as_bytes()]);
        add(&[b"SADD", b"many members", element(number).as_bytes()]);
    }
    add(&[b"SADD", b"few members", b"a", b"", b"12", b"\xff\0", &noise(100)]);
    add(&[b"SADD", b"integers that were not", b"1", b"2", b"a"]);
    add(&[b"SREM", b"integers that were not", b"a"]);
}

fn hashes(add: &mut impl FnMut(&[&[u8]])) {
    for count in [1, 10, 512, 513] {
        for number in 0..count {
            add(&[
                b"HSET",
                format!("hash:{count}").as_bytes(),
                element(number).as_bytes(),
                number.to_string().as_bytes(),
            ]);
        }
    }
    add(&[b"HSET", b"hash of large", b"field", &noise(65), b"", b"", &b"long field".repeat(50), b"-1"]);
    add(&[b"HSET", b"hash of numbers", b"1", b"-1", b"200", b"-5000", b"70000", b"9000000", b"1234567890123", b"4096"]);
    add(&[b"PEXPIRE", b"hash:10", b"99999999"]);
}

fn sorted_sets(add: &mut impl FnMut(&[&[u8]])) {
    for count in [1, 20, 128, 129, 1_000] {
        for number in 0..count {
            let score = f64::from(number) / 7.0 - 3.0;
            add(&[
                b"ZADD",
                format!("sorted:{count}").as_bytes(),
                score.to_string().as_bytes(),
                element(number).as_bytes(),
            ]);
        }
    }
    let scores: &[&[u8]] =
        &[b"inf", b"-inf", b"0", b"-0", b"1e300", b"-1e-300", b"5e-324", b"3", b"-4097", b"1.1", b"9007199254740993"];
    for score in scores {
        add(&[b"ZADD", b"scores", score, &[b"of ", *score].concat()]);
        add(&[b"ZADD", b"scores of large", score, &[b"of ", *score].concat()]);
    }
    add(&[b"ZADD", b"scores of large", b"-0", &noise(70)]);
    add(&[b"ZADD", b"sorted numbers", b"1", b"1", b"2", b"-300", b"3", b"70000"]);
    add(&[b"GEOADD", b"places", b"13.361389", b"38.115556", b"Palermo", b"15.087269", b"37.502669", b"Catania"]);
}

/// What is now a text and now a number.
fn element(number: i32) -> String {
    match number % 3 {
        0 => (number * 37 - 500).to_string(),
        1 => format!("element {number}"),
        _ => format!("an element that is longer, and so compressed where that is worth it: {number}"),
    }
}

/// Bytes that no compression makes smaller.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut random = Random::new(len as u64);
    (0..len).map(|_| (random.number() >> 24) as u8).collect()
}
