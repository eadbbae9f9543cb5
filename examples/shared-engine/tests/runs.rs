//! The example does what it says, in one process and in two.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};

/// What both ways of running it have in common: each line comes after those that are listed before it in the same row.
const ORDERS: [&[&str]; 2] = [
    &[
        "a: holds the lock",
        "a: visit 1",
        "a: releases the lock",
        "a: delivers the mail \"ada\"",
        "a: a write with token",
    ],
    &[
        "b: the greeting reads \"good morning\"",
        "b: the lock is busy",
        "b: visit 2",
        "b: holds the lock",
        "b: has scheduled",
    ],
];

fn example(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shared-engine"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Ends with its test, also where that fails.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn printed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn token(text: &str, node: &str) -> u64 {
    let line = format!("{node}: holds the lock, token ");
    let found = text.lines().find_map(|printed| printed.strip_prefix(&line));
    found.unwrap_or_else(|| panic!("no {line:?} in\n{text}")).parse().expect("a number")
}

fn check(text: &str) {
    for order in ORDERS {
        let places: Vec<_> = order.iter().map(|line| text.find(line)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{order:?} is not the order of\n{text}");
    }
    assert!(token(text, "b") > token(text, "a"), "{text}");
    let refused = format!("a: a write with token {} is refused\n", token(text, "a"));
    assert!(text.contains(&refused), "{text}");
    assert!(text.contains("a: the report reads \"by b\"\n"), "{text}");
}

#[test]
fn two_tasks_share_everything() {
    check(&printed(&example(&[]).output().expect("the example starts")));
}

#[test]
fn two_processes_share_everything() {
    let mut a = Node(example(&["--node", "a", "127.0.0.1:0"]).spawn().expect("the example starts"));
    let mut lines = BufReader::new(a.0.stdout.take().expect("piped"));
    let mut text = String::new();
    lines.read_line(&mut text).expect("readable");
    let address = text.trim_end().strip_prefix("a: listens on ").expect("an address").to_owned();
    let b = printed(&example(&["--node", "b", &address]).output().expect("the example starts"));
    lines.read_to_string(&mut text).expect("readable");
    assert!(a.0.wait().expect("it ends").success(), "{text}");
    check(&(text + &b));
}

#[test]
fn odd_arguments_are_refused_with_the_usage() {
    let output = example(&["--node", "c"]).output().expect("the example starts");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--node a|b"));
}
