//! What a command is, apart from what it does.

use smallvec::SmallVec;

use super::call::Call;
use super::error::CommandError;

/// Carries a command out: reads `call.args` and `call.keys`, and writes one reply to `call.reply`.
/// What was written to the reply before an error is taken back.
pub(crate) type Handler = fn(&mut Call<'_, '_>) -> Result<(), CommandError>;

/// The positions of keys among the arguments.
pub(crate) type Positions = SmallVec<[usize; 8]>;

/// One command, or one subcommand of a container.
pub(crate) struct Row {
    /// In lower case.
    pub(crate) name: &'static str,
    /// The number of arguments, the name (and the container's) included; negative: at least so many.
    pub(crate) arity: i32,
    pub(crate) flags: Flags,
    pub(crate) group: Group,
    pub(crate) keys: KeyPositions,
    pub(crate) scope: Scope,
    pub(crate) handler: Handler,
    pub(crate) subcommands: &'static [Row],
    /// It takes about a microsecond, whatever it finds, nearly always.
    pub(crate) is_brief: bool,
    /// What it does, in a line.
    pub(crate) summary: &'static str,
    /// The version of Redis that first had it.
    pub(crate) since: &'static str,
}

/// What a command is like, by Redis's names; see `COMMAND INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) u32);

impl Flags {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const WRITE: Self = Self(1);
    pub(crate) const READONLY: Self = Self(1 << 1);
    pub(crate) const DENYOOM: Self = Self(1 << 2);
    pub(crate) const ADMIN: Self = Self(1 << 3);
    pub(crate) const PUBSUB: Self = Self(1 << 4);
    pub(crate) const NOSCRIPT: Self = Self(1 << 5);
    pub(crate) const BLOCKING: Self = Self(1 << 6);
    pub(crate) const LOADING: Self = Self(1 << 7);
    pub(crate) const STALE: Self = Self(1 << 8);
    pub(crate) const SKIP_MONITOR: Self = Self(1 << 9);
    pub(crate) const SKIP_SLOWLOG: Self = Self(1 << 10);
    pub(crate) const FAST: Self = Self(1 << 11);
    pub(crate) const NO_AUTH: Self = Self(1 << 12);
    pub(crate) const MAY_REPLICATE: Self = Self(1 << 13);
    pub(crate) const MOVABLEKEYS: Self = Self(1 << 14);
    pub(crate) const ALLOW_BUSY: Self = Self(1 << 15);
    pub(crate) const NO_MULTI: Self = Self(1 << 16);
    pub(crate) const NO_ASYNC_LOADING: Self = Self(1 << 17);
    pub(crate) const NO_MANDATORY_KEYS: Self = Self(1 << 18);
    /// Redis's `CMD_CATEGORY_DANGEROUS` where the flags alone do not imply it.
    pub(crate) const DANGEROUS: Self = Self(1 << 19);
    /// In `@keyspace` besides its group.
    pub(crate) const KEYSPACE: Self = Self(1 << 20);
    /// In `@admin` without the flag of that name.
    pub(crate) const ADMIN_CATEGORY: Self = Self(1 << 21);
    /// In `@connection` instead of its group.
    pub(crate) const CONNECTION: Self = Self(1 << 22);

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The family, as `COMMAND DOCS` and the access categories name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Generic,
    String,
    List,
    Set,
    SortedSet,
    Hash,
    PubSub,
    Transactions,
    Connection,
    Server,
    Scripting,
    HyperLogLog,
    Geo,
    Bitmap,
}

/// Where the keys of a command are among its arguments.
#[derive(Clone, Copy)]
pub(crate) enum KeyPositions {
    None,
    /// From `first` to `last` (negative: counted from the end, -1 being the last argument), each `step`-th.
    Range {
        first: usize,
        last: i32,
        step: usize,
    },
    /// The positions in `fixed`, and as many as the argument at `count_at` says, which follow it.
    Counted {
        fixed: &'static [usize],
        count_at: usize,
    },
    /// Whatever it takes to find them.
    Find(fn(&[&[u8]]) -> Positions),
}

impl KeyPositions {
    /// The positions in `args`, whose number was found right. What cannot be made sense of yields no keys: the handler
    /// will say what is wrong.
    pub(crate) fn positions(&self, args: &[&[u8]]) -> Positions {
        match *self {
            Self::None => Positions::new(),
            Self::Range { first, last, step } => {
                let last =
                    if last < 0 { args.len().checked_sub(last.unsigned_abs() as usize) } else { Some(last as usize) };
                let last = last.unwrap_or(0).min(args.len().saturating_sub(1));
                if first > last { Positions::new() } else { (first..=last).step_by(step).collect() }
            }
            Self::Counted { fixed, count_at } => {
                let mut positions: Positions = fixed.iter().copied().filter(|at| *at < args.len()).collect();
                let count = args.get(count_at).and_then(|count| acteon_resp::parse_i64(count));
                let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
                let end = count_at.saturating_add(1).saturating_add(count);
                if end <= args.len() {
                    positions.extend(count_at + 1..end);
                }
                positions
            }
            Self::Find(find) => find(args),
        }
    }
}

/// What a command has to hold while it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope {
    /// The segments of its keys; nothing, where it has none.
    Keys,
    /// Nothing: it takes one segment after the other by `call.keys.step`. Inside of a transaction or script: its database.
    Stepwise,
    /// The same in all databases. Inside of a transaction or script: all of them.
    StepwiseEverywhere,
    /// All of its database.
    Database,
    /// All of its database, and of the one that the arguments name.
    WithDatabase(fn(&[&[u8]]) -> Option<usize>),
    /// All of the databases that the arguments name; those that do not exist are left out.
    Databases(fn(&[&[u8]]) -> SmallVec<[usize; 2]>),
    /// All databases.
    Everything,
    /// It depends on the arguments.
    Choose(fn(&[&[u8]]) -> Scope),
    /// What the commands queued in the transaction need together.
    Queued,
    /// The keys that the script declares, or its database.
    Script,
}

impl Row {
    /// The position of the key, for a command that has one key, always at the same place, and needs nothing else: most commands
    /// of most clients.
    pub(crate) fn only_key(&self) -> Option<usize> {
        match (self.keys, self.scope) {
            (KeyPositions::Range { first, last, .. }, Scope::Keys) if last == first as i32 => Some(first),
            _ => None,
        }
    }

    /// A command without keys, flags, or subcommands.
    pub(crate) const fn new(name: &'static str, arity: i32, group: Group, handler: Handler) -> Self {
        Self {
            name,
            arity,
            flags: Flags::NONE,
            group,
            keys: KeyPositions::None,
            scope: Scope::Keys,
            handler,
            subcommands: &[],
            is_brief: false,
            summary: "",
            since: "1.0.0",
        }
    }

    pub(crate) const fn flags(mut self, flags: &[Flags]) -> Self {
        let mut index = 0;
        while index < flags.len() {
            self.flags = self.flags.and(flags[index]);
            index += 1;
        }
        self.is_brief = self.flags.has(Flags::FAST);
        self
    }

    /// A command that is as brief as those with the flag `fast`, which Redis gives for other reasons as well.
    pub(crate) const fn brief(mut self) -> Self {
        self.is_brief = true;
        self
    }

    /// Keys from `first` to `last`, each `step`-th.
    pub(crate) const fn keys(mut self, first: usize, last: i32, step: usize) -> Self {
        self.keys = KeyPositions::Range { first, last, step };
        self
    }

    /// Keys at `fixed`, and those after their number at `count_at`.
    pub(crate) const fn counted_keys(mut self, fixed: &'static [usize], count_at: usize) -> Self {
        self.keys = KeyPositions::Counted { fixed, count_at };
        self
    }

    pub(crate) const fn find_keys(mut self, find: fn(&[&[u8]]) -> Positions) -> Self {
        self.keys = KeyPositions::Find(find);
        self
    }

    pub(crate) const fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    pub(crate) const fn subcommands(mut self, subcommands: &'static [Row]) -> Self {
        self.subcommands = subcommands;
        self
    }

    pub(crate) const fn docs(mut self, since: &'static str, summary: &'static str) -> Self {
        self.since = since;
        self.summary = summary;
        self
    }
}
