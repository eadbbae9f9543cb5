//! What is counted: a fixed number of operations, after some that fill caches, buffers and lazily made tables.

use std::fmt::Display;
use std::hint::black_box;
use std::ops::Range;

use tokio::runtime::{Builder, Runtime};

use crate::Outcome;

/// Operations that are counted. Enough that a table that grows once, or a random draw that fills its buffer, weighs little.
pub(crate) const OPERATIONS: u32 = 1_000;
const WARM_UP: u32 = 100;
/// All operations of one path. Each gets its number, below this.
pub(crate) const TURNS: u32 = WARM_UP + OPERATIONS;

/// Keys that a path walks over: more than one segment of the engine, few enough to be filled quickly at a fiftieth of the usual speed.
pub(crate) const KEYS: u32 = 4_096;
const _: () = assert!(KEYS.is_power_of_two() && TURNS <= KEYS, "no turn meets a key again");

/// Callgrind counts from the entry to the return of this function, which it knows by name: see `xtask/src/instructions/callgrind.rs`.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    // What follows the call keeps it from becoming a jump, after which this function would never have returned.
    black_box(work);
}

/// Has an operation counted.
pub(crate) fn repeat(mut operation: impl FnMut(u32)) {
    (0..WARM_UP).for_each(&mut operation);
    counted(&mut || (WARM_UP..TURNS).for_each(&mut operation));
}

/// Has an asynchronous operation counted. The cost of entering the runtime is spread over all of them.
pub(crate) fn repeat_async(runtime: &Runtime, operation: impl AsyncFn(u32)) {
    let run = |turns: Range<u32>| {
        runtime.block_on(async {
            for turn in turns {
                operation(turn).await;
            }
        });
    };
    run(0..WARM_UP);
    counted(&mut || run(WARM_UP..TURNS));
}

/// A runtime of this one thread.
pub(crate) fn runtime() -> Outcome<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// A walk over the keys that is not in their order and meets each once in [`KEYS`] turns: the factor is odd, their number a power of 2.
pub(crate) fn walk(turn: u32) -> usize {
    (turn.wrapping_mul(2_654_435_769) % KEYS) as usize
}

/// What failed must not be counted.
pub(crate) fn must<T, E: Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("an operation failed while its instructions were counted: {error}"))
}
