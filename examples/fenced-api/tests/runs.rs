//! The example does what it says.

use std::process::Command;

#[test]
fn the_late_write_is_refused_and_the_other_one_is_kept() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fenced-api"));
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ACTEON__")) {
        command.env_remove(variable);
    }
    let output = command.output().expect("the example starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let position =
        |line: &str| text.lines().position(|shown| shown == line).unwrap_or_else(|| panic!("no {line:?} in {text}"));
    assert!(position("A writes: 409 Conflict") < position("B writes: 204 No Content"), "{text}");
    assert!(text.ends_with("the page: a line of B\n"), "{text}");
}
