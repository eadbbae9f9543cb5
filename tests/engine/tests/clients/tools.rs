//! redis-cli and redis-benchmark, in the ways in which people use them.

use std::fmt::Write;

use libtest_mimic::Failed;

use crate::Case;
use crate::program::Program;
use crate::served::Served;

pub(crate) const CASES: &[(&str, Case)] = &[
    ("redis_cli::commands", commands),
    ("redis_cli::both_protocols", both_protocols),
    ("redis_cli::a_script_from_a_file", script_from_a_file),
    ("redis_cli::help", help),
    ("redis_cli::mass_insertion", mass_insertion),
    ("redis_cli::scan", scan),
    ("redis_cli::statistics", statistics),
    ("redis_cli::big_keys_and_memory_of_keys", big_keys),
    ("redis_cli::latency", latency),
    ("redis_cli::monitor", monitor),
    ("redis_cli::subscribe", subscribe),
    ("redis_benchmark::all_default_tests", benchmark),
    ("redis_benchmark::pipelined", benchmark_pipelined),
    ("redis_benchmark::own_command", benchmark_own_command),
];

fn commands(served: &Served) -> Result<(), Failed> {
    expect(&cli(served, &["ping"])?, "PONG\n")?;
    expect(&cli(served, &["set", "key", "value"])?, "OK\n")?;
    expect(&cli(served, &["-u", &served.url(), "get", "key"])?, "value\n")?;
    expect(&cli(served, &["-r", "3", "incr", "counter"])?, "1\n2\n3\n")?;
    expect(&cli(served, &["-n", "3", "dbsize"])?, "0\n")?;
    expect(&cli(served, &["--csv", "rpush", "list", "a", "b"])?, "2\n")?;
    expect(&cli(served, &["--csv", "lrange", "list", "0", "-1"])?, "\"a\",\"b\"\n")?;
    let lines = "multi\nset key other\nget key\nexec\nselect 1\ndbsize\nbogus\n";
    let printed = program(served)?.input(lines).run()?;
    expect(
        &printed,
        "OK\nQUEUED\nQUEUED\nOK\nother\nOK\n0\nERR unknown command 'bogus', with args beginning with: \n\n",
    )?;
    let stored = program(served)?.args(["-x", "set", "from input"]).input("all of it").run()?;
    expect(&stored, "OK\n")?;
    expect(&cli(served, &["get", "from input"])?, "all of it\n")
}

fn both_protocols(served: &Served) -> Result<(), Failed> {
    cli(served, &["hset", "hash", "field", "1"])?;
    expect(&cli(served, &["--no-raw", "-2", "hgetall", "hash"])?, "1) \"field\"\n2) \"1\"\n")?;
    expect(&cli(served, &["--no-raw", "-3", "hgetall", "hash"])?, "1# \"field\" => \"1\"\n")?;
    expect(&cli(served, &["--json", "hgetall", "hash"])?, "{\"field\":\"1\"}\n")
}

fn script_from_a_file(served: &Served) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("script.lua");
    std::fs::write(&path, "return {KEYS[1], ARGV[1], redis.call('incr', KEYS[1])}")?;
    expect(&cli(served, &["--eval", &path.to_string_lossy(), "key", ",", "argument"])?, "key\nargument\n1\n")
}

/// The tool asks the server for what it shows.
fn help(served: &Served) -> Result<(), Failed> {
    let printed = cli(served, &["help", "setex"])?;
    contains(&printed, &["SETEX", "summary:", "since:", "group:"])?;
    contains(&cli(served, &["help", "@sorted-set"])?, &["ZADD", "ZRANGESTORE"])?;
    contains(&cli(served, &["object", "help"])?, &["ENCODING <key>"])?;
    contains(&cli(served, &["command", "docs", "setex"])?, &["setex", "summary", "group"])?;
    expect(&cli(served, &["command", "getkeys", "mset", "a", "1", "b", "2"])?, "a\nb\n")
}

fn mass_insertion(served: &Served) -> Result<(), Failed> {
    let mut input = String::new();
    for number in 0..10_000 {
        write!(input, "*3\r\n$3\r\nSET\r\n$9\r\nkey:{number:05}\r\n$5\r\n{number:05}\r\n")?;
    }
    let printed = program(served)?.arg("--pipe").input(input).run()?;
    contains(&printed, &["errors: 0, replies: 10000"])?;
    expect(&cli(served, &["dbsize"])?, "10000\n")?;
    let lines = "SET a \"quoted value\"\r\nGET a\r\n\r\nSADD b 1 2 3\r\n"; // the other form of requests
    contains(&program(served)?.arg("--pipe").input(lines).run()?, &["errors: 0, replies: 3"])
}

fn scan(served: &Served) -> Result<(), Failed> {
    fill(served, 2000)?;
    expect_lines(&cli(served, &["--scan"])?, 2000)?;
    expect_lines(&cli(served, &["--scan", "--pattern", "key:1???"])?, 1000)?;
    expect_lines(&cli(served, &["--scan", "--quoted-pattern", "\"none\\x00*\""])?, 0)
}

fn statistics(served: &Served) -> Result<(), Failed> {
    fill(served, 50)?;
    let printed =
        program(served)?.args(["--stat", "-i", "0.05"]).start()?.until(|printed| printed.lines().count() >= 5)?;
    // keys, mem, clients, blocked, requests, connections: the last two have their increase behind them.
    let row = printed.lines().nth(2).unwrap_or_default();
    let cells: Vec<_> = row.split_whitespace().collect();
    let is_row = cells.len() >= 6 && cells[0] == "50" && cells[1] != "0B" && cells[2] == "1" && cells[3] == "0";
    if is_row { Ok(()) } else { Err(format!("an odd row of statistics: {row:?} in\n{printed}").into()) }
}

fn big_keys(served: &Served) -> Result<(), Failed> {
    fill(served, 100)?;
    cli(served, &["rpush", "list", "a", "b", "c"])?;
    cli(served, &["hset", "hash", "a", "1", "b", "2"])?;
    cli(served, &["sadd", "set", "a", "b"])?;
    cli(served, &["zadd", "sorted set", "1", "a"])?;
    let printed = cli(served, &["--bigkeys"])?;
    let found = ["Sampled 104 keys", "\"list\"' has 3 items", "\"hash\"' has 2 fields", "\"set\"' has 2 members"];
    contains(&printed, &found)?;
    contains(&printed, &["\"sorted set\"' has 1 members", "100 strings with"])?;
    contains(&cli(served, &["--memkeys"])?, &["Sampled 104 keys", "1 lists with", "Biggest   hash found"])
}

fn latency(served: &Served) -> Result<(), Failed> {
    // Smallest, largest, average and number, once it is not shown on a terminal.
    let printed = cli(served, &["--latency", "-i", "0.2"])?;
    let numbers: Result<Vec<f64>, _> = printed.split_whitespace().map(str::parse).collect();
    match numbers.as_deref() {
        Ok([low, high, _, count]) if low <= high && *count > 0.0 => Ok(()),
        _ => Err(format!("an odd line of latencies: {printed:?}").into()),
    }
}

fn monitor(served: &Served) -> Result<(), Failed> {
    let monitor = program(served)?.arg("monitor").start()?;
    // The first commands may come before it listens.
    let printed = monitor.until(|printed| {
        cli(served, &["-n", "2", "set", "key", "a \"quoted\" value"]).is_ok() && printed.contains("quoted")
    })?;
    contains(&printed, &["OK\n", "[2 127.0.0.1:", "\"set\" \"key\" \"a \\\"quoted\\\" value\"\n"])
}

fn subscribe(served: &Served) -> Result<(), Failed> {
    let subscriber = program(served)?.args(["--csv", "psubscribe", "news.*"]).start()?;
    let printed = subscriber
        .until(|printed| cli(served, &["publish", "news.today", "sunny"]).is_ok() && printed.contains("sunny"))?;
    contains(&printed, &["\"psubscribe\",\"news.*\",1\n", "\"pmessage\",\"news.*\",\"news.today\",\"sunny\"\n"])
}

/// As `redis-benchmark -q -n 2000` names them.
const BENCHMARKS: [&str; 20] = [
    "PING_INLINE: ",
    "PING_MBULK: ",
    "SET: ",
    "GET: ",
    "INCR: ",
    "LPUSH: ",
    "RPUSH: ",
    "LPOP: ",
    "RPOP: ",
    "SADD: ",
    "HSET: ",
    "SPOP: ",
    "ZADD: ",
    "ZPOPMIN: ",
    "LPUSH (needed to benchmark LRANGE): ",
    "LRANGE_100 (first 100 elements): ",
    "LRANGE_300 (first 300 elements): ",
    "LRANGE_500 (first 500 elements): ",
    "LRANGE_600 (first 600 elements): ",
    "MSET (10 keys): ",
];

fn benchmark(served: &Served) -> Result<(), Failed> {
    let printed = measured(served, &["-n", "2000", "-q"])?;
    contains(&printed, &BENCHMARKS)
}

fn benchmark_pipelined(served: &Served) -> Result<(), Failed> {
    let printed = measured(served, &["-n", "4000", "-q", "-P", "16", "-r", "1000", "--threads", "2", "-3"])?;
    contains(&printed, &BENCHMARKS)
}

fn benchmark_own_command(served: &Served) -> Result<(), Failed> {
    let script = "return redis.call('incrby', KEYS[1], ARGV[1])";
    let printed = measured(served, &["-n", "2000", "-q", "eval", script, "1", "key", "2"])?;
    contains(&printed, &["eval return redis.call"])?;
    expect(&cli(served, &["get", "key"])?, "4000\n")
}

/// Runs a benchmark and returns its lines without the figures that it overwrites meanwhile.
///
/// # Errors
/// It fails, or complains of anything.
fn measured(served: &Served, args: &[&str]) -> Result<String, Failed> {
    let printed = Program::new("redis-benchmark", "redis-tools")?
        .args(["-h", &served.host(), "-p", &served.port().to_string()])
        .args(args)
        .run()?
        .replace('\r', "\n");
    let lower = printed.to_lowercase();
    if ["error", "warning", "could not", "err "].iter().any(|complaint| lower.contains(complaint)) {
        return Err(printed.into());
    }
    Ok(printed)
}

/// Puts in `count` keys of eight bytes.
fn fill(served: &Served, count: u32) -> Result<(), Failed> {
    let mut input = String::new();
    for number in 0..count {
        write!(input, "SET key:{number:04} value\r\n")?;
    }
    program(served)?.arg("--pipe").input(input).run().map(drop)
}

fn program(served: &Served) -> Result<Program, Failed> {
    let port = served.port().to_string();
    Ok(Program::new("redis-cli", "redis-tools")?.args(["-h", &served.host(), "-p", &port]))
}

fn cli(served: &Served, args: &[&str]) -> Result<String, Failed> {
    program(served)?.args(args).run()
}

fn expect(printed: &str, expected: &str) -> Result<(), Failed> {
    if printed == expected { Ok(()) } else { Err(format!("printed {printed:?} instead of {expected:?}").into()) }
}

fn expect_lines(printed: &str, expected: usize) -> Result<(), Failed> {
    let mut lines: Vec<_> = printed.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    if lines.len() == expected { Ok(()) } else { Err(format!("{} lines instead of {expected}", lines.len()).into()) }
}

fn contains(printed: &str, expected: &[&str]) -> Result<(), Failed> {
    match expected.iter().find(|part| !printed.contains(*part)) {
        None => Ok(()),
        Some(part) => Err(format!("{part:?} is not in what was printed:\n{printed}").into()),
    }
}
