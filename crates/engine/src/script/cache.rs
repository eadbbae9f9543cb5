//! The scripts of an instance: their texts, what is known of each, and the interpreters that run them.
//!
//! # Guarantees
//! A script that was run or loaded is found by its SHA-1 until `SCRIPT FLUSH`; of those that were only run, the
//! [`EVAL_SCRIPTS_MAX`] newest are. Any number of threads run scripts at once, each in an interpreter of its own.
//!
//! # How it works
//! Interpreters lie in a pool; whoever runs a script takes one and puts it back. Each keeps the functions it has compiled. A flush
//! raises the generation: interpreters of an older one are dropped when they come back.
//!
//! The first run of a script holds its whole database, and shows which keys it uses. If these are the ones it declares, later runs hold
//! only them; see [`Habit`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use sha1::{Digest, Sha1};

use super::interpreter::Interpreter;
use super::redis::ScriptLog;
use super::shebang::{self, ScriptFlags};
use super::watch::Overseer;
use crate::command::CommandError;

/// Scripts that clients have run but not loaded are kept in this number, the newest ones: a client that writes values into the text
/// of its scripts would fill the memory otherwise. A client that runs by SHA-1 knows how to send the text again.
pub(crate) const EVAL_SCRIPTS_MAX: usize = 10_000;

/// Idle interpreters, of some 100 KiB each; more than these run at once only on machines with more cores.
const INTERPRETERS_KEPT_MAX: usize = 32;

/// A script whose runs take longer on average is worth a thread that may wait: 5 ms are a pause that the other clients of a thread notice.
const LONG_US: u32 = 5_000;

/// The SHA-1 of a script, in hexadecimal digits of lower case.
pub(crate) type Sha = [u8; 40];

/// What is known of the keys of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// It has not been run to its end.
    Unknown,
    /// It uses the keys that it declares, and has written nothing yet. Where it will, it may go another way.
    KeepsToKeysReading,
    /// It uses the keys that it declares, also when it writes.
    KeepsToKeys,
    /// It has used others.
    Strays,
}

/// A script.
pub(crate) struct Script {
    pub(crate) sha: Sha,
    body: Box<[u8]>,
    /// Where the code begins, after a line of flags.
    code_at: usize,
    /// `None` without a line of flags.
    pub(crate) flags: Option<ScriptFlags>,
    /// It may put something where the next script would find it, see [`can_insert`].
    pub(crate) may_leave_something: bool,
    habit: AtomicU8,
    /// What the last runs took, on average.
    average_us: AtomicU32,
    /// Kept until a flush.
    is_loaded: AtomicBool,
}

/// The scripts and interpreters of an instance.
#[derive(Default)]
pub(crate) struct Scripts {
    pub(crate) overseer: Arc<Overseer>,
    log: ScriptLog,
    store: RwLock<Store>,
    /// Each in its box, since they go in and out with each run.
    #[allow(clippy::vec_box, reason = "moving an interpreter takes longer than the list itself")]
    interpreters: Mutex<Vec<Box<Interpreter>>>,
    interpreters_made: AtomicU64,
    generation: AtomicU64,
}

#[derive(Default)]
struct Store {
    by_sha: HashMap<Sha, Arc<Script>, foldhash::fast::FixedState>,
    /// Those that were run and not loaded, in the order in which they came.
    run_only: VecDeque<Sha>,
    bytes: usize,
}

impl Script {
    pub(crate) fn new(body: &[u8]) -> Result<Self, CommandError> {
        let (flags, code_at) = shebang::parse(body)?;
        Ok(Self {
            sha: sha_of(body),
            body: body.into(),
            code_at,
            flags,
            may_leave_something: can_insert(&body[code_at..]),
            habit: AtomicU8::new(0),
            average_us: AtomicU32::new(u32::MAX),
            is_loaded: AtomicBool::new(false),
        })
    }

    pub(crate) fn code(&self) -> &[u8] {
        &self.body[self.code_at..]
    }

    pub(crate) fn sha_text(&self) -> &str {
        std::str::from_utf8(&self.sha).unwrap_or_default()
    }

    pub(crate) fn habit(&self) -> Habit {
        match self.habit.load(Ordering::Relaxed) {
            0 => Habit::Unknown,
            1 => Habit::KeepsToKeysReading,
            2 => Habit::KeepsToKeys,
            _ => Habit::Strays,
        }
    }

    /// It was run to its end, or showed a habit on the way. Once it has strayed, it stays so.
    pub(crate) fn note_habit(&self, habit: Habit) {
        self.habit.fetch_max(habit as u8, Ordering::Relaxed);
    }

    /// It is about to write for the first time: what is known of it counts no longer.
    pub(crate) fn forget_reading(&self) {
        let (reading, unknown) = (Habit::KeepsToKeysReading as u8, Habit::Unknown as u8);
        // Whoever was quicker knows more.
        let _ = self.habit.compare_exchange(reading, unknown, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(crate) fn note_duration(&self, us: u64) {
        let us = u32::try_from(us).unwrap_or(u32::MAX - 1);
        let average_us = self.average_us.load(Ordering::Relaxed);
        let average_us = if average_us == u32::MAX { us } else { average_us / 4 * 3 + us / 4 };
        self.average_us.store(average_us, Ordering::Relaxed);
    }

    /// It is unknown how long it takes, or known to be long.
    pub(crate) fn may_take_long(&self) -> bool {
        self.average_us.load(Ordering::Relaxed) > LONG_US
    }
}

impl Scripts {
    pub(crate) fn new(log: ScriptLog) -> Self {
        Self { log, ..Self::default() }
    }

    pub(crate) fn get(&self, sha: &Sha) -> Option<Arc<Script>> {
        self.store.read().by_sha.get(sha).cloned()
    }

    /// Keeps a script, until a flush if it was loaded.
    pub(crate) fn keep(&self, script: Arc<Script>, is_loaded: bool) {
        let mut store = self.store.write();
        if is_loaded {
            script.is_loaded.store(true, Ordering::Relaxed);
        } else {
            store.make_room();
            store.run_only.push_back(script.sha);
        }
        store.bytes += script.body.len();
        if let Some(same) = store.by_sha.insert(script.sha, script) {
            store.bytes -= same.body.len();
        }
    }

    /// It is not forgotten for newer ones any more.
    pub(crate) fn mark_loaded(script: &Script) {
        script.is_loaded.store(true, Ordering::Relaxed);
    }

    /// Forgets all scripts. Those that run go on.
    pub(crate) fn flush(&self) {
        let store = std::mem::take(&mut *self.store.write());
        self.generation.fetch_add(1, Ordering::AcqRel);
        let interpreters = std::mem::take(&mut *self.interpreters.lock());
        drop((store, interpreters));
    }

    /// How many scripts are kept, and the bytes of their texts.
    pub(crate) fn size(&self) -> (usize, usize) {
        let store = self.store.read();
        (store.by_sha.len(), store.bytes)
    }

    /// An interpreter that nobody else uses.
    pub(crate) fn take_interpreter(&self) -> mlua::Result<Box<Interpreter>> {
        let idle = self.interpreters.lock().pop();
        match idle {
            Some(interpreter) => Ok(interpreter),
            None => {
                let number = self.interpreters_made.fetch_add(1, Ordering::Relaxed);
                let generation = self.generation.load(Ordering::Acquire);
                Interpreter::new(self.overseer.clone(), &self.log, number, generation).map(Box::new)
            }
        }
    }

    /// Puts an interpreter back, if it is as good as new.
    pub(crate) fn put_interpreter(&self, interpreter: Box<Interpreter>) {
        if !interpreter.is_reusable() || interpreter.generation() != self.generation.load(Ordering::Acquire) {
            return;
        }
        let mut interpreters = self.interpreters.lock();
        if interpreters.len() < INTERPRETERS_KEPT_MAX {
            interpreters.push(interpreter);
        }
    }
}

impl Store {
    fn make_room(&mut self) {
        while self.run_only.len() >= EVAL_SCRIPTS_MAX {
            let Some(sha) = self.run_only.pop_front() else { return };
            if self.by_sha.get(&sha).is_some_and(|script| !script.is_loaded.load(Ordering::Relaxed))
                && let Some(script) = self.by_sha.remove(&sha)
            {
                self.bytes -= script.body.len();
            }
        }
    }
}

/// Whether code can get hold of `table.insert`, the only function that puts something into a guard of the sandbox.
///
/// Names of globals stand in the text of whoever uses them. So `table` is there, or what leads to all globals or makes code of other texts:
/// `_G`, `load` or `loadstring`. Nothing else that a script can reach holds a global or the library.
fn can_insert(code: &[u8]) -> bool {
    let names: [&[u8]; 3] = [b"table", b"_G", b"load"];
    names.iter().any(|name| code.windows(name.len()).any(|part| part == *name))
}

/// The SHA-1 by which a script is known.
pub(crate) fn sha_of(body: &[u8]) -> Sha {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut sha = [0; 40];
    for (two, byte) in sha.chunks_exact_mut(2).zip(Sha1::digest(body)) {
        two[0] = DIGITS[usize::from(byte >> 4)];
        two[1] = DIGITS[usize::from(byte & 15)];
    }
    sha
}

/// The SHA-1 that a client names, in any case of letters; `None` if it has another length.
pub(crate) fn parse_sha(text: &[u8]) -> Option<Sha> {
    let mut sha: Sha = text.try_into().ok()?;
    sha.make_ascii_lowercase();
    Some(sha)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{EVAL_SCRIPTS_MAX, Habit, Script, Scripts, parse_sha, sha_of};

    fn script(text: &str) -> Arc<Script> {
        Arc::new(Script::new(text.as_bytes()).expect("no flags"))
    }

    #[test]
    fn a_script_is_found_by_its_digest_until_a_flush() {
        let scripts = Scripts::default();
        scripts.keep(script("return 1"), false);
        let sha = parse_sha(b"E0E1F9FABFC9D4800C877A703B823AC0578FF8DB").expect("40 digits");
        assert!(scripts.get(&sha).is_some());
        assert_eq!(scripts.size(), (1, 8));
        scripts.flush();
        assert!(scripts.get(&sha).is_none());
        assert_eq!(scripts.size(), (0, 0));
    }

    #[test]
    fn scripts_that_were_only_run_make_room_for_newer_ones_and_loaded_ones_stay() {
        let scripts = Scripts::default();
        scripts.keep(script("loaded"), true);
        scripts.keep(script("promoted"), false);
        Scripts::mark_loaded(&scripts.get(&sha_of(b"promoted")).expect("kept"));
        for number in 0..=EVAL_SCRIPTS_MAX {
            scripts.keep(script(&number.to_string()), false);
        }
        let is_kept = |text: &str| scripts.get(&sha_of(text.as_bytes())).is_some();
        assert!(is_kept("loaded") && is_kept("promoted") && is_kept("10000"));
        assert!(!is_kept("0"));
        assert_eq!(scripts.size().0, EVAL_SCRIPTS_MAX + 2);
    }

    #[test]
    fn a_script_that_has_strayed_once_is_never_trusted_again() {
        let script = script("x");
        assert_eq!(script.habit(), Habit::Unknown);
        script.note_habit(Habit::KeepsToKeysReading);
        assert_eq!(script.habit(), Habit::KeepsToKeysReading);
        script.forget_reading();
        assert_eq!(script.habit(), Habit::Unknown);
        script.note_habit(Habit::KeepsToKeys);
        script.note_habit(Habit::KeepsToKeysReading);
        script.forget_reading();
        assert_eq!(script.habit(), Habit::KeepsToKeys);
        script.note_habit(Habit::Strays);
        script.note_habit(Habit::KeepsToKeys);
        assert_eq!(script.habit(), Habit::Strays);
    }

    #[test]
    fn a_script_may_take_long_until_its_runs_were_short() {
        let script = script("x");
        assert!(script.may_take_long());
        script.note_duration(10);
        assert!(!script.may_take_long());
        script.note_duration(1_000_000);
        assert!(script.may_take_long());
    }
}
