//! The slow log: the last commands that took longer than a threshold.
//!
//! # Guarantees
//! Its length is bounded by `slowlog-max-len`, the length of an entry by what is kept of its arguments. Passwords do not show.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::monitor::is_secret;

/// Arguments of a command that are kept; the last of them says how many more there were. As Redis has.
const ARGS_MAX: usize = 32;
/// Bytes of an argument that are kept, as Redis has.
const ARG_BYTES_MAX: usize = 128;

/// The log.
#[derive(Default)]
pub(crate) struct Slowlog(Mutex<Log>);

#[derive(Default)]
struct Log {
    /// The newest first.
    entries: VecDeque<SlowCommand>,
    next_id: u64,
}

/// A command that was slow.
#[derive(Clone, Debug)]
pub(crate) struct SlowCommand {
    pub(crate) id: u64,
    /// When it ended, in seconds since 1970.
    pub(crate) at_s: u64,
    pub(crate) duration_us: u64,
    pub(crate) args: Vec<Vec<u8>>,
    pub(crate) peer_address: String,
    pub(crate) client_name: Vec<u8>,
}

impl Slowlog {
    /// Keeps `command`, whose number is given here.
    pub(crate) fn push(&self, mut command: SlowCommand, len_max: u64) {
        let mut log = self.0.lock();
        command.id = log.next_id;
        log.next_id += 1;
        log.entries.push_front(command);
        log.entries.truncate(usize::try_from(len_max).unwrap_or(usize::MAX));
    }

    /// The newest `count`.
    pub(crate) fn newest(&self, count: usize) -> Vec<SlowCommand> {
        self.0.lock().entries.iter().take(count).cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().entries.len()
    }

    pub(crate) fn reset(&self) {
        self.0.lock().entries.clear();
    }
}

/// What is kept of the arguments of a command.
pub(crate) fn kept_args(args: &[&[u8]]) -> Vec<Vec<u8>> {
    let count = if args.len() > ARGS_MAX { ARGS_MAX - 1 } else { args.len() };
    let mut kept: Vec<Vec<u8>> = (0..count).map(|at| kept_arg(args, at)).collect();
    if args.len() > count {
        kept.push(format!("... ({} more arguments)", args.len() - count).into_bytes());
    }
    kept
}

fn kept_arg(args: &[&[u8]], at: usize) -> Vec<u8> {
    if is_secret(args, at) || is_secret_setting(args, at) {
        return b"(redacted)".to_vec();
    }
    let arg = args[at];
    if arg.len() <= ARG_BYTES_MAX {
        return arg.to_vec();
    }
    let mut kept = arg[..ARG_BYTES_MAX].to_vec();
    kept.extend_from_slice(format!("... ({} more bytes)", arg.len() - ARG_BYTES_MAX).as_bytes());
    kept
}

/// Whether `at` is a password in CONFIG SET.
fn is_secret_setting(args: &[&[u8]], at: usize) -> bool {
    let is = |at: usize, word: &str| args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
    at >= 3 && at % 2 == 1 && is(0, "config") && is(1, "set") && (is(at - 1, "requirepass") || is(at - 1, "masterauth"))
}

#[cfg(test)]
mod tests {
    use super::{SlowCommand, Slowlog, kept_args};

    fn command() -> SlowCommand {
        SlowCommand {
            id: 0,
            at_s: 0,
            duration_us: 1,
            args: Vec::new(),
            peer_address: String::new(),
            client_name: Vec::new(),
        }
    }

    #[test]
    fn newest_commands_are_kept_with_rising_numbers() {
        let log = Slowlog::default();
        (0..5).for_each(|_| log.push(command(), 3));
        let ids: Vec<_> = log.newest(10).iter().map(|command| command.id).collect();
        assert_eq!(ids, [4, 3, 2]);
        log.reset();
        log.push(command(), 3);
        assert_eq!((log.len(), log.newest(1)[0].id), (1, 5));
        log.push(command(), 0);
        assert_eq!(log.len(), 0);
    }

    #[test]
    fn long_commands_are_cut_and_passwords_hidden() {
        let many = [&b"x"[..]; 40];
        let kept = kept_args(&many);
        assert_eq!((kept.len(), kept.last()), (32, Some(&b"... (9 more arguments)".to_vec())));
        assert_eq!(kept_args(&many[..32]).last(), Some(&b"x".to_vec()));
        let long = [b'a'; 130];
        assert_eq!(kept_args(&[&long])[0][128..], *b"... (2 more bytes)");
        let kept = kept_args(&[b"CONFIG", b"SET", b"maxmemory", b"1", b"requirepass", b"secret"]);
        assert_eq!((&*kept[3], &*kept[5]), (&b"1"[..], &b"(redacted)"[..]));
    }
}
