//! Scripts: a Lua 5.1 interpreter that looks like the one inside Redis 7.0.
//!
//! | file | holds |
//! |---|---|
//! | `sandbox.rs` | the interpreter: which globals exist, what cannot be changed, running a function to its end or its error |
//! | `raise.rs` | errors thrown by functions written in Rust, and the checks of their arguments |
//! | `random.rs` | `math.random`, the same sequence everywhere |
//! | `library.rs` | `cjson`, `cmsgpack`, `struct` and `bit` |

pub(crate) mod library;
pub(crate) mod raise;
pub(crate) mod random;
pub(crate) mod sandbox;
