//! A drawing of a known history holds every call, and is a page that a browser reads.

use std::fs;

use acteon_faults::drawing::html;
use acteon_faults::history::Asked;
use acteon_faults::{Anomaly, History, Question, Rules, Told, judge, whole};
use acteon_state_conformance::history::Call;
use acteon_state_conformance::objects::{RegisterOperation, RegisterReply};
use acteon_state_core::StateKey;

const MS: u64 = 1_000_000;

fn call(
    process: u32,
    began_ms: u64,
    ended_ms: u64,
    operation: RegisterOperation,
    reply: RegisterReply,
) -> Call<Asked, Told> {
    Call::answered(began_ms * MS, ended_ms * MS, asked(process, operation), Told::Register(reply))
}

fn asked(process: u32, operation: RegisterOperation) -> Asked {
    let object = StateKey::new("faults", "tenant", "kind", "a<b>&\"c\"").expect("any text is an id");
    Asked { process, object, question: Question::Register(operation) }
}

/// A stale read between two processes that see the newer value, and a write of a third that nobody saw end.
fn known() -> History {
    use RegisterReply::{Found, Written};
    let get = RegisterOperation::Get;
    vec![
        call(0, 1, 3, RegisterOperation::set(1), Written),
        Call::maybe(2 * MS, asked(2, RegisterOperation::set(3))),
        call(0, 4, 7, RegisterOperation::set(2), Written),
        call(1, 5, 9, get, Found(Some(2))),
        call(0, 10, 11, get, Found(Some(1))),
        // The same process goes on although nobody knows of its write.
        call(2, 12, 14, get, Found(Some(2))),
    ]
}

/// The names of all elements, if each is closed in its turn.
fn elements(page: &str) -> Result<Vec<String>, String> {
    let (mut open, mut seen) = (Vec::new(), Vec::new());
    let mut rest = page.strip_prefix("<!DOCTYPE html>").ok_or("no document type")?;
    while let Some(at) = rest.find('<') {
        let end = rest[at..].find('>').ok_or("an element without an end")? + at;
        let tag = &rest[at + 1..end];
        if tag.matches('"').count() % 2 != 0 {
            return Err(format!("<{tag}>: a quote without an end"));
        }
        match tag.strip_prefix('/') {
            Some(name) if open.last().is_some_and(|last| last == name) => _ = open.pop(),
            Some(name) => return Err(format!("</{name}> within {open:?}")),
            None => {
                let name = tag.split([' ', '/']).next().unwrap_or_default().to_owned();
                seen.push(name.clone());
                if !tag.ends_with('/') {
                    open.push(name);
                }
            }
        }
        rest = &rest[end + 1..];
    }
    if open.is_empty() { Ok(seen) } else { Err(format!("not closed: {open:?}")) }
}

#[test]
fn every_call_of_a_history_is_drawn_with_its_label_on_the_line_of_its_process() {
    let page = html("a \"known\" history", &whole(&known()));
    let elements = elements(&page).unwrap();
    assert_eq!(elements.iter().filter(|name| *name == "rect").count(), 6);
    for label in ["put 1 → written", "put 2 → written", "put 3 → ?", "get → 1", "get → 2"] {
        assert!(page.contains(label), "{label} is missing in\n{page}");
    }
    for process in 0..3 {
        assert_eq!(page.matches(&format!(">process {process}<")).count(), 1, "{page}");
    }
    // The third process has a second line for what it did while its write was under way.
    assert_eq!(page.matches("class=\"lane\"").count(), 4);
    assert_eq!(page.matches("class=\"maybe\"").count(), 1);
    assert!(page.contains("a&lt;b&gt;&amp;&quot;c&quot;") && !page.contains("a<b>"), "{page}");
}

#[test]
fn bars_of_one_line_never_overlap_and_hold_their_labels() {
    let page = html("bars", &whole(&known()));
    let number = |tag: &str, name: &str| -> usize {
        let from = tag.find(&format!(" {name}=\"")).expect(name) + name.len() + 3;
        tag[from..].split('"').next().unwrap().parse().unwrap()
    };
    let mut bars: Vec<(usize, usize, usize)> =
        page.split("<rect ").skip(1).map(|tag| (number(tag, "y"), number(tag, "x"), number(tag, "width"))).collect();
    bars.sort_unstable();
    for pair in bars.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        assert!(pair[0].1 + pair[0].2 < pair[1].1, "{pair:?}");
    }
    // The shortest label has ten characters.
    assert!(bars.iter().all(|(_, _, width)| *width >= 80), "{bars:?}");
}

#[test]
fn a_contradiction_is_shrunk_to_its_calls_coloured_and_explained() {
    let report = judge(&known(), &Rules::default());
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!(finding.anomalies, [Anomaly::StaleRead]);
    // Both writes, and the reads that see them in the wrong order.
    assert_eq!(finding.counterexample.calls.len(), 4, "{}", finding.counterexample);
    let page = html(&finding.title(), &finding.counterexample);
    elements(&page).unwrap();
    assert_eq!(page.matches("class=\"bar-violating\"").count(), 1);
    assert!(page.contains("and then not: p0 get → 1"), "{page}");
    assert!(page.contains("put 2 → written: holds 2"), "{page}");
}

#[test]
fn the_message_of_a_failure_names_the_drawing() {
    let folder = tempfile::tempdir().unwrap();
    let message = judge(&known(), &Rules::default()).settle(7, folder.path()).unwrap_err();
    let path = folder.path().join("7-0-stale-read.html");
    assert!(message.contains(path.to_str().unwrap()) && message.contains("ACTEON_SEED=7"), "{message}");
    assert!(fs::read_to_string(path).unwrap().contains("stale read of register"));
}
