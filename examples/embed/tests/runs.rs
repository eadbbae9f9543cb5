//! The example does what it says.

use std::process::Command;

#[test]
fn three_of_four_jobs_run_and_none_runs_twice() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embed"));
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ACTEON__")) {
        command.env_remove(variable);
    }
    let output = command.output().expect("the example starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let count = |outcome: &str| text.lines().filter(|line| line.ends_with(outcome)).count();
    assert_eq!(count("Done"), 3, "{text}");
    assert_eq!(count("Duplicate") + count("TooMany"), 2, "{text}");
}

#[test]
fn a_misspelt_variable_stops_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_embed")).env("ACTEON__STATE__BAKEND", "redis").output();
    let output = output.expect("the example starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(text.contains("ACTEON__STATE__BAKEND") && text.contains("ACTEON__STATE__BACKEND"), "{text}");
}

#[test]
fn it_stays_short() {
    assert!(include_str!("../src/main.rs").lines().count() < 60);
}
