//! Hot paths whose instructions are counted: `cargo xtask bench instructions` runs each under callgrind and compares the counts with
//! those in `counts.json`.
//!
//! # What it promises
//! - Nothing in a path depends on time or chance beyond what the code under it draws for itself: seeds, keys and clocks are fixed, the
//!   runtime has one thread. Runs of one build differ by less than a thousandth in most paths, and by two hundredths in the worst.
//! - A path that fails panics, so nothing that failed is counted.
//!
//! # How it works
//! The program runs one path per process, so that no path sees what another one has left in memory. Each sets up what it needs, warms
//! up, and then repeats its operation inside of `meter::counted`, which is what callgrind is told to count. What other threads do
//! meanwhile is not counted, so a path may talk to a server in the same process.
//!
//! | file | holds the paths of |
//! |---|---|
//! | `engine.rs` | the engine by typed calls |
//! | `resp.rs` | the Redis protocol |
//! | `commands.rs` | commands of Redis, without sockets |
//! | `pipeline.rs` | commands that have come together, from bytes to bytes |
//! | `store.rs` | keys, and the memory driver through `Arc<dyn StateStore>` |
//! | `redis.rs` | the Redis driver, with an engine as its server |
//! | `dispatch.rs` | actions and rules |

mod commands;
mod dispatch;
mod engine;
mod meter;
mod pipeline;
mod redis;
mod resp;
mod store;

use std::env;
use std::error::Error;
use std::process::ExitCode;

use crate::meter::OPERATIONS;

/// What setting up a path may end with.
type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// One path: its name in `counts.json`, and the function that sets it up and has it counted.
struct Path {
    name: &'static str,
    run: fn() -> Outcome,
}

/// The tables of all files.
fn paths() -> impl Iterator<Item = &'static Path> {
    [engine::PATHS, resp::PATHS, commands::PATHS, pipeline::PATHS, store::PATHS, redis::PATHS, dispatch::PATHS]
        .into_iter()
        .flatten()
}

const USAGE: &str = "usage: acteon-hot-paths list | operations | run NAME";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        ["list"] => paths().for_each(|path| println!("{}", path.name)),
        ["operations"] => println!("{OPERATIONS}"),
        ["run", name] => return run(name),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(name: &str) -> ExitCode {
    let Some(path) = paths().find(|path| path.name == name) else {
        eprintln!("no path is called {name}; `list` shows those that there are");
        return ExitCode::FAILURE;
    };
    match (path.run)() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::paths;

    #[test]
    fn every_path_does_what_it_counts() {
        for path in paths() {
            (path.run)().unwrap_or_else(|error| panic!("{}: {error}", path.name));
        }
    }

    #[test]
    fn no_two_paths_share_a_name() {
        let names: BTreeSet<_> = paths().map(|path| path.name).collect();
        assert_eq!(names.len(), paths().count());
    }
}
