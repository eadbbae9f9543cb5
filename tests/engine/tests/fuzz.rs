//! Random bytes, damaged requests and valid commands into decoders and sessions: nothing panics, and memory stays bounded.
//!
//! # How to run it
//! Two minutes of processor time, unless told otherwise; the tests run beside each other where there are several processors.
//! - `ACTEON_FUZZ_SECONDS`: how many seconds, over all tests of this file.
//! - `ACTEON_SEED`: the seed that a failure printed. Each input has its own.
//!
//! The targets in `fuzz/` send what a fuzzer makes up that watches which branches are taken, to the same functions.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use acteon_engine_tests::command::Command;
use acteon_engine_tests::families::{Family, families};
use acteon_engine_tests::fuzz::{self, CONNECTIONS, Sessions};
use acteon_engine_tests::pools::PAYLOADS;
use acteon_engine_tests::random::Random;

/// The time of all tests together unless told otherwise: a minute of the clock on two processors.
const SECONDS_DEFAULT: u64 = 120;

/// Tests of this file, among which the time is divided.
const TESTS: u32 = 5;

/// More than the engine may hold, twice: the other test that runs beside has one of its own.
const RESIDENT_KIB_MAX: u64 = 768 << 10;

/// The version and the checksum of a payload.
const PAYLOAD_END_BYTES: usize = 10;

/// Commands that one server gets.
const COMMANDS: usize = 300;

#[test]
fn any_bytes_read_the_same_in_every_cut() {
    repeat(|random, _| {
        let data = if random.percent(50) { protocol_like(random, 200) } else { bytes(random, 200) };
        fuzz::request(&data);
        fuzz::token(&data);
    });
}

#[test]
fn files_of_any_bytes_are_taken_over_up_to_their_damage() {
    // What redis-server writes into files, with types in front, is also in its payloads.
    let payloads: Vec<&[u8]> = PAYLOADS.iter().map(|payload| &payload[..payload.len() - PAYLOAD_END_BYTES]).collect();
    repeat(|random, families| {
        let mut data = Vec::new();
        if random.percent(60) {
            for number in 0..=random.below(6) {
                let (kind, value) = random.pick(&payloads).split_first().expect("a type");
                data.extend([*kind, 1, b'a' + number as u8]);
                data.extend_from_slice(value);
            }
        } else {
            let length = 5 + random.below(20);
            random.pick(families).sequence(random, length).iter().for_each(|command| command.encode(&mut data));
        }
        if random.percent(80) {
            damage(random, &mut data);
        }
        fuzz::file(&data);
    });
}

#[test]
fn sessions_take_any_bytes() {
    repeat(|random, _| {
        let data = if random.percent(70) { protocol_like(random, 2_000) } else { bytes(random, 2_000) };
        fuzz::session(&data);
    });
}

#[test]
fn sessions_take_any_valid_command() {
    repeat(|random, families| {
        let mut sessions = Sessions::new();
        for command in commands(random, families) {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            sessions.send(random.below(CONNECTIONS), &bytes);
        }
    });
}

#[test]
fn sessions_take_damaged_requests() {
    repeat(|random, families| {
        let mut sessions = Sessions::new();
        for command in commands(random, families) {
            let mut bytes = Vec::new();
            let command = if random.percent(40) { damage_arguments(random, command) } else { command };
            command.encode(&mut bytes);
            if random.percent(20) {
                damage(random, &mut bytes);
            }
            let end = if random.percent(10) { random.below(bytes.len() + 1) } else { bytes.len() };
            sessions.send(random.below(CONNECTIONS), &bytes[..end]);
        }
    });
}

/// Tries inputs until the time of a test is over, each from a seed of its own.
fn repeat(mut attempt: impl FnMut(&mut Random, &[Family])) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seconds = number("ACTEON_FUZZ_SECONDS").unwrap_or(SECONDS_DEFAULT);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let first_seed = number("ACTEON_SEED").unwrap_or(now.as_nanos() as u64);
    let families = families();
    let (begin, time) = (Instant::now(), Duration::from_secs(seconds) / TESTS);
    let mut report = Report { seed: first_seed };
    loop {
        attempt(&mut Random::new(report.seed), &families);
        if begin.elapsed() >= time {
            break;
        }
        report.seed = report.seed.wrapping_add(1);
    }
    println!("{} inputs", report.seed.wrapping_sub(first_seed) + 1);
    if let Some(resident_kib) = resident_kib_max() {
        assert!(resident_kib < RESIDENT_KIB_MAX, "{resident_kib} KiB were in use");
    }
}

/// Tells the seed of the input that made a test panic.
struct Report {
    seed: u64,
}

impl Drop for Report {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("ACTEON_SEED={} repeats this", self.seed);
        }
    }
}

/// The most memory that this process has had, where the system says so.
fn resident_kib_max() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

fn commands(random: &mut Random, families: &[Family]) -> Vec<Command> {
    let mut commands = Vec::new();
    while commands.len() < COMMANDS {
        let length = 40 + random.below(40);
        commands.extend(random.pick(families).sequence(random, length));
    }
    commands
}

fn bytes(random: &mut Random, length_max: usize) -> Vec<u8> {
    (0..random.below(length_max)).map(|_| random.number() as u8).collect()
}

/// Pieces of which requests and replies consist, in any order.
fn protocol_like(random: &mut Random, length_max: usize) -> Vec<u8> {
    const PIECES: [&str; 36] = [
        "*1\r\n",
        "*2\r\n",
        "*3\r\n",
        "*0\r\n",
        "*-1\r\n",
        "*1025\r\n",
        "$0\r\n",
        "$1\r\n",
        "$3\r\n",
        "$-1\r\n",
        "$99999999999999999999\r\n",
        "\r\n",
        "\n",
        "\r",
        "GET",
        "SET",
        "MULTI\r\n",
        "EXEC\r\n",
        "SUBSCRIBE a\r\n",
        "BLPOP a 1\r\n",
        "RPUSH a b\r\n",
        "HELLO 3\r\n",
        "PING\r\n",
        "\"a\\x41\" ",
        "'",
        " ",
        "a",
        "+OK\r\n",
        "-ERR\r\n",
        ":1\r\n",
        "%1\r\n",
        "~1\r\n",
        ">1\r\n",
        ",nan\r\n",
        "=5\r\ntxt:a\r\n",
        "_\r\n",
    ];
    const REQUESTS: [&str; 5] = ["GET a", "SET a 1", "RPUSH l a", "WATCH a", "RESET"];
    let mut made = Vec::new();
    for _ in 0..random.below(length_max / 4) {
        match random.below(20) {
            0 => made.push(random.number() as u8),
            // A whole request, so that what follows meets a state.
            1..6 => {
                let request = random.pick(&REQUESTS);
                Command::words(request).encode(&mut made);
            }
            _ => made.extend_from_slice(random.pick(&PIECES).as_bytes()),
        }
    }
    made
}

/// Arguments of the wrong number, order, length or content, in a request that is well-formed.
fn damage_arguments(random: &mut Random, mut command: Command) -> Command {
    let arguments = &mut command.arguments;
    let at = random.below(arguments.len());
    match random.below(6) {
        0 => drop(arguments.remove(at)),
        1 => arguments.insert(at, bytes(random, 20)),
        2 => arguments.swap(0, at),
        3 => arguments[at] = bytes(random, 300),
        4 => arguments.extend_from_within(at..),
        _ => damage(random, &mut arguments[at]),
    }
    command
}

/// Changes, removes, inserts or repeats some bytes.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() + 1);
        match random.below(4) {
            0 => bytes.insert(at, random.number() as u8),
            _ if at == bytes.len() => bytes.extend_from_within(at / 2..),
            1 => bytes[at] ^= 1 << random.below(8),
            2 => drop(bytes.remove(at)),
            _ => bytes[at] = *random.pick(b"\r\n$*-0919 \"\\\0\xff"),
        }
    }
}
