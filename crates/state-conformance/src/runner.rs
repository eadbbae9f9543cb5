//! Runs cases: as a test binary, or one by name.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use acteon_state_core::{Capabilities, Result};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::{Builder, Handle};

use crate::case::{Case, all};
use crate::cases::random::cases_asked_for;
use crate::factory::Factory;
use crate::lab::{Lab, fresh_prefix};
use crate::verdict::{Failure, Verdict};

/// A case that takes longer hangs.
const CASE_TIME_MAX: Duration = Duration::from_secs(180);
/// The same for each random sequence that was asked for: on a real clock they take a second or two.
const SEQUENCE_TIME_MAX: Duration = Duration::from_secs(5);
/// Enough threads for true concurrency, whatever the machine has.
const WORKER_THREADS: usize = 4;

/// The `main` of a driver's conformance test: runs every case that the store's capabilities call for.
///
/// Takes the arguments of a Rust test binary: a filter, `--list`, `--skip`, `--exact`, `--ignored`, `--test-threads`, …
/// A case that the store does not declare the capabilities for is reported as ignored.
///
/// # Panics
/// When no runtime can be started.
#[must_use]
pub fn main(factory: impl Factory) -> ExitCode {
    let arguments = Arguments::from_args();
    let runtime = Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build();
    let runtime = runtime.expect("the operating system starts threads");
    let factory: Arc<dyn Factory> = Arc::new(factory);
    let capabilities = match runtime.block_on(probe(&*factory)) {
        Ok(capabilities) => capabilities,
        Err(error) => {
            eprintln!("the store under test does not open: {error}");
            return ExitCode::FAILURE;
        }
    };
    let trials = all().into_iter().map(|case| trial(case, &capabilities, factory.clone(), runtime.handle().clone()));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Runs the case of this name, on a runtime of the caller's: for tests of the kit, and of drivers that are broken on purpose.
///
/// # Errors
/// The case's failure; also when there is no such case, or when the store does not declare what it needs.
pub async fn run_case(factory: Arc<dyn Factory>, name: &str) -> Verdict {
    let case = all().into_iter().find(|case| case.name == name);
    let case = case.ok_or_else(|| Failure::new(format!("there is no case {name:?}")))?;
    if !case.applies(&probe(&*factory).await?, factory.is_one_driver()) {
        return Err(Failure::new(format!("the store does not declare what {name} needs: {:?}", case.needs)));
    }
    run(case, factory).await
}

async fn probe(factory: &dyn Factory) -> Result<Capabilities> {
    let prefix = fresh_prefix();
    let store = factory.open(&prefix).await?;
    let capabilities = store.capabilities().clone();
    store.close().await?;
    factory.clean(&prefix).await?;
    Ok(capabilities)
}

fn trial(case: Case, capabilities: &Capabilities, factory: Arc<dyn Factory>, runtime: Handle) -> Trial {
    let ignored = !case.applies(capabilities, factory.is_one_driver());
    let test = move || match runtime.block_on(runtime.spawn(run(case, factory))) {
        Ok(verdict) => verdict.map_err(Failed::from),
        Err(panic) => Err(Failed::from(format!("rule {}: {panic}", case.rule))),
    };
    Trial::test(case.name, test).with_kind(case.rule).with_ignored_flag(ignored)
}

async fn run(case: Case, factory: Arc<dyn Factory>) -> Verdict {
    let lab = Lab::open(factory).await?;
    let time_max = CASE_TIME_MAX.max(SEQUENCE_TIME_MAX * cases_asked_for().unwrap_or(0));
    let verdict = match tokio::time::timeout(time_max, (case.run)(lab.clone())).await {
        Ok(verdict) => verdict,
        Err(_) => Err(Failure::new(format!("the case did not end within {time_max:?}"))),
    };
    let cleaned = lab.close().await;
    verdict.map_err(|failure| Failure::nested(format!("rule {}, case {}", case.rule, case.name), &failure))?;
    cleaned.map_err(Failure::from)
}
