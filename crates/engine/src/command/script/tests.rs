//! What scripts hold, how they end, and what others notice of them. Replies are compared with a real Redis elsewhere.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::command::look_up;
use crate::instance::{Need, Session};
use crate::script::sha_of;
use crate::{Client, ClientOptions, Engine, EngineConfig, Flow, Instance, InstanceConfig};

fn instance() -> Arc<Instance> {
    instance_of(16)
}

fn instance_of(segments: usize) -> Arc<Instance> {
    Instance::new(Engine::new(EngineConfig { segments, ..EngineConfig::default() }), InstanceConfig::default())
}

fn connect(instance: &Arc<Instance>) -> Client {
    Client::connect(instance, ClientOptions::default())
}

/// The reply, after as many attempts as it takes.
fn send(client: &mut Client, args: &[&str]) -> String {
    let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
    let mut out = Vec::new();
    while client.execute(&args, 1_000_000, &mut out) == Flow::Retry {
        thread::sleep(Duration::from_millis(1));
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether a run of this script with one key would hold that key alone.
fn holds_its_key_only(instance: &Arc<Instance>, script: &str) -> bool {
    let sha = sha_of(script.as_bytes());
    let args: [&[u8]; 4] = [b"EVALSHA", &sha, b"1", b"k"];
    let command = look_up(&args).expect("it exists");
    let session = Session::new(instance.peers.join(ClientOptions::default()), instance.limits(), 7);
    match Need::of(instance, &session, &command, &args) {
        Need::Places(places) => places.len() == 1,
        Need::Databases(_) | Need::Everything => false,
    }
}

/// Uses the keys that it declares, and those among its arguments: before its write, or after it.
const BEFORE: &str = "for _, key in ipairs(ARGV) do redis.call('GET', key) end return redis.call('INCR', KEYS[1])";
const AFTER: &str =
    "local n = redis.call('INCR', KEYS[1]) for _, key in ipairs(ARGV) do redis.call('INCR', key) end return n";

#[test]
fn a_script_that_keeps_to_its_keys_holds_only_these_from_its_second_run_on() {
    let instance = instance();
    let mut client = connect(&instance);
    assert_eq!(send(&mut client, &["EVAL", BEFORE, "1", "k"]), ":1\r\n");
    assert!(holds_its_key_only(&instance, BEFORE));
}

#[test]
fn an_undeclared_key_beside_a_declared_one_counts_as_undeclared() {
    // With one segment all keys are in the same one.
    let instance = instance_of(1);
    let mut client = connect(&instance);
    assert_eq!(send(&mut client, &["EVAL", AFTER, "1", "k", "beside"]), ":1\r\n");
    assert!(!holds_its_key_only(&instance, AFTER));
}

#[test]
fn a_script_that_has_only_read_holds_all_when_it_writes_for_the_first_time() {
    const MAYBE: &str = "if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end redis.call('INCR', KEYS[1]) return redis.call('DBSIZE')";
    let instance = instance();
    let mut client = connect(&instance);
    assert_eq!(send(&mut client, &["EVAL", MAYBE, "1", "k"]), ":0\r\n");
    assert!(holds_its_key_only(&instance, MAYBE));
    send(&mut client, &["SET", "k", "1"]);
    let attempts = |instance: &Arc<Instance>| send(&mut connect(instance), &["INFO", "commandstats"]);
    assert!(attempts(&instance).contains("cmdstat_exists:calls=1,"));
    assert_eq!(send(&mut client, &["EVAL", MAYBE, "1", "k"]), ":1\r\n");
    assert!(attempts(&instance).contains("cmdstat_exists:calls=3,"), "it looked, began again, and looked once more");
    assert!(!holds_its_key_only(&instance, MAYBE));
}

#[test]
fn a_script_that_meets_another_key_before_it_writes_begins_again_and_holds_all() {
    let instance = instance();
    let mut client = connect(&instance);
    send(&mut client, &["EVAL", BEFORE, "1", "k"]);
    let others: Vec<String> = (0..50).map(|number| format!("other:{number}")).collect();
    let mut args = vec!["EVAL", BEFORE, "1", "k"];
    args.extend(others.iter().map(String::as_str));
    assert_eq!(send(&mut client, &args), ":2\r\n", "one run counts");
    assert!(!holds_its_key_only(&instance, BEFORE));
    assert_eq!(send(&mut client, &args), ":3\r\n");
}

#[test]
fn a_script_that_begins_again_is_shown_once_with_all_that_it_calls() {
    let instance = instance();
    let (mut client, mut monitor) = (connect(&instance), connect(&instance));
    let script = "redis.call('GET', KEYS[1]) for _, key in ipairs(ARGV) do redis.call('GET', key) end return 1";
    send(&mut client, &["EVAL", script, "1", "k"]);
    assert_eq!(send(&mut monitor, &["MONITOR"]), "+OK\r\n");
    let others: Vec<String> = (0..50).map(|number| format!("other:{number}")).collect();
    let mut args = vec!["EVAL", script, "1", "k"];
    args.extend(others.iter().map(String::as_str));
    for run in ["begun again", "holding all from the beginning"] {
        send(&mut client, &args);
        let mut lines = Vec::new();
        monitor.receive(&mut lines);
        let lines = String::from_utf8(lines).expect("text");
        let names: Vec<&str> = lines.lines().filter_map(|line| line.split('"').nth(1)).collect();
        assert_eq!((names[0], names.len()), ("EVAL", 52), "{run}");
        assert!(lines.lines().skip(2).zip(&others).all(|(line, key)| line.ends_with(&format!("\"{key}\""))), "{run}");
    }
    assert!(!holds_its_key_only(&instance, script));
}

/// The longest list of texts that a script can pass on to a command.
fn passed_on_max(client: &mut Client) -> usize {
    let script =
        "local texts = {} for i = 1, ARGV[1] do texts[i] = 'k' .. i end return redis.call('DEL', unpack(texts))";
    let passes =
        |client: &mut Client, count: usize| send(client, &["EVAL", script, "0", &count.to_string()]) == ":0\r\n";
    let (mut low, mut high) = (1, 8_000);
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if passes(client, middle) { low = middle } else { high = middle }
    }
    low
}

#[test]
fn a_script_can_pass_on_as_much_whatever_ran_before_it() {
    let instance = instance();
    let mut client = connect(&instance);
    let when_new = passed_on_max(&mut client);
    // What the documentation promises.
    assert!(when_new >= 7_960, "{when_new}");
    for number in 0..1_100 {
        assert_eq!(send(&mut client, &["EVAL", &format!("return {number}"), "0"]), format!(":{number}\r\n"));
        if number % 350 == 0 {
            assert_eq!(passed_on_max(&mut client), when_new, "after {number} others");
        }
    }
    assert_eq!(send(&mut client, &["EVAL", "return 5", "0"]), ":5\r\n", "it was forgotten and is compiled anew");
}

#[test]
fn a_script_that_catches_all_errors_begins_again_nevertheless() {
    let instance = instance();
    let mut client = connect(&instance);
    let script = "for _, key in ipairs(ARGV) do while not pcall(redis.call, 'GET', key) do end end return redis.call('INCR', KEYS[1])";
    send(&mut client, &["EVAL", script, "1", "k"]);
    let others: Vec<String> = (0..50).map(|number| format!("other:{number}")).collect();
    let mut args = vec!["EVAL", script, "1", "k"];
    args.extend(others.iter().map(String::as_str));
    assert_eq!(send(&mut client, &args), ":2\r\n");
}

#[test]
fn a_script_that_has_written_takes_further_keys_as_it_meets_them() {
    let instance = instance();
    let mut client = connect(&instance);
    send(&mut client, &["EVAL", AFTER, "1", "k"]);
    let others: Vec<String> = (0..50).map(|number| format!("other:{number}")).collect();
    let mut args = vec!["EVAL", AFTER, "1", "k"];
    args.extend(others.iter().map(String::as_str));
    assert_eq!(send(&mut client, &args), ":2\r\n");
    assert_eq!(send(&mut client, &["GET", "other:49"]), "$1\r\n1\r\n");
    assert!(!holds_its_key_only(&instance, AFTER));
}

#[test]
fn a_script_in_a_transaction_takes_further_keys_instead_of_beginning_again() {
    let instance = instance();
    let mut client = connect(&instance);
    send(&mut client, &["EVAL", BEFORE, "1", "k"]);
    send(&mut client, &["MULTI"]);
    send(&mut client, &["INCR", "k"]);
    let others: Vec<String> = (0..50).map(|number| format!("other:{number}")).collect();
    let mut args = vec!["EVAL", BEFORE, "1", "k"];
    args.extend(others.iter().map(String::as_str));
    assert_eq!(send(&mut client, &args), "+QUEUED\r\n");
    assert_eq!(send(&mut client, &["EXEC"]), "*2\r\n:2\r\n:3\r\n");
}

#[test]
fn a_script_reaches_other_databases_and_whole_ones_and_returns_to_its_own() {
    let instance = instance();
    let mut client = connect(&instance);
    let script = "redis.call('SET', KEYS[1], 1) redis.call('SELECT', 3) redis.call('SET', 'there', 1)
        local n = redis.call('DBSIZE') redis.call('FLUSHALL') return {n, redis.call('DBSIZE')}";
    for _ in 0..2 {
        assert_eq!(send(&mut client, &["EVAL", script, "1", "k"]), "*2\r\n:1\r\n:0\r\n");
        assert_eq!(send(&mut client, &["SET", "here", "1"]), "+OK\r\n");
        assert_eq!(send(&mut client, &["DBSIZE"]), ":1\r\n");
    }
}

#[test]
fn many_threads_count_by_scripts_without_losing_one() {
    const THREADS: usize = 4;
    const RUNS: usize = 200;
    let instance = instance();
    let workers: Vec<_> = (0..THREADS)
        .map(|number| {
            let mut client = connect(&instance);
            thread::spawn(move || {
                for run in 0..RUNS {
                    // Some meet undeclared keys, before and after they have written.
                    let key = format!("mine:{number}:{run}");
                    let script = if run % 7 == 0 { BEFORE } else { AFTER };
                    let reply = send(&mut client, &["EVAL", script, "1", "count", &key]);
                    assert!(reply.starts_with(':'), "{reply}");
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
    let expected = (THREADS * RUNS).to_string();
    let reply = send(&mut connect(&instance), &["GET", "count"]);
    assert_eq!(reply, format!("${}\r\n{expected}\r\n", expected.len()));
}

/// Runs `script` on another thread until others are told that it is in their way; then asks for its end.
fn kill(script: &'static str) -> (String, String) {
    let instance = instance();
    instance.scripts.overseer.set_busy_after_ms(5);
    let mut client = connect(&instance);
    assert!(send(&mut client, &["SCRIPT", "KILL"]).starts_with("-NOTBUSY "));
    let mut runner = connect(&instance);
    let runs = thread::spawn(move || send(&mut runner, &["EVAL", script, "1", "k"]));
    // The first run of a script holds its whole database.
    let busy = "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n";
    while send(&mut client, &["GET", "elsewhere"]) != busy {
        thread::yield_now();
    }
    let killed = send(&mut client, &["SCRIPT", "KILL"]);
    let reply = runs.join().expect("no panic");
    assert_eq!(send(&mut client, &["GET", "elsewhere"]), "$-1\r\n");
    (killed, reply)
}

#[test]
fn a_script_without_end_is_ended_wherever_it_is_and_whatever_it_catches() {
    for script in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "return coroutine.wrap(function() while true do pcall(function() while true do end end) end end)()",
        "return (string.gsub('x', 'x', function() while true do end end))",
        "while true do pcall(redis.call, 'GET', KEYS[1]) end",
    ] {
        let (killed, reply) = kill(script);
        assert_eq!(killed, "+OK\r\n", "{script}");
        assert!(reply.starts_with("-ERR Script killed by user with SCRIPT KILL... script: "), "{script}: {reply}");
    }
}

#[test]
fn a_script_that_has_written_is_not_ended() {
    let (killed, reply) = kill("redis.call('SET', KEYS[1], 1) local n = 0 while n < 2e7 do n = n + 1 end return n");
    assert!(killed.starts_with("-UNKILLABLE "), "{killed}");
    assert_eq!(reply, ":20000000\r\n");
}

#[test]
fn the_end_of_the_server_ends_a_script_that_has_written() {
    let instance = instance();
    let mut runner = connect(&instance);
    let script = "redis.call('SET', KEYS[1], 1) while true do end";
    let runs = thread::spawn(move || send(&mut runner, &["EVAL", script, "1", "k"]));
    while !instance.scripts.overseer.any_long() {
        thread::yield_now();
    }
    instance.end_scripts();
    assert!(runs.join().expect("no panic").starts_with("-ERR Script killed by user with SCRIPT KILL"));
    assert_eq!(send(&mut connect(&instance), &["EVAL", "return redis.call('GET', KEYS[1])", "1", "k"]), "$1\r\n1\r\n");
}

#[test]
fn only_unknown_and_slow_scripts_may_take_long() {
    let instance = instance();
    let mut client = connect(&instance);
    let may_take_long = |client: &Client, args: &[&str]| {
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        client.may_take_long(&args)
    };
    assert!(!may_take_long(&client, &["GET", "k"]));
    assert!(may_take_long(&client, &["eval", "return 1", "0"]));
    send(&mut client, &["EVAL", "return 1", "0"]);
    assert!(!may_take_long(&client, &["eval", "return 1", "0"]));
    send(&mut client, &["MULTI"]);
    send(&mut client, &["EVAL", "return 2", "0"]);
    assert!(!may_take_long(&client, &["PING"]));
    assert!(may_take_long(&client, &["EXEC"]));
}

#[test]
fn a_script_that_fills_its_memory_ends_and_others_run() {
    let instance = instance();
    let mut client = connect(&instance);
    let reply =
        send(&mut client, &["EVAL", "local t = {} for i = 1, 1e9 do t[i] = string.rep('x', 1e6) .. i end", "0"]);
    assert!(reply.contains("not enough memory"), "{reply}");
    assert_eq!(send(&mut client, &["EVAL", "return 1", "0"]), ":1\r\n");
}

/// Redis finds it among the flags of the command before it looks at the script, so it is the text of all commands.
#[test]
fn a_script_that_may_write_does_not_begin_when_the_memory_is_full() {
    let config = EngineConfig { segments: 1, memory_bytes_max: Some(4_000), ..EngineConfig::default() };
    let instance = Instance::new(Engine::new(config), InstanceConfig::default());
    let mut client = connect(&instance);
    let refused = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    assert!((0..1_000).any(|number| send(&mut client, &["SET", &format!("key:{number}"), "value"]) == refused));
    // A list takes the rest.
    assert!((0..1_000).any(|_| send(&mut client, &["RPUSH", "grows", "12345678"]) == refused));
    for command in ["EVAL", "EVAL_RO"] {
        assert_eq!(send(&mut client, &[command, "#!lua\nreturn 1", "0"]), refused);
        assert_eq!(send(&mut client, &[command, "#!lua flags=no-writes\nreturn 1", "0"]), ":1\r\n");
    }
    assert_eq!(send(&mut client, &["EVAL", "#!lua flags=allow-oom\nreturn 1", "0"]), ":1\r\n");
    assert_eq!(send(&mut client, &["EVAL", "return 1", "0"]), ":1\r\n");
    let pushed = send(&mut client, &["EVAL", "return redis.call('LPUSH', 'list', 'x')", "0"]);
    assert!(pushed.starts_with("-OOM command not allowed when used memory > 'maxmemory'. script: "), "{pushed}");
    assert_eq!(
        send(&mut client, &["EVAL", "redis.call('DEL', 'key:0') return redis.call('LPUSH', 'list', 'x')", "0"]),
        ":1\r\n"
    );
}

#[test]
fn an_error_counts_once_however_a_script_passes_it_on() {
    // As redis-server 7.0.15 counts: errors in all, by code, and failures of EVAL.
    let cases = [
        ("return redis.call('INCR', 's')", 1, "ERR", 1),
        ("return redis.pcall('INCR', 's')", 1, "ERR", 1),
        ("redis.pcall('INCR', 's') return 1", 1, "ERR", 0),
        ("return redis.error_reply('MY error')", 1, "MY", 1),
        ("return {1, {err='MY error'}}", 1, "MY", 1),
        ("error('by itself')", 1, "ERR", 1),
        ("return redis.call('nosuch')", 1, "ERR", 1),
        ("local r = redis.pcall('INCR', 's') return redis.error_reply(r.err)", 2, "ERR", 1),
        ("local r = redis.pcall('INCR', 's') error(r)", 1, "ERR", 1),
        ("return 1", 0, "ERR", 0),
    ];
    for (script, errors, code, failures) in cases {
        let instance = instance();
        let mut client = connect(&instance);
        send(&mut client, &["SET", "s", "text"]);
        send(&mut client, &["EVAL", script, "0"]);
        let eval = look_up(&[b"EVAL"]).expect("it exists");
        assert_eq!(instance.stats.totals().errors, errors, "{script}");
        assert_eq!(instance.stats.errors().get(code).copied().unwrap_or(0), errors, "{script}");
        assert_eq!(instance.stats.command(eval.number).failed, failures, "{script}");
    }
}

#[test]
fn pause_of_writes_holds_scripts_that_may_write() {
    let instance = instance();
    let mut client = connect(&instance);
    send(&mut client, &["CLIENT", "PAUSE", "10000", "WRITE"]);
    let no_writes = "#!lua flags=no-writes\nreturn 1";
    for (args, is_held) in [
        (["EVAL", "return 1", "0"], true),
        (["EVALSHA", "0000000000000000000000000000000000000000", "0"], true),
        (["EVAL_RO", "return 1", "0"], false),
        (["EVAL", no_writes, "0"], false),
    ] {
        let args = args.map(str::as_bytes);
        let flow = client.execute(&args, 1_000_000, &mut Vec::new());
        assert_eq!(flow == Flow::Retry, is_held, "{}", String::from_utf8_lossy(args[1]));
    }
}

#[test]
fn what_a_script_puts_into_a_library_is_gone_however_it_came_by_the_function() {
    let instance = instance();
    let mut client = connect(&instance);
    for way in [
        "table.insert(string, 'left')",
        "_G['ta' .. 'ble']['insert'](string, 'left')",
        "for name, value in pairs(_G) do if name == 'ta' .. 'ble' then value.insert(string, 'left') end end",
        "load(function() if not done then done = 1 end return nil end) loadstring('ta' .. 'ble.insert(string, 1)')()",
        "local f = loadstring('return ta' .. 'ble') f().insert(string, 7, 'left')",
        "local m = getmetatable(_G) for _, t in pairs(m) do if type(t) == 'ta' .. 'ble' then t[1] = 1 end end",
    ] {
        send(&mut client, &["EVAL", way, "0"]);
        let left = send(&mut client, &["EVAL", "return {string[1] or 0, string[7] or 0, redis[1] or 0}", "0"]);
        assert_eq!(left, "*3\r\n:0\r\n:0\r\n:0\r\n", "{way}");
    }
}

#[test]
fn a_command_is_found_however_a_script_writes_its_name() {
    let instance = instance();
    let mut client = connect(&instance);
    let script = "local names = {'incr', 'INCR', 'Incr', 'in' .. 'cr', 'nosuch', 'incr'} local found = {}
        for i = 1, #names do
            local reply = redis.pcall(names[i], KEYS[1])
            found[i] = type(reply) == 'table' and 'none' or reply
        end
        return found";
    let replies = |from: usize| {
        let counted: String = (from..from + 4).map(|count| format!(":{count}\r\n")).collect();
        format!("*6\r\n{counted}$4\r\nnone\r\n:{}\r\n", from + 4)
    };
    assert_eq!(send(&mut client, &["EVAL", script, "1", "k"]), replies(1));
    assert_eq!(send(&mut client, &["EVAL", script, "1", "k"]), replies(6));
    let object = "return {redis.call('OBJECT', 'ENCODING', KEYS[1]), redis.call('object', 'encoding', KEYS[1])}";
    assert_eq!(send(&mut client, &["EVAL", object, "1", "k"]), "*2\r\n$3\r\nint\r\n$3\r\nint\r\n");
}

#[test]
fn replies_that_a_script_keeps_count_as_its_memory() {
    let instance = instance();
    let mut client = connect(&instance);
    send(&mut client, &["SET", "k", &"x".repeat(60_000)]);
    // Nothing but the replies takes memory between two powers of two.
    let keeps = "local kept = {} for i = 1, 1e5 do kept[i] = redis.call('GETRANGE', KEYS[1], i, -1) \
                 if i == 12000 then return 'more than may be' end end";
    let reply = send(&mut client, &["EVAL", keeps, "1", "k"]);
    assert!(reply.contains("not enough memory"), "{reply}");
}
