//! Starts that fail, each with one clear reason on stderr; and `check`.

use std::fs;
use std::net::TcpListener;

use crate::support::{Finished, folder, run, run_in};

/// It failed with this exit code, and stderr says all of this, without a debug dump.
fn assert_refused(finished: &Finished, parts: &[&str]) {
    let Finished { code, stderr, .. } = finished;
    assert_eq!(*code, Some(1), "{stderr}");
    assert!(stderr.starts_with("acteon-server: "), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{part:?} is not in:\n{stderr}");
    }
    for dump in ["panicked", "Error {", "Some(", "backtrace"] {
        assert!(!stderr.contains(dump), "{stderr}");
    }
}

#[test]
fn an_unknown_key_is_named_with_file_line_and_suggestion() {
    let finished = run("[server]\nport = 0\n[state]\nbackedn = \"memory\"\n", &[]);
    assert_refused(&finished, &["acteon.toml:4", "state.backedn", "did you mean `backend`"]);
}

#[test]
fn a_misspelt_variable_is_named() {
    let finished = run_in(folder("").path(), &[], &[("ACTEON__SERVER__PROT", "0")]);
    assert_refused(&finished, &["ACTEON__SERVER__PROT", "ACTEON__SERVER__PORT"]);
}

#[test]
fn a_backend_that_does_not_exist_is_named_with_those_that_do() {
    assert_refused(&run("[state]\nbackend = \"rediss\"\n", &[]), &["acteon.toml:2", "state.backend", "redis"]);
}

#[cfg(not(feature = "dynamodb"))]
#[test]
fn dynamodb_that_was_not_compiled_in_names_its_feature() {
    let finished = run("[state]\nbackend = \"dynamodb\"\nregion = \"eu-central-1\"\n", &[]);
    assert_refused(&finished, &["acteon.toml:2", "state.backend", "not compiled in", "--features dynamodb"]);
}

#[cfg(not(feature = "postgres"))]
#[test]
fn a_backend_that_was_not_compiled_in_is_named_with_its_feature() {
    let finished = run("[state]\nbackend = \"postgres\"\nurl = \"postgres://localhost\"\n", &[]);
    assert_refused(&finished, &["acteon.toml:2", "state.backend", "not compiled in", "--features postgres"]);
}

#[cfg(feature = "redis")]
#[test]
fn another_backend_than_memory_cannot_be_published() {
    let toml = "[state]\nbackend = \"redis\"\nurl = \"redis://127.0.0.1:1\"\n[engine]\nlisten = \"127.0.0.1:0\"\n";
    for arguments in [&[][..], &["engine"], &["check"]] {
        assert_refused(&run(toml, arguments), &["acteon.toml:5", "engine.listen", "backend is \"redis\""]);
    }
}

#[cfg(feature = "redis")]
#[test]
fn the_engine_alone_needs_the_backend_that_has_one() {
    let toml = "[state]\nbackend = \"redis\"\nurl = \"redis://127.0.0.1:1\"\n";
    assert_refused(&run(toml, &["engine"]), &["the engine cannot be run alone", "backend is \"redis\""]);
}

#[test]
fn an_address_of_the_command_line_is_checked_like_a_configured_one() {
    let finished = run("", &["engine", "--listen", "6380"]);
    assert_refused(&finished, &["--listen", "\"6380\" is no address; write host and port"]);
}

#[test]
fn an_engine_that_cannot_listen_says_where() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("free");
    let address = taken.local_addr().expect("bound").to_string();
    let finished = run("", &["engine", "--listen", &address]);
    assert_refused(&finished, &["the engine cannot listen", &address, "in use", "hint: "]);
}

#[test]
fn check_tells_where_the_engine_can_be_reached() {
    let finished = run("[engine]\nlisten = \"127.0.0.1:6380\"\n", &["check"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let said = "Engine for Redis clients: 127.0.0.1:6380\n  lets clients in from this machine only";
    assert!(finished.stdout.contains(said), "{}", finished.stdout);
}

#[test]
fn migrating_a_backend_without_tables_says_that_there_is_nothing_to_do() {
    for arguments in [&["migrate"][..], &["migrate", "--check"]] {
        let finished = run("", arguments);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        assert_eq!(finished.stdout, "state: memory has no schema; there is nothing to migrate\n");
    }
}

#[cfg(feature = "redis")]
#[test]
fn a_wrong_url_scheme_is_named_with_the_right_ones() {
    let finished = run("[state]\nbackend = \"redis\"\nurl = \"http://:hunter2@localhost:6379\"\n", &[]);
    assert_refused(&finished, &["acteon.toml:3", "state.url", "http", "there are redis, rediss"]);
    assert!(!finished.stderr.contains("hunter2"), "{}", finished.stderr);
}

#[cfg(feature = "redis")]
#[test]
fn an_unreachable_redis_is_reported_with_the_way_to_start_without_it() {
    let finished = run("[server]\nport = 0\n[state]\nbackend = \"redis\"\nurl = \"redis://127.0.0.1:1\"\n", &[]);
    assert_refused(&finished, &["127.0.0.1:1", "refused", "optional = true"]);
}

/// A server that takes connections and says nothing.
#[cfg(feature = "redis")]
#[test]
fn a_redis_that_does_not_answer_is_given_up_after_the_connect_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("free");
    let url = format!("redis://{}", silent.local_addr().expect("bound"));
    let toml = format!("[state]\nbackend = \"redis\"\nurl = \"{url}\"\n[state.redis]\nconnect_timeout = \"300ms\"\n");
    assert_refused(&run(&toml, &[]), &[&url, "no answer within 300ms", "optional = true"]);
}

#[cfg(feature = "redis")]
#[test]
fn check_fails_when_an_optional_backend_is_down() {
    let toml = "[state]\nbackend = \"redis\"\nurl = \"redis://127.0.0.1:1\"\noptional = true\n";
    let finished = run(toml, &["check"]);
    assert_refused(&finished, &["the backend does not answer", "the server would start"]);
    assert!(finished.stdout.contains("The configuration in force"), "what was found until then is shown");
}

#[cfg(feature = "redis")]
#[test]
fn an_optional_redis_that_is_down_does_not_stop_the_start() {
    let toml = "[server]\nport = 0\n[state]\nbackend = \"redis\"\nurl = \"redis://127.0.0.1:1\"\noptional = true\n";
    let mut server = crate::support::Process::start(toml, &[]);
    server.wait_for_log("acteon is listening, and connects to its backend in the background");
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait().success(), "{}", server.log());
}

#[test]
fn a_required_capability_that_is_missing_is_named() {
    let finished = run("[state]\nbackend = \"memory\"\nrequire = [\"durable\"]\n", &[]);
    assert_refused(&finished, &["acteon.toml:3", "durable", "memory"]);
}

#[test]
fn every_problem_of_the_rule_files_is_named() {
    let directory = folder("[server]\nport = 0\n");
    fs::write(directory.path().join("rules/a.yaml"), "rules:\n  - name: a\n    action: dney\n").expect("writable");
    fs::write(directory.path().join("rules/b.yaml"), "rules:\n  - nmae: b\n").expect("writable");
    let finished = run_in(directory.path(), &[], &[]);
    assert_refused(&finished, &["rules/a.yaml:3:", "allowed: allow, deny", "rules/b.yaml:2:", "nmae"]);
}

#[test]
fn a_rule_that_reroutes_to_nobody_is_named() {
    let directory = folder("[server]\nport = 0\n");
    let rule = "rules:\n  - name: elsewhere\n    action: { reroute: { provider: hooks } }\n";
    fs::write(directory.path().join("rules/a.yaml"), rule).expect("writable");
    let finished = run_in(directory.path(), &[], &[]);
    assert_refused(&finished, &["rules/a.yaml:2: rule elsewhere", "\"hooks\"", "there are the providers log"]);
}

#[test]
fn a_missing_rules_directory_is_explained() {
    let finished = run("[server]\nport = 0\n[rules]\ndirectory = \"./rulse\"\n", &[]);
    assert_refused(&finished, &["./rulse", "working directory", "[rules]"]);
}

#[test]
fn a_wrong_provider_is_named() {
    let finished = run("[[providers]]\nname = \"hook\"\nkind = \"webhook\"\n", &[]);
    assert_refused(&finished, &["provider `hook`", "url"]);
}

#[test]
fn a_port_in_use_is_explained() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = taken.local_addr().expect("address").port().to_string();
    let finished = run("", &["--port", &port]);
    assert_refused(&finished, &["cannot listen on 127.0.0.1 port", &port, "--port"]);
}

#[test]
fn a_missing_configuration_file_is_named() {
    assert_refused(&run("", &["-c", "nowhere.toml"]), &["nowhere.toml"]);
}

#[test]
fn wrong_arguments_are_code_2_and_help_shows_examples() {
    assert_eq!(run("", &["--prot", "1"]).code, Some(2));
    let help = run("", &["--help"]);
    assert_eq!(help.code, Some(0));
    for part in ["Examples:", "check", "ACTEON__", "SIGHUP", "Exit codes"] {
        assert!(help.stdout.contains(part), "{}", help.stdout);
    }
    let version = run("", &["--version"]);
    assert_eq!(version.stdout, concat!("acteon-server ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn check_shows_what_is_in_force_without_secrets_and_what_locks_guarantee() {
    let toml = "[server]\nport = 0\n[[providers]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"http://u:hunter2@localhost\"\n\
                signing_secret = \"hunter2\"\n";
    let directory = folder(toml);
    fs::write(directory.path().join("rules/a.yaml"), "rules: [{ name: quiet, action: suppress }]").expect("writable");
    let finished = run_in(directory.path(), &["check"], &[("ACTEON__SERVER__LOG_FORMAT", "json")]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    for part in [
        "(acteon.toml, environment",
        "log_format = \"json\"",
        "signing_secret = \"***\"",
        "Rules in ./rules (1)",
        "quiet",
        "hook (webhook)",
        "Backend: memory",
        "fencing",
        "Locks: ",
        "survives server crash:",
        "Everything is in order",
    ] {
        assert!(finished.stdout.contains(part), "{part:?} is not in:\n{}", finished.stdout);
    }
    assert!(!finished.stdout.contains("hunter2"), "{}", finished.stdout);
}

#[test]
fn a_server_that_others_can_reach_says_so_loudly() {
    let mut server = crate::support::Process::start("[server]\nport = 0\n", &["--host", "0.0.0.0"]);
    server.wait_for_log("OTHER MACHINES CAN REACH THIS SERVER");
}
