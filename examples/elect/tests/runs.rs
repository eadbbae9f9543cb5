//! The example does what it says.

use std::collections::HashSet;
use std::process::Command;

#[test]
fn each_node_leads_once_and_terms_rise() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_elect"));
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ACTEON__")) {
        command.env_remove(variable);
    }
    let output = command.output().expect("the example starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(" leads, term ")).collect();
    let nodes: HashSet<&str> = lines.iter().map(|(node, _)| *node).collect();
    assert_eq!((lines.len(), nodes.len()), (3, 3), "{text}");
    let terms = lines.iter().map(|(_, term)| term.parse::<u64>().expect("a number"));
    assert!(terms.is_sorted_by(|a, b| a < b), "{text}");
}
