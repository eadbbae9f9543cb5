//! `math.random` and `math.randomseed`: the same sequence on every machine and for every script.
//!
//! # Guarantees
//! Equal seeds give equal sequences, and those of Redis 7.0: a script that was tested there draws the same numbers here.
//! A new interpreter starts where a new server does; one script goes on where the one before it ended, as in Redis 7.0.
//!
//! # How it works
//! The 48-bit linear congruential generator of POSIX `lrand48`, whose constants are part of that standard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mlua::{Lua, MultiValue, Result, Table};

use super::raise::{Arguments, machine_i64, raise, raise_argument};

const MULTIPLIER: u64 = 0x5_DEEC_E66D;
const INCREMENT: u64 = 0xB;
const STATE_MASK: u64 = (1 << 48) - 1;
/// The low bits of a freshly seeded state, fixed by POSIX.
const SEED_LOW: u64 = 0x330E;
/// The state before any seed was set.
const STATE_INITIAL: u64 = 0x1234_ABCD_330E;
/// One draw has 31 bits; Redis divides by this, so 1 itself is never drawn.
const DRAW_MAX: i64 = i32::MAX as i64;

/// The generator's state. Shared by the functions in one interpreter, which runs on one thread at a time.
struct Generator(AtomicU64);

/// Puts `random` and `randomseed` into `math`, as a new server has them.
pub(crate) fn install(lua: &Lua, math: &Table) -> Result<()> {
    let generator = Arc::new(Generator(AtomicU64::new(STATE_INITIAL)));
    lua.set_app_data(Arc::clone(&generator));

    let drawn = Arc::clone(&generator);
    math.raw_set("random", lua.create_function(move |lua, values: MultiValue| random(lua, &drawn, &values))?)?;
    let randomseed = move |lua: &Lua, values: MultiValue| {
        let seed = Arguments::new(lua, &values).int(1)?;
        generator.0.store(seeded(seed), Ordering::Relaxed);
        Ok(())
    };
    math.raw_set("randomseed", lua.create_function(randomseed)?)
}

/// Continues from a place of the sequence that `number` chooses, 0 being its start: interpreters that run beside each other are not
/// to draw the same numbers.
pub(crate) fn skip_to(lua: &Lua, number: u64) {
    if let Some(generator) = lua.app_data_ref::<Arc<Generator>>() {
        // An odd factor takes each number to a state of its own.
        const SPREAD: u64 = 0x9e37_79b9_7f4b;
        let state = STATE_INITIAL.wrapping_add(number.wrapping_mul(SPREAD)) & STATE_MASK;
        generator.0.store(state, Ordering::Relaxed);
    }
}

fn random(lua: &Lua, generator: &Generator, values: &MultiValue) -> Result<f64> {
    let arguments = Arguments::new(lua, values);
    let share = (generator.draw() % DRAW_MAX) as f64 / DRAW_MAX as f64;
    let (low, high, last) = match arguments.len() {
        0 => return Ok(share),
        1 => (1, arguments.int(1)?, 1),
        2 => (arguments.int(1)?, arguments.int(2)?, 2),
        _ => return Err(raise(lua, "wrong number of arguments")),
    };
    if low > high {
        return Err(raise_argument(lua, last, "interval is empty"));
    }
    // The width wraps as a C `int` does: an interval wider than 2^31 draws below its lower end in Redis, too.
    let width = high.wrapping_sub(low).wrapping_add(1);
    if arguments.len() == 1 {
        return Ok((share * f64::from(high)).floor() + 1.0);
    }
    Ok((share * f64::from(width)).floor() + f64::from(low))
}

impl Generator {
    fn draw(&self) -> i64 {
        let next = MULTIPLIER.wrapping_mul(self.0.load(Ordering::Relaxed)).wrapping_add(INCREMENT) & STATE_MASK;
        self.0.store(next, Ordering::Relaxed);
        machine_i64((next >> 17) as f64)
    }
}

fn seeded(seed: i32) -> u64 {
    (u64::from(seed as u32) << 16) | SEED_LOW
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::{Generator, seeded};

    #[test]
    fn the_first_draws_of_seed_zero_are_those_of_lrand48() {
        let generator = Generator(AtomicU64::new(seeded(0)));
        let draws: Vec<i64> = (0..3).map(|_| generator.draw()).collect();
        assert_eq!(draws, [366_850_414, 1_610_402_240, 206_956_554]);
    }
}
