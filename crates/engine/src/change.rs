//! Changes: what a write did to a key, as bytes that a journal keeps, and that bring another engine to the same state.
//!
//! # Guarantees
//! With a [`ChangeLog`] attached, whatever changes data is handed to it as a group of changes, before any key of the group can be seen by
//! others. What happened at once (one update, one command, one transaction, one script) is one group. Two groups that touch the same
//! key come in the order in which they happened. Applied in this order to an engine in the state from which they began, groups lead to
//! the same values and deadlines.
//!
//! Changes say what came out, not what was asked for: they do not depend on time, chance, scripts or settings. A change costs about the bytes
//! that it changed, and not those of its value: a bit that is set in a long string is a few bytes.
//!
//! # What is not recorded
//! The removal of a key because its time had come: the deadline is recorded, and whoever comes back after it removes the key again. A key
//! that was absent for that reason is written anew as a whole, so that nothing of the old value shines through. When a key was last
//! used, and how a value lies in memory.
//!
//! # Failure
//! Handing over never fails and never waits; a log that cannot keep what it is given says so by [`ChangeLog::is_writable`], and writes are
//! refused from then on ([`Engine::check_writable`](crate::Engine::check_writable); commands of the protocol by themselves). Bytes that
//! make no sense, or do not fit the state, end [`Engine::apply`](crate::Engine::apply) with a [`ChangeError`] that says where.
//!
//! # How it works
//! Each segment gathers the changes of whoever holds it in a buffer of its own (`change/record.rs`); before it is released, the buffers of
//! all that is held become one group (`change/outlet.rs`). What others are told meanwhile waits for that (`change/section.rs`). The layout of a change is in `change/op.rs`.

mod apply;
#[cfg(feature = "commands")]
mod edit;
mod op;
mod outlet;
mod record;
mod section;
#[cfg(all(test, feature = "commands", not(shuttle)))]
pub(crate) mod tests;

use std::fmt;

#[cfg(feature = "commands")]
pub(crate) use edit::Edit;
pub(crate) use op::Op;
pub(crate) use outlet::Outlet;
pub use outlet::groups_of_this_thread;
pub(crate) use record::{Recorder, Recording};
pub(crate) use section::Section;
#[cfg(feature = "commands")]
pub(crate) use section::{is_in_section, once_handed_over};

/// Keeps changes.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use acteon_engine::{ChangeLog, Engine, EngineConfig, Expiry};
///
/// #[derive(Default)]
/// struct InMemory(Mutex<Vec<Vec<u8>>>);
///
/// impl ChangeLog for InMemory {
///     fn append(&self, group: &[u8]) -> u64 {
///         let mut groups = self.0.lock().expect("nobody panics while holding it");
///         groups.push(group.to_vec());
///         groups.len() as u64
///     }
///
///     fn is_writable(&self) -> bool {
///         true
///     }
/// }
///
/// let (engine, log) = (Engine::new(EngineConfig::default()), Arc::new(InMemory::default()));
/// engine.attach_log(log.clone());
/// engine.update(b"greeting", 1, |slot| slot.set_str(&[b"hello"], Expiry::At(9)))?;
/// assert_eq!(engine.log_position(), 1);
///
/// let copy = Engine::new(EngineConfig::default());
/// for group in &*log.0.lock().expect("nobody panics while holding it") {
///     copy.apply(group)?;
/// }
/// assert_eq!(copy.digest(1), engine.digest(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait ChangeLog: Send + Sync {
    /// Takes a group over. Returns the position after it; positions only rise. Called while keys are held: must be quick, must not wait for
    /// a disk, and must not call the engine.
    fn append(&self, group: &[u8]) -> u64;

    /// Whether what is appended from now on will be kept. While it is not, new writes are refused; what had begun is still appended.
    fn is_writable(&self) -> bool;

    /// Why not, for those who are refused: the words of an operating system (`No space left on device`) or its like.
    fn refusal(&self) -> Option<String> {
        None
    }
}

/// Why a group of changes could not be applied or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeError {
    /// Which change of the group, counted from 0. Those before it were applied.
    pub number: usize,
    /// Where it begins, in bytes from the start of the group.
    pub offset: usize,
    pub(crate) problem: Problem,
}

/// What is wrong with a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The bytes end within the change.
    Truncated,
    /// No change begins with this byte.
    UnknownCode(u8),
    /// A number, a key or a value that cannot be.
    Malformed(&'static str),
    /// The value of a whole key.
    Value(String),
    /// The key is not as it was when the change was recorded.
    Mismatch(&'static str),
}

impl ChangeError {
    /// The change itself can be read, but the key is not as it was when the change was recorded.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        matches!(self.problem, Problem::Mismatch(_))
    }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "change {} of a group, at its byte {}: ", self.number, self.offset)?;
        match &self.problem {
            Problem::Truncated => f.write_str("the group ends within it"),
            Problem::UnknownCode(code) => write!(f, "there is no change with the code {code:#04x} in this version"),
            Problem::Malformed(what) => write!(f, "{what} makes no sense"),
            Problem::Value(why) => write!(f, "its value cannot be read: {why}"),
            Problem::Mismatch(what) => write!(f, "it does not fit the key as it is: {what}"),
        }
    }
}

impl std::error::Error for ChangeError {}

/// Reads a group without applying it: how many changes it holds.
///
/// # Errors
/// [`ChangeError`] where it could not be applied to any state. Values of whole keys are not looked into.
pub fn check_group(group: &[u8]) -> Result<usize, ChangeError> {
    let mut count = 0;
    for change in op::Ops::new(group) {
        change?;
        count += 1;
    }
    Ok(count)
}
