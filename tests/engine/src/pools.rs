//! What templates are filled with: few keys and few values, so that commands meet.
//!
//! A key's first letter says what it usually holds: `s` string, `b` bitmap, `p` HyperLogLog, `h` hash, `l` list, `e` set, `z` sorted
//! set, `g` places. Now and then a pool of keys hands out one of another type.
//!
//! Nothing here may make a server allocate much: offsets are small or refused by both, and random members are never asked for by the
//! billion.

use crate::random::Random;

/// Appends one argument or several.
pub type Pool = fn(&mut Random, &mut Vec<Vec<u8>>);

/// The pool of a name that a template uses.
pub fn find(name: &str) -> Option<Pool> {
    POOLS.iter().find(|(known, _)| *known == name).map(|(_, pool)| *pool)
}

/// Something that fits nowhere, for distorted commands.
pub fn senseless(random: &mut Random) -> Vec<u8> {
    random.pick(SENSELESS).to_vec()
}

/// Scripts that carry out the command in their arguments.
pub const THROUGH: &[&str] = &["return redis.call(unpack(ARGV))", "return redis.pcall(unpack(ARGV))"];

const POOLS: &[(&str, Pool)] = &[
    // Keys.
    ("k", |random, out| out.push(any_key(random))),
    ("s", |random, out| key(random, b's', out)),
    ("b", |random, out| key(random, b'b', out)),
    ("p", |random, out| key(random, b'p', out)),
    ("h", |random, out| key(random, b'h', out)),
    ("l", |random, out| key(random, b'l', out)),
    ("e", |random, out| key(random, b'e', out)),
    ("z", |random, out| key(random, b'z', out)),
    ("g", |random, out| key(random, b'g', out)),
    // Sorted sets with equal scores alone: for others, what a range by text holds is open. So no key which a union may have been stored in.
    ("y", |random, out| mostly(random, out, &["y0", "y1", "y2", "y3"], &["sy", "nothing"])),
    // Every key that any template may make.
    ("all", all_keys),
    // A number and that many keys; now and then another number.
    ("keys:k", |random, out| counted_keys(random, b'k', out)),
    ("keys:l", |random, out| counted_keys(random, b'l', out)),
    ("keys:e", |random, out| counted_keys(random, b'e', out)),
    ("keys:z", |random, out| counted_keys(random, b'z', out)),
    // Two sorted sets and two weights or none, so that the number of weights is right most of the time.
    ("weighted", weighted),
    // Values.
    ("v", |random, out| out.push(value(random))),
    ("m", |random, out| out.push(member(random))),
    ("text", |random, out| one_of(random, out, TEXTS)),
    ("many", many_members),
    ("many:int", many_integers),
    ("many:pairs", many_pairs),
    ("many:fields", |random, out| many_named(random, 'f', out)),
    ("many:members", |random, out| many_named(random, 'm', out)),
    ("many:places", many_places),
    ("many:scores", many_scores),
    // Numbers.
    ("n", |random, out| mostly(random, out, INTEGERS, BAD_INTEGERS)),
    ("i", |random, out| mostly(random, out, INDEXES, BAD_INTEGERS)),
    ("f", |random, out| mostly(random, out, FLOATS, BAD_FLOATS)),
    ("count", |random, out| mostly(random, out, COUNTS, BAD_INTEGERS)),
    ("small", |random, out| one_of(random, out, &["0", "1", "2", "3", "7", "-1", "-3", "-7"])),
    ("score", |random, out| mostly(random, out, SCORES, BAD_FLOATS)),
    ("bound", |random, out| mostly(random, out, BOUNDS, &["(", "abc", "nan", "", "((1", "1 2"])),
    ("lex", |random, out| mostly(random, out, LEX_BOUNDS, &["a", "", "++", "-1", "b]"])),
    ("weight", |random, out| mostly(random, out, &["0", "1", "2", "-1", "0.5", "inf", "-inf"], &["abc", "nan", ""])),
    // Bits.
    ("bit", |random, out| mostly(random, out, &["0", "1"], &["2", "-1", "a", ""])),
    ("bitpos", |random, out| mostly(random, out, BIT_OFFSETS, &["-1", "4294967296", "abc", "9223372036854775807"])),
    ("bittype", |random, out| mostly(random, out, BIT_TYPES, &["u64", "i65", "u0", "x8", "i", "8", "I8"])),
    ("bitoffset", |random, out| {
        mostly(random, out, BITFIELD_OFFSETS, &["-1", "#-1", "4294967296", "#4294967296", "abc", "#"])
    }),
    ("bitvalue", |random, out| mostly(random, out, BIT_VALUES, BAD_INTEGERS)),
    ("offset", |random, out| {
        mostly(random, out, &["0", "1", "5", "43", "44", "45", "300"], &["-1", "536870912", "9223372036854775807", "a"])
    }),
    // Times. They are long past or far away, so that it does not matter when a server looks.
    ("ex", |random, out| mostly(random, out, &["1000", "5000", "100000", "2000000"], BAD_TIMES)),
    ("px", |random, out| mostly(random, out, &["1000000", "5000000", "100000000"], BAD_TIMES)),
    ("at", |random, out| mostly(random, out, &["4102444800", "5000000000"], BAD_TIMES)),
    ("pat", |random, out| mostly(random, out, &["4102444800000", "5000000000000"], BAD_TIMES)),
    ("past", |random, out| one_of(random, out, &["1", "1000", "1600000000"])),
    ("gone", |random, out| one_of(random, out, &["0", "-1", "-1000", "-9223372036854775808"])),
    // The rest.
    ("db", |random, out| mostly(random, out, &["0", "0", "1", "2", "3"], &["16", "-1", "abc", "9223372036854775808"])),
    ("pattern", |random, out| one_of(random, out, PATTERNS)),
    ("by", |random, out| one_of(random, out, &["s*", "h*->a", "nosort", "s0", "z*", "nothing*", "h*->", "*"])),
    ("get", |random, out| one_of(random, out, &["#", "s*", "h*->a", "h*->b", "nothing*", "s0", "l*", "h*->"])),
    ("place", place),
    ("anywhere", anywhere),
    ("radius", |random, out| {
        mostly(random, out, &["0", "1", "100", "200.5", "500", "5000", "30000"], &["-1", "abc", "nan", ""])
    }),
    ("unit", |random, out| mostly(random, out, &["m", "km", "ft", "mi", "KM"], &["cm", ""])),
    ("events", |random, out| {
        one_of(random, out, &["", "KEA", "K$lshzxeg", "Ex", "KEAmn", "Elg", "AKE", "Kx", "KEdt", "Q"])
    }),
    ("channel", |random, out| {
        one_of(random, out, &["c0", "c1", "c2", "news", "__keyspace@0__:s0", "__keyevent@0__:set", ""])
    }),
    ("channels", |random, out| {
        one_of(random, out, &["c*", "*", "c?", "n[aeiou]ws", "__key*__:*", "__keyevent@0__:*", "[", "c\\*"])
    }),
    ("script", |random, out| one_of(random, out, crate::families::SCRIPTS)),
    ("through", |random, out| one_of(random, out, THROUGH)),
    ("publishing", |random, out| {
        one_of(random, out, &["redis.call('publish','c0','x'); return redis.call('set','s0','y')"])
    }),
    ("call", |random, out| crate::families::any_call(random, out)),
    ("payload", payload),
    ("command", |random, out| one_of(random, out, crate::families::COMMAND_NAMES)),
];

/// What DUMP of redis-server 7.0 has answered.
pub const PAYLOADS: &[&[u8]] = &[
    // An integer, a text, and one that is compressed.
    b"\x00\xc0\x0a\x0a\x00n\x9fWE\x0e\xaec\xbb",
    b"\x00\x03abc\x0a\x00\xd9\xac0=Ar\xa2\xe2",
    b"\x00\xc3\x0b@Z\x03abca\xe0K\x02\x01bc\x0a\x00#\x806\xf9\xe2\xd0\xc7\x80",
    // A HyperLogLog.
    b"\x00\x18HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80q\xa6\x84K\xfb\x80BZ\x0a\x00Y\xf4\xb9\x19%\xeb\x16\xea",
    // A list, a set of integers and one of members, a hash, a sorted set.
    b"\x12\x01\x02\x0f\x0f\x00\x00\x00\x03\x00\x81a\x02\x01\x01\x81b\x02\xff\x0a\x00\x90C\xa3L\xeb\x8e\x1b\x1c",
    b"\x0b\x10\x02\x00\x00\x00\x04\x00\x00\x00\xd4\xfe\x01\x00\x02\x00\x03\x00\x0a\x003\x8as.j\x1dj\xb0",
    b"\x02\x03\xc0\x03\x01b\x01a\x0a\x00\xa0\xb8\xf5\x00/j|\x9e",
    b"\x10\x12\x12\x00\x00\x00\x04\x00\x81a\x02\x01\x01\x81b\x02\x81x\x02\xff\x0a\x00x\x07Lk\xd9\xd7\x05\x1f",
    b"\x11\x1d\x1d\x00\x00\x00\x06\x00\x81c\x02\x84-inf\x05\x81a\x02\x01\x01\x81b\x02\x832.5\x04\xff\x0a\x009\x923\x9b\xe1\x1f2=",
];

fn payload(random: &mut Random, out: &mut Vec<Vec<u8>>) {
    let mut payload = random.pick(PAYLOADS).to_vec();
    if random.percent(BAD_PERCENT) {
        let at = random.below(payload.len());
        payload[at] ^= 1;
    }
    out.push(payload);
}

const KEY_TYPES: &[u8] = b"sbphlezg";
const KEYS_PER_TYPE: usize = 4;
const UGLY_KEY: &[u8] = b"\x00\xff key\r\n";
const OTHER_TYPE_PERCENT: usize = 6;
const BAD_PERCENT: usize = 4;

fn key(random: &mut Random, kind: u8, out: &mut Vec<Vec<u8>>) {
    let is_other = kind == b'k' || random.percent(OTHER_TYPE_PERCENT);
    out.push(if is_other { any_key(random) } else { numbered(random, kind) });
}

fn any_key(random: &mut Random) -> Vec<u8> {
    let kind = *random.pick(KEY_TYPES);
    match random.below(60) {
        0 => Vec::new(),
        1 => UGLY_KEY.to_vec(),
        _ => numbered(random, kind),
    }
}

fn all_keys(_: &mut Random, out: &mut Vec<Vec<u8>>) {
    let kinds = KEY_TYPES.iter().chain(b"y");
    out.extend(kinds.flat_map(|kind| (0..KEYS_PER_TYPE).map(|number| vec![*kind, b'0' + number as u8])));
    out.extend([&b""[..], UGLY_KEY, b"zf", b"sy", b"nothing"].map(<[u8]>::to_vec));
    // Distortion may put anything where a key belongs.
    out.extend(SENSELESS.iter().map(|key| key.to_vec()));
}

fn numbered(random: &mut Random, kind: u8) -> Vec<u8> {
    vec![kind, b'0' + random.below(KEYS_PER_TYPE) as u8]
}

fn counted_keys(random: &mut Random, kind: u8, out: &mut Vec<Vec<u8>>) {
    let count = 1 + random.below(3);
    if random.percent(BAD_PERCENT) {
        one_of(random, out, &["0", "-1", "4", "1", "abc", "9223372036854775807"]);
    } else {
        out.push(count.to_string().into());
    }
    (0..count).for_each(|_| key(random, kind, out));
}

fn weighted(random: &mut Random, out: &mut Vec<Vec<u8>>) {
    let weight = |random: &mut Random, out: &mut Vec<_>| {
        mostly(random, out, &["0", "1", "2", "-1", "0.5", "inf"], &["x", "nan"])
    };
    out.push(b"2".to_vec());
    key(random, b'z', out);
    let kind = *random.pick(b"zzze");
    key(random, kind, out);
    if random.percent(60) {
        out.push(b"WEIGHTS".to_vec());
        weight(random, out);
        weight(random, out);
    }
}

fn one_of(random: &mut Random, out: &mut Vec<Vec<u8>>, choices: &[&str]) {
    out.push(random.pick(choices).as_bytes().to_vec());
}

fn mostly(random: &mut Random, out: &mut Vec<Vec<u8>>, good: &[&str], bad: &[&str]) {
    let choices = if random.percent(BAD_PERCENT) { bad } else { good };
    one_of(random, out, choices);
}

fn value(random: &mut Random) -> Vec<u8> {
    match random.below(40) {
        0 => vec![b'x'; 44], // the longest string that shares its header's allocation
        1 => vec![b'x'; 45],
        2 => vec![b'y'; 64], // the longest value that packed collections take
        3 => vec![b'y'; 65],
        4 => vec![b'z'; 300],
        // The zero last: SORT ALPHA compares C strings.
        5 => (1..=255).chain([0]).collect(),
        _ => random.pick(VALUES).to_vec(),
    }
}

fn member(random: &mut Random) -> Vec<u8> {
    match random.below(20) {
        0 => value(random),
        1..=8 => random.below(12).to_string().into(),
        _ => vec![b'a' + random.below(8) as u8],
    }
}

// Around the thresholds at which the encodings change: 128 for sorted sets, 512 for hashes and sets of integers.
fn many(random: &mut Random) -> usize {
    *random.pick(&[20, 127, 128, 129, 200, 511, 512, 513, 520])
}

fn many_members(random: &mut Random, out: &mut Vec<Vec<u8>>) {
    let length = *random.pick(&[1, 10, 100]);
    out.extend((0..many(random)).map(|number| format!("{number:0length$}").into_bytes()));
}

fn many_integers(random: &mut Random, out: &mut Vec<Vec<u8>>) {
    let (count, start) = (many(random), *random.pick(&[0_i64, -100, 32_700, 2_147_483_600, i64::MAX - 600]));
    out.extend((0..count as i64).map(|number| (start + number).to_string().into_bytes()));
}

fn many_pairs(random: &mut Random, out: &mut Vec<Vec<u8>>) {
    for number in 0..many(random) {
        out.extend([format!("f{number}").into_bytes(), value(random)]);
    }
}

fn many_scores(random: &mut Random, out: &mut Vec<Vec<u8>>) {
    for number in 0..many(random) {
        out.extend([random.below(50).to_string().into_bytes(), format!("m{number}").into_bytes()]);
    }
}

/// Members of what [`many_pairs`] and [`many_scores`] make.
fn many_named(random: &mut Random, name: char, out: &mut Vec<Vec<u8>>) {
    let start = *random.pick(&[0, 4, 100]);
    out.extend((start..start + many(random)).map(|number| format!("{name}{number}").into_bytes()));
}

/// Half of them lie close together, the others anywhere.
fn many_places(random: &mut Random, out: &mut Vec<Vec<u8>>) {
    let center = random.pick(PLACES).map(|coordinate| coordinate.parse::<f64>().unwrap_or_default());
    for number in 0..*random.pick(&[10, 40, 150]) {
        if random.percent(50) {
            let mut near = |center: f64, limit: f64| {
                let offset = (random.below(2_000_001) as f64 - 1e6) / 1e6;
                (center + offset).clamp(-limit, limit)
            };
            let (longitude, latitude) = (near(center[0], 180.0), near(center[1], 85.0));
            out.extend([format!("{longitude:.6}").into_bytes(), format!("{latitude:.6}").into_bytes()]);
        } else {
            anywhere(random, out);
        }
        out.push(format!("p{number}").into_bytes());
    }
}

fn anywhere(random: &mut Random, out: &mut Vec<Vec<u8>>) {
    let mut coordinate = |limit: usize| {
        let micro = random.below(limit * 2_000_000 + 1) as f64 / 1e6 - limit as f64;
        out.push(format!("{micro:.6}").into_bytes());
    };
    coordinate(180);
    coordinate(85);
}

fn place(random: &mut Random, out: &mut Vec<Vec<u8>>) {
    let place = if random.percent(BAD_PERCENT) { random.pick(BAD_PLACES) } else { random.pick(PLACES) };
    out.extend(place.map(|coordinate| coordinate.as_bytes().to_vec()));
}

const SENSELESS: &[&[u8]] = &[
    b"",
    b"-1",
    b"0",
    // Not less: as a time to live it would end in the middle of the sequence, on one server before a command and on the other after it.
    b"1000000",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"18446744073709551616",
    b"+1",
    b" 1",
    b"1 ",
    b"01",
    b"1.5",
    b"1e3",
    b"nan",
    b"inf",
    b"-inf",
    b"abc",
    b"\x00",
    b"\xff\xfe\r\n",
    b"COUNT",
    b"LIMIT",
    b"WITHSCORES",
    b"STORE",
    b"GET",
    b"NX",
    b"XX",
    b"s0",
    b"*",
    b"(1",
    b"[a",
];

const VALUES: &[&[u8]] = &[
    b"",
    b"a",
    b"b",
    b"abc",
    b"ABC",
    b"foobar",
    b"0",
    b"1",
    b"10",
    b"-5",
    b"3.14",
    b"1e5",
    b"0.1",
    b" 12",
    b"12 ",
    b"+5",
    b"007",
    b"0x10",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"inf",
    b"-inf",
    b"nan",
    // Not with a zero in front: SORT ALPHA compares C strings, and would find it equal to the empty one.
    b"\xff\x00\r\n",
    b"1.5e400",
    b"12345678901234567890",
    b"9999",
    b"10000",
    b"-0",
    b"\xf0\x0f\xaa",
    b"5.0",
    b"1e-7",
];

const TEXTS: &[&str] = &["ohmytext", "mynewtext", "", "a", "abcabc", "cabacb"];

const INTEGERS: &[&str] = &["0", "1", "2", "3", "5", "10", "-1", "-2", "-7", "100", "1000000007"];
const INDEXES: &[&str] = &["0", "1", "2", "3", "5", "-1", "-2", "-3", "-100", "100", "7"];
const COUNTS: &[&str] = &["0", "1", "2", "3", "5", "10", "100000"];
const BAD_INTEGERS: &[&str] = &[
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775809",
    "abc",
    "",
    "1.5",
    " 1",
    "+1",
    "01",
    "1e3",
    "4294967296",
    "-2147483649",
];

const FLOATS: &[&str] = &[
    "0",
    "1",
    "-1",
    "0.1",
    "3.3",
    "1.5",
    "-2.25",
    "1e10",
    "1e-5",
    "100.001",
    "1e300",
    "123456789.123",
    "5.0e3",
    "3.0",
];
// Sums of these are exact, so that the order in which sets are added up does not show.
const SCORES: &[&str] =
    &["0", "1", "2", "3", "10", "-1", "-2.5", "1.5", "0.25", "1e3", "inf", "-inf", "+inf", "1000000", "-0", "3e10"];
const BAD_FLOATS: &[&str] =
    &["abc", "nan", "", " 1", "1 ", "1e400", "-1e400", "0x1p3", "1.0.0", "inf", "-inf", "infinity", "1e-400", "--1"];

const BOUNDS: &[&str] =
    &["-inf", "+inf", "inf", "0", "1", "2", "3", "(1", "(2", "(0", "-1", "(-inf", "(+inf", "10", "1.5", "1e3", "-2.5"];
const LEX_BOUNDS: &[&str] = &["-", "+", "[a", "(a", "[b", "(c", "[d", "(f", "[5", "(1", "[", "(", "[zzz"];

const BIT_OFFSETS: &[&str] = &["0", "1", "2", "7", "8", "9", "31", "63", "64", "100", "1000"];
const BIT_TYPES: &[&str] =
    &["u1", "i1", "u2", "i5", "u7", "u8", "i8", "u16", "i16", "u32", "i32", "u63", "i64", "i63", "u13"];
const BITFIELD_OFFSETS: &[&str] = &["0", "1", "7", "8", "13", "63", "100", "#0", "#1", "#2", "#5"];
const BIT_VALUES: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "7",
    "100",
    "127",
    "128",
    "255",
    "256",
    "-128",
    "-129",
    "65535",
    "2147483647",
    "4294967295",
    "9223372036854775807",
    "-9223372036854775808",
];

const BAD_TIMES: &[&str] = &[
    "0",
    "-1",
    "abc",
    "",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775",
    "1.5",
    "9223372036854775808",
];

const PATTERNS: &[&str] = &[
    "*", "s*", "?0", "[sl]*", "[^s]*", "[a-m]?", "s0", "", "*0*", "\\s0", "[", "s[0-1]", "**", "a*b", "[z-e]0", "?",
    "h[", "[]*", "*\\",
];

const PLACES: &[[&str; 2]] = &[
    ["13.361389", "38.115556"],
    ["15.087269", "37.502669"],
    ["0", "0"],
    ["-180", "85"],
    ["180", "-85"],
    ["179.9", "0.1"],
    ["-179.9", "-0.2"],
    ["2.3522", "48.8566"],
    ["-0.1276", "51.5072"],
    ["12.5", "41.9"],
    ["13.4", "38.2"],
    ["14.9", "37.4"],
];
const BAD_PLACES: &[[&str; 2]] =
    &[["181", "0"], ["0", "86"], ["abc", "0"], ["0", ""], ["nan", "0"], ["-180.1", "-85.06"], ["inf", "1"]];
