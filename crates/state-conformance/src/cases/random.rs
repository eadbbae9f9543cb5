//! Random sequences of all operations, on the driver and on the reference model, reply by reply.
//!
//! `ACTEON_CONFORMANCE_CASES` sets how many sequences are tried, `ACTEON_CONFORMANCE_SEED` repeats a run. A sequence that
//! fails is shrunk, and its seed is printed.

use std::cell::Cell;
use std::time::Duration;

use acteon_state_core::Scope;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestCaseError, TestError, TestRunner};
use tokio::runtime::Handle;

use crate::case::{Case, case};
use crate::factory::Time;
use crate::lab::Lab;
use crate::replay::{End, Replay};
use crate::steps::{Step, sequence};
use crate::verdict::{Failure, Verdict};

/// How many sequences are tried.
pub(crate) const CASES_ENV: &str = "ACTEON_CONFORMANCE_CASES";
/// Which random numbers they are made of.
const SEED_ENV: &str = "ACTEON_CONFORMANCE_SEED";

/// Sequences where time costs nothing.
const CASES_MANUAL: u32 = 400;
/// Sequences where it does.
const CASES_REAL: u32 = 32;
const UNIT_MANUAL: Duration = Duration::from_secs(1);
const UNIT_REAL: Duration = Duration::from_millis(40);
/// The longest unit that a busy machine is given before the sequence is given up.
const UNIT_REAL_MAX: Duration = Duration::from_millis(640);
const LENGTH_MANUAL: usize = 80;
const LENGTH_REAL: usize = 40;
/// Shrinking ends after this, with the smallest failure so far.
const SHRINK_TIME_MAX_MS: u32 = 60_000;

/// The number in a variable. One that is set to something else fails the run: it would otherwise be ignored unseen.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

/// How many sequences were asked for.
pub(crate) fn cases_asked_for() -> Option<u32> {
    number(CASES_ENV).and_then(|cases| u32::try_from(cases).ok())
}

/// Whatever the sequence, a driver answers what the model answers.
async fn random_operations_agree_with_the_model(lab: Lab) -> Verdict {
    let handle = Handle::current();
    let compared = tokio::task::spawn_blocking(move || compare(&lab, &handle));
    compared.await.map_err(|error| Failure::new(format!("the comparison panicked: {error}")))?
}

fn compare(lab: &Lab, runtime: &Handle) -> Verdict {
    let seed = number(SEED_ENV).unwrap_or_else(rand::random);
    let (cases, length) = match lab.time() {
        Time::Manual => (CASES_MANUAL, LENGTH_MANUAL),
        Time::Real => (CASES_REAL, LENGTH_REAL),
    };
    let config = Config {
        cases: cases_asked_for().unwrap_or(cases),
        failure_persistence: None,
        max_shrink_time: SHRINK_TIME_MAX_MS,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    };
    let (tried, given_up, cases) = (Cell::new(0_u32), Cell::new(0_u32), config.cases);
    let result = TestRunner::new(config).run(&sequence(length), |steps| {
        let kept_time = runtime.block_on(attempt(lab, &steps, &tried)).map_err(TestCaseError::fail)?;
        given_up.set(given_up.get() + u32::from(!kept_time));
        Ok(())
    });
    match result {
        Ok(()) if given_up.get() > cases / 2 => Err(Failure::new(format!(
            "the machine was too busy to keep the time of {} out of {cases} sequences: too little was compared",
            given_up.get()
        ))),
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, steps)) => Err(Failure::new(format!(
            "driver and model disagree: {}\n  after these steps: {steps:#?}\n  repeat with {SEED_ENV}={seed}",
            reason.message()
        ))),
        Err(TestError::Abort(reason)) => Err(Failure::new(format!("the comparison gave up: {}", reason.message()))),
    }
}

/// Tries a sequence in a scope of its own; with longer units when the machine was too busy. Returns whether it could be
/// compared in the end.
async fn attempt(lab: &Lab, steps: &[Step], tried: &Cell<u32>) -> Result<bool, String> {
    let mut unit = if lab.time() == Time::Manual { UNIT_MANUAL } else { UNIT_REAL };
    loop {
        tried.set(tried.get() + 1);
        let scope = Scope::new("conformance", "random", &format!("kind-{}", tried.get()));
        let scope = scope.map_err(|error| error.to_string())?;
        match Replay::new(lab, scope, unit).run(steps).await {
            Ok(()) => return Ok(true),
            Err(End::Mismatch(text)) => return Err(text),
            Err(End::Disturbed) if unit < UNIT_REAL_MAX => unit *= 2,
            // Nothing was proved and nothing was refuted; the other sequences go on.
            Err(End::Disturbed) => return Ok(false),
        }
    }
}

pub(crate) const CASES: &[Case] = &[case!("ALL", random_operations_agree_with_the_model)];
