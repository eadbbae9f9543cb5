//! A history on disk, line by line as it happens: what a process leaves that may be killed at any moment.
//!
//! # Guarantees
//! The line that says that a call began is written before the call is made, and the one that says how it ended after that. So of a
//! process that was killed, or stopped for a while, everything is known that it asked: what it did not live to see answered may have happened.
//! Moments are nanoseconds of the machine's monotonic clock, so logs of several processes of one machine make one history.
//!
//! # Failure
//! A log that cannot be written ends its process: a history with holes proves nothing. A last line that was torn counts as not written.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use acteon_state_conformance::history::Call;
use acteon_state_core::{Effect, Error, Result, StateKey};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::history::{Asked, History, Question, Told};
use crate::safety::Event;

/// A log that is being written.
#[derive(Clone, Debug)]
pub struct Log(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// One line at a time; never held across an await.
    file: Mutex<File>,
    calls: AtomicU64,
}

/// What one or several logs say.
#[derive(Debug, Default)]
pub struct Logged {
    /// The calls, in the order of their beginnings, at moments of which no two are equal.
    pub history: History,
    /// What happened to those who updated a register under a lock.
    pub events: Vec<Event>,
    /// Calls that failed and certainly changed nothing, in no order. They end when their callers learnt of it.
    pub refused: History,
    /// What ended a process early, in its own words.
    pub broken: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Began {
        at: u64,
        call: u64,
        process: u32,
        object: String,
        question: Question,
    },
    Told {
        at: u64,
        call: u64,
        told: Told,
    },
    /// It failed and certainly changed nothing.
    Withdrawn {
        at: u64,
        call: u64,
        why: String,
    },
    /// It failed, and may have happened.
    Unknown {
        at: u64,
        call: u64,
        why: String,
    },
    Safety(Event),
    Broken(String),
}

impl Log {
    /// Begins a log in a file, which must not exist.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = Mutex::new(OpenOptions::new().append(true).create_new(true).open(path)?);
        Ok(Self(Arc::new(Shared { file, calls: AtomicU64::new(0) })))
    }

    /// Makes a call and records it.
    ///
    /// # Errors
    /// Those of the call.
    ///
    /// # Panics
    /// When the log cannot be written.
    pub async fn attempt(&self, asked: Asked, call: impl Future<Output = Result<Told>> + Send) -> Result<Told> {
        let number = self.0.calls.fetch_add(1, Ordering::Relaxed);
        let Asked { process, object, question } = asked;
        let object = object.text().to_owned();
        self.write(&Line::Began { at: now_ns(), call: number, process, object, question });
        let outcome = call.await;
        match &outcome {
            Ok(told) => self.write(&Line::Told { at: now_ns(), call: number, told: told.clone() }),
            Err(error) => self.write(&failed(number, error)),
        }
        outcome
    }

    /// Records what happened to somebody under a lock.
    ///
    /// # Panics
    /// When the log cannot be written.
    pub fn event(&self, event: Event) {
        self.write(&Line::Safety(event));
    }

    /// Records why the process ends early.
    ///
    /// # Panics
    /// When the log cannot be written.
    pub fn broken(&self, reason: &str) {
        self.write(&Line::Broken(reason.to_owned()));
    }

    fn write(&self, line: &Line) {
        let mut text = serde_json::to_string(line).expect("lines are numbers and texts");
        text.push('\n');
        // One write without a buffer: the system has it even if the process is killed right afterwards.
        self.0.file.lock().write_all(text.as_bytes()).expect("a history without holes");
    }
}

/// What went wrong is of no account to judges. It is what whoever doubts a finding wants to know.
fn failed(call: u64, error: &Error) -> Line {
    let (at, why) = (now_ns(), format!("{error:?}"));
    match error.effect() {
        Effect::NotApplied => Line::Withdrawn { at, call, why },
        _ => Line::Unknown { at, call, why },
    }
}

/// Now, on the clock that all processes of the machine share.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(now.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(now.tv_nsec))
}

/// Reads the logs of processes that have ended, as one.
///
/// # Errors
/// A log cannot be read, or says something that no log says.
pub fn read(paths: &[impl AsRef<Path>]) -> io::Result<Logged> {
    let mut logged = Logged::default();
    let mut calls = Vec::new();
    for path in paths {
        read_one(path.as_ref(), &mut calls, &mut logged)?;
    }
    logged.history = set_apart(calls);
    Ok(logged)
}

fn read_one(path: &Path, calls: &mut History, logged: &mut Logged) -> io::Result<()> {
    let text = std::fs::read_to_string(path)?;
    let mut open: BTreeMap<u64, Call<Asked, Told>> = BTreeMap::new();
    // Without a line break at its end, the last line was torn.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        match serde_json::from_str(line)? {
            Line::Began { at, call, process, object, question } => {
                let object = StateKey::from_text(&object)
                    .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{object} is no key")))?;
                open.insert(call, Call::maybe(at, Asked { process, object, question }));
            }
            Line::Told { at, call, told } => {
                calls.extend(open.remove(&call).map(|call| Call { reply: Some(told), ended: at, ..call }));
            }
            // As a beginning without an end.
            Line::Unknown { .. } => {}
            Line::Withdrawn { at, call, .. } => {
                logged.refused.extend(open.remove(&call).map(|call| Call { ended: at, ..call }));
            }
            Line::Safety(event) => logged.events.push(event),
            Line::Broken(reason) => logged.broken.push(reason),
        }
    }
    calls.extend(open.into_values());
    Ok(())
}

/// Moves moments on by nanoseconds until no two are equal. Of equal ones beginnings come first, so that calls overlap rather than not.
fn set_apart(mut calls: History) -> History {
    let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * calls.len());
    for (place, call) in calls.iter().enumerate() {
        moments.push((call.began, false, place));
        if !call.is_maybe() {
            moments.push((call.ended, true, place));
        }
    }
    moments.sort_unstable();
    let mut last = 0;
    for (at, is_end, place) in moments {
        last = at.max(last + 1);
        if is_end {
            calls[place].ended = last;
        } else {
            calls[place].began = last;
        }
    }
    calls.sort_by_key(|call| call.began);
    calls
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use acteon_state_conformance::history::NEVER;
    use acteon_state_conformance::objects::{RegisterOperation, RegisterReply};
    use acteon_state_core::{Effect, Error, ErrorKind, StateKey};

    use super::{Log, read};
    use crate::history::{Asked, Question, Told};

    fn asked(process: u32) -> Asked {
        let object = StateKey::new("faults", "log", "object", "a:b").expect("the parts are valid");
        Asked { process, object, question: Question::Register(RegisterOperation::Get) }
    }

    #[tokio::test]
    async fn a_log_tells_what_was_answered_and_what_was_not_and_forgets_what_did_not_happen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Log::create(&path).unwrap();
        let told = Told::Register(RegisterReply::Found(Some(3)));
        log.attempt(asked(1), async { Ok(told.clone()) }).await.unwrap();
        let fail = |effect| async move { Err(Error::new(ErrorKind::Timeout, "late").with_effect(effect)) };
        log.attempt(asked(2), fail(Effect::Unknown)).await.unwrap_err();
        log.attempt(asked(3), fail(Effect::NotApplied)).await.unwrap_err();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"told\":{\"at").unwrap();
        let logged = read(&[&path]).unwrap();
        let calls: Vec<_> = logged.history.iter().map(|call| (call.operation.process, call.reply.clone())).collect();
        assert_eq!(calls, [(1, Some(told)), (2, None)]);
        let refused: Vec<_> = logged.refused.iter().map(|call| (call.operation.process, call.is_maybe())).collect();
        assert_eq!(refused, [(3, true)]);
        assert!(logged.refused[0].ended < NEVER);
        assert_eq!(logged.history[0].operation, asked(1));
    }
}
