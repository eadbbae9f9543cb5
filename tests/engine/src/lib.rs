//! The engine beside a real Redis: whatever a client can send gets the same bytes from both.
//!
//! # What it promises
//! - [`differential`] sends random commands of one family to a redis-server and to the engine and compares every reply, and after
//!   each sequence every key. A difference is shrunk to the few commands that show it and printed with its seed.
//! - [`transcript`] replays what a redis-server once answered, one file per command under `tests/transcripts`.
//! - `tests/crashes` kills the dispatch server's engine at random moments and looks at what its directory still holds; it says there how.
//! - `tests/files` takes files and payloads from a redis-server to the engine and back, and compares what both make of them.
//!
//! Both know which replies Redis leaves open (the order of a set, a random member, a remaining time): [`compare`] is the only place.
//!
//! # How to run it
//! `cargo test -p acteon-engine-tests --test differential strings` runs one family. Environment:
//! - `ACTEON_DIFFERENTIAL_COMMANDS`: how many commands in total, over all families.
//! - `ACTEON_SEED`: the seed that a failure printed.
//! - `ACTEON_DIFFERENTIAL_FAILURES`: how many differences to look for before a family gives up.
//! - `ACTEON_DIFFERENTIAL_COVERAGE=1`: print which commands were reached, how many were refused, and the encodings of what they left.
//! - `ACTEON_DIFFERENTIAL_SAVE=1`: keep each shrunk difference in `regressions/`, from where it is replayed first from then on.
//! - `ACTEON_ENGINE_URL`: a server to test instead of the engine in this process, such as `redis://127.0.0.1:6380`. It is flushed.
//!   `redis-server` compares two of those, to see that the comparison itself is sound.
//! - `ACTEON_FILES_ROUNDS`: how many sequences of each family the comparison of files takes.
//! - `ACTEON_RECORD_TRANSCRIPTS=1`: write the transcripts anew, with the answers of a redis-server.
//!
//! # Failure
//! Without a redis-server the tests fail; they never pass unseen.
//!
//! # How it works
//! A family is a table of [`template`]s, such as `SET {s} {v} <[NX|XX] [GET]>`; [`pools`] fill in keys and values. There are few of
//! each, so that commands meet on the same keys, and some are of the wrong type. This package reads replies with a decoder of its
//! own, so that a bug in the one under test cannot hide itself.

pub mod candidate;
pub mod command;
pub mod compare;
pub mod coverage;
pub mod differential;
pub mod embedded;
pub mod endpoint;
pub mod families;
pub mod fuzz;
pub mod keyspace;
pub mod options;
pub mod pools;
pub mod random;
pub mod reply;
pub mod sequence;
pub mod shrink;
pub mod template;
pub mod transcript;
