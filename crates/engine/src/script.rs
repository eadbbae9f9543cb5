//! Scripts: a Lua 5.1 interpreter that looks like the one inside Redis 7.0.
//!
//! | file | holds |
//! |---|---|
//! | `cache.rs` | the scripts of an instance, what is known of each, and the pool of interpreters |
//! | `interpreter.rs` | one interpreter with the functions it has compiled |
//! | `run.rs` | one run: what it holds, the commands it calls, its reply |
//! | `words.rs` | the words of the commands that a script calls |
//! | `convert.rs` | values between Lua and the protocol |
//! | `redis.rs` | the `redis` table |
//! | `shebang.rs` | the flags in a script's first line |
//! | `watch.rs` | time limits, and ending a script |
//! | `sandbox.rs` | the environment: which globals exist, what cannot be changed, running a function to its end or its error |
//! | `raise.rs` | errors thrown by functions written in Rust, and the checks of their arguments |
//! | `random.rs` | `math.random`, the same sequence everywhere |
//! | `library.rs` | `cjson`, `cmsgpack`, `struct`, `bit`, and patterns |

mod cache;
mod convert;
mod interpreter;
pub(crate) mod library;
pub(crate) mod raise;
pub(crate) mod random;
mod redis;
mod run;
pub(crate) mod sandbox;
mod shebang;
mod watch;
mod words;

pub(crate) use cache::{Script, Scripts, parse_sha, sha_of};
pub(crate) use interpreter::broken;
pub use redis::{ScriptLog, ScriptLogLevel};
pub(crate) use run::{Request, run};
pub(crate) use watch::Killing;
