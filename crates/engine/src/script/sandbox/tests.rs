//! The sandbox and its libraries against what redis-server 7.0.15 answered to the same scripts.
//!
//! The files in `library/tests` hold blocks: the script's lines, then lines that start with `= `, one per line of the answer.
//! Answers are rendered by `render` in `library/tests/render.lua`, on both sides.

use mlua::{Function, Lua, Value};

use super::{Environment, Failure, Unbounded, new_lua, set_global};
use crate::script::raise::Thrown;

const RENDER: &str = include_str!("../library/tests/render.lua");

fn environment(lua: &Lua) -> Environment {
    Environment::of(lua).expect("a sandboxed interpreter")
}

fn call(lua: &Lua, function: &Function) -> Result<Value, Failure> {
    let environment = environment(lua);
    environment.keep(1, function).expect("kept");
    let (keys, args) = (lua.create_table().expect("a table"), lua.create_table().expect("a table"));
    environment.call(1, &keys, &args).expect("the interpreter works")
}

/// What `snippet` gives, as the recorded answers spell it.
fn answer(lua: &Lua, snippet: &str) -> String {
    environment(lua).clean().expect("a clean start");
    let script = RENDER.replace("--SNIPPET--", snippet);
    let function = lua.load(script).set_name("@user_script").into_function().expect("the snippet compiles");
    match call(lua, &function) {
        Ok(Value::String(text)) => text.to_string_lossy(),
        other => panic!("no text from {snippet}: {other:?}"),
    }
}

fn check(recorded: &str) {
    let lua = new_lua().expect("an interpreter");
    let mut differences = Vec::new();
    let mut count = 0;
    for block in recorded.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let (expected, snippet): (Vec<&str>, Vec<&str>) = block.lines().partition(|line| line.starts_with("= "));
        let expected: Vec<&str> = expected.iter().map(|line| &line[2..]).collect();
        let (snippet, expected) = (snippet.join("\n"), expected.join("\n"));
        let got = answer(&lua, &snippet);
        if got != expected {
            differences.push(format!("{snippet}\n  redis: {expected}\n  here:  {got}"));
        }
        count += 1;
    }
    assert!(count > 10, "the file holds snippets");
    assert!(differences.is_empty(), "{} of {count} differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn cjson_answers_as_redis_does() {
    check(include_str!("../library/tests/cjson.txt"));
}

#[test]
fn cmsgpack_answers_as_redis_does() {
    check(include_str!("../library/tests/cmsgpack.txt"));
}

#[test]
fn struct_answers_as_redis_does() {
    check(include_str!("../library/tests/struct.txt"));
}

#[test]
fn bit_answers_as_redis_does() {
    check(include_str!("../library/tests/bit.txt"));
}

#[test]
fn patterns_and_unpack_answer_as_redis_does() {
    check(include_str!("../library/tests/strings.txt"));
}

#[test]
fn the_sandbox_answers_as_redis_does() {
    check(include_str!("../library/tests/sandbox.txt"));
}

#[test]
fn an_uncaught_error_tells_its_line() {
    let lua = new_lua().expect("an interpreter");
    let function =
        lua.load("local a = 1\nreturn cjson.decode('x')").set_name("@user_script").into_function().expect("compiles");
    let failure = call(&lua, &function).expect_err("not JSON");
    assert_eq!((failure.source.as_deref(), failure.line), (Some("@user_script"), Some(2)));
    let Value::String(text) = failure.error else { panic!("a text") };
    assert_eq!(text.to_string_lossy(), "user_script:2: Expected value but found invalid token at character 1");
}

#[test]
fn what_a_script_puts_into_a_library_is_gone_for_the_next() {
    let lua = new_lua().expect("an interpreter");
    let function = lua.load("table.insert(string, 'x')").into_function().expect("compiles");
    call(&lua, &function).expect("no error");
    environment(&lua).clean().expect("a clean start");
    let function = lua.load("return string[1]").into_function().expect("compiles");
    assert!(call(&lua, &function).expect("no error").is_nil());
}

#[test]
fn any_number_of_searches_can_be_under_way_and_leaves_nothing_behind() {
    // Each held two of the 8,000 values that Rust may have of an interpreter, until it was collected.
    let lua = new_lua().expect("an interpreter");
    let search = "local found = {} for i = 1, 9000 do found[i] = string.gmatch('a' .. i, '%d+') end
        local sum = 0 for i = 1, 9000 do sum = sum + found[i]() end return sum";
    assert_eq!(answer(&lua, search), "n:40504500");
    lua.gc_stop();
    for _ in 0..3 {
        assert_eq!(answer(&lua, search), "n:40504500");
    }
    assert_eq!(
        answer(&lua, "local t = {} for i = 1, 7900 do t[i] = 't' .. i end return select('#', unpack(t))"),
        "n:7900"
    );
    lua.gc_restart();
    // Together more than an interpreter may hold.
    let script =
        "local n = 0 for i = 1, 1000 do n = n + string.gmatch(i .. string.rep('ab', 500000), '%d+')() end return n";
    assert_eq!(answer(&lua, script), "n:500500", "long texts are given back");
}

#[test]
fn a_script_that_fills_the_memory_gets_an_error_and_the_interpreter_lives() {
    let lua = new_lua().expect("an interpreter");
    lua.set_memory_limit(4 * 1024 * 1024).expect("a limit");
    let function = lua.load("local t = {} while true do t[#t + 1] = #t .. 'x' end").into_function().expect("compiles");
    let failure = call(&lua, &function).expect_err("no memory");
    let Value::String(text) = failure.error else { panic!("a text") };
    assert_eq!(text.to_string_lossy(), "not enough memory");
    assert_eq!(answer(&lua, "return 1"), "n:1");
}

#[test]
fn the_bound_is_lifted_for_small_work_and_until_it_ends() {
    let lua = new_lua().expect("an interpreter");
    let bound = 4 << 20;
    lua.set_memory_limit(bound).expect("a limit");
    let too_much = vec![0; bound];
    assert!(Unbounded::for_bytes(&lua, too_much.len()).is_none(), "that is no small work");
    assert!(lua.create_string(&too_much).is_err());
    let outer = Unbounded::for_bytes(&lua, 10).expect("small");
    drop(Unbounded::for_bytes(&lua, 10));
    assert!(lua.create_string(&too_much).is_ok(), "the inner one gives back what it has found");
    drop(outer);
    lua.gc_collect().expect("collected");
    assert!(lua.create_string(&too_much).is_err());
}

#[test]
fn a_pattern_that_nests_too_deep_is_an_error() {
    let lua = new_lua().expect("an interpreter");
    for item in ["a?", "a-", "a*", "(a"] {
        let snippet = format!("return string.find(string.rep('a', 1000000), string.rep('{item}', 1000000) .. 'b')");
        assert!(answer(&lua, &snippet).starts_with("error s:\"user_script:26: "), "{item}");
    }
}

#[test]
fn what_ends_a_run_is_not_caught() {
    let lua = new_lua().expect("an interpreter");
    let over = lua.create_function(|_, ()| -> mlua::Result<()> { Err(Thrown::Over.into()) }).expect("a function");
    set_global(&lua, "over", over).expect("set");
    for script in [
        "pcall(over)",
        "xpcall(over, function() end)",
        "coroutine.resume(coroutine.create(function() over() end))",
        "pcall(coroutine.wrap(function() pcall(over) end))",
        "pcall(string.gsub, 'a', 'a', over)",
        "pcall(load, over)",
        "pcall(table.sort, {2, 1}, over)",
    ] {
        let function = lua.load(format!("{script} return 'went on'")).into_function().expect("compiles");
        let failure = call(&lua, &function).expect_err(script);
        assert!(matches!(failure.error, Value::Table(_)), "{script}: {:?}", failure.error);
    }
}

#[test]
fn depth_is_bounded_whatever_the_options_say() {
    let lua = new_lua().expect("an interpreter");
    let script = "cjson.decode_max_depth(2147483647) cjson.encode_max_depth(2147483647)
        local t = 1 for i = 1, 100000 do t = {t} end
        return tostring(pcall(cjson.decode, string.rep('[', 100000))) .. tostring(pcall(cjson.encode, t))
            .. tostring(pcall(cmsgpack.unpack, string.rep('\\145', 100000)))";
    let function = lua.load(script).into_function().expect("compiles");
    let Ok(Value::String(text)) = call(&lua, &function) else { panic!("a text") };
    assert_eq!(text.to_string_lossy(), "falsefalsefalse");
}
