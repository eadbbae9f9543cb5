//! `cargo xtask test`: everything from servers to the summary.
//!
//! # What it promises
//! A test that did not run is never counted as passed: it is ignored, with the reason in the summary. Without `--no-services` a
//! server that cannot be had is a failure. What was started is stopped, also after a failure or Ctrl-C, and the temporary files of
//! the suites go with it.
//!
//! # How it works
//! One build makes the test programs of all packages with the same features, so nothing is compiled twice; then the programs run one
//! after the other, each in the folder of its package, as `cargo test` would run them. Counts are read from their result lines.

pub(crate) mod build;
mod outcome;
mod suites;

use std::fs::Permissions;
use std::io;
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use acteon_test_support::{PRIVATE_SERVER_MODULE, REDIS_URL_ENV, SERVER_ENV, supervised_command};
use clap::Args;
use tempfile::TempDir;

use self::build::TestProgram;
use self::outcome::{Outcome, Results};
use self::suites::{Kind, Suite};
use crate::Failure;
use crate::interrupt::Interrupt;
use crate::process::run_by_line;
use crate::services::{Container, Service, Services, docker_answers};
use crate::workspace::{Workspace, cargo};

#[derive(Args)]
pub(crate) struct TestArguments {
    /// Run only this suite, such as state-redis; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Start no servers; what needs them is reported as ignored
    #[arg(long)]
    no_services: bool,
    /// List the suites and the servers that they need
    #[arg(long)]
    list: bool,
    /// Passed on to the test programs: parts of test names, --nocapture and the like
    #[arg(last = true)]
    passed_on: Vec<String>,
}

/// Runs the suites. `false` means that tests failed, or that none ran at all.
pub(crate) fn run(arguments: &TestArguments, workspace: &Workspace, interrupt: &Interrupt) -> Result<bool, Failure> {
    let suites = suites::choose(suites::all(workspace), &arguments.only)?;
    if arguments.list {
        suites.iter().for_each(|suite| println!("{suite}"));
        return Ok(true);
    }
    let needed = suites::needs(&suites);
    if !arguments.no_services {
        for tool in suites.iter().flat_map(|suite| suite.tools) {
            tool.require(interrupt).map_err(|Failure(missing)| Failure(format!("{missing}; {WITHOUT_TOOLS}")))?;
        }
    }
    let services = (!arguments.no_services).then(|| Services::start(&needed, workspace, interrupt)).transpose()?;
    let built = build::build(workspace, &suites, !arguments.only.is_empty(), interrupt)?;
    let run = Run {
        workspace,
        interrupt,
        services: services.as_ref(),
        server: built.server.as_deref(),
        passed_on: &arguments.passed_on,
        temporary: temporary_folder()?,
    };
    let outcomes = suites.iter().map(|suite| run.suite(suite, &built.programs)).collect::<Result<Vec<_>, _>>()?;
    print!("{}", outcome::summary(&outcomes));
    Ok(outcome::is_success(&outcomes))
}

/// A folder that others may pass through but not look into: where the tests run as root, servers that refuse root have theirs inside.
fn temporary_folder() -> io::Result<TempDir> {
    const PASS_THROUGH: u32 = 0o711;
    tempfile::Builder::new().prefix("acteon-test-").permissions(Permissions::from_mode(PASS_THROUGH)).tempdir()
}

/// What all suites of one run share.
struct Run<'a> {
    workspace: &'a Workspace,
    interrupt: &'a Interrupt,
    services: Option<&'a Services>,
    server: Option<&'a Path>,
    passed_on: &'a [String],
    // Where suites put their temporary files, so that those of killed tests are removed as well.
    temporary: TempDir,
}

// No program should come near this; one that hangs must not take CI's whole hour.
const SUITE_LIMIT: Duration = Duration::from_secs(15 * 60);

const INTERLEAVINGS_MODULE: &str = "interleavings::";

const WITHOUT_TOOLS: &str = "or leave out the suites that need it: cargo xtask test --no-services";
const NO_SERVICES: &str = "needs servers, and --no-services was given";
const NO_DOCKER: &str = "needs Docker, of which no engine answers";

/// The servers that the Redis driver is tested with where Docker is, as the helper that runs containers calls them.
const REDIS_IN_DOCKER: [&str; 2] = ["valkey8", "redis8"];
/// The program that runs the contract over one server.
const CONFORMANCE: &str = "conformance-";

/// Programs whose tests mostly wait: for servers to fail over, for leases to end.
const WAITING: [&str; 1] = ["matrix-"];
/// So many of them at once take half of the time, and still leave each enough of a processor for its timers.
const WAITING_PER_PROCESSOR: usize = 2;

impl Run<'_> {
    fn suite(&self, suite: &Suite, programs: &[TestProgram]) -> Result<Outcome, Failure> {
        println!("\n== {} ==", suite.name);
        let begin = Instant::now();
        let mut outcome = Outcome::new(&suite.name);
        match suite.kind {
            Kind::Programs => {
                for program in programs.iter().filter(|program| suite.packages.contains(&program.package)) {
                    self.program(suite, program, &mut outcome)?;
                }
            }
            Kind::Interleavings => self.interleavings(&mut outcome)?,
            Kind::RedisInDocker => self.redis_in_docker(suite, programs, &mut outcome)?,
            Kind::Docs => outcome.add(self.doc_tests()?),
        }
        outcome.seconds = begin.elapsed().as_secs_f64();
        Ok(outcome)
    }

    /// Runs one program, or counts its tests as ignored when what they need is not there.
    ///
    /// Unit tests never need a server, so only the integration tests of a suite wait for one.
    fn program(&self, suite: &Suite, program: &TestProgram, outcome: &mut Outcome) -> Result<(), Failure> {
        let mut command = self.command(program);
        command.args(self.passed_on);
        if program.is_integration && WAITING.iter().any(|name| program.name().starts_with(name)) {
            let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
            command.env("RUST_TEST_THREADS", (WAITING_PER_PROCESSOR * processors).to_string());
        }
        if program.is_integration && !suite.needs.is_empty() {
            if self.services.is_none() {
                outcome.ignore(self.list(program)?.len(), NO_SERVICES);
                return Ok(());
            }
            if let Some(service) = suite.needs.iter().find(|service| !service.has_programs()) {
                let module = format!("{PRIVATE_SERVER_MODULE}::");
                let tests = self.list(program)?;
                outcome.ignore(tests.iter().filter(|test| test.contains(&module)).count(), service.no_programs());
                command.args(["--skip", &module]);
            }
        }
        outcome.add(self.counted(&program.name(), &mut command)?);
        Ok(())
    }

    /// The tests that a model checker runs. The engine's other tests cannot run in that build: its locks work inside of the checker only.
    fn interleavings(&self, outcome: &mut Outcome) -> Result<(), Failure> {
        for program in build::interleavings(self.workspace, self.interrupt)? {
            let mut names = self.list(&program)?;
            names.retain(|name| name.contains(INTERLEAVINGS_MODULE));
            if !names.is_empty() {
                outcome.add(self.counted(&program.name(), self.command(&program).arg("--exact").args(names))?);
            } else if self.passed_on.is_empty() {
                return Err(Failure(format!("{} has no tests in {INTERLEAVINGS_MODULE}", program.name())));
            }
        }
        Ok(())
    }

    /// The contract over servers that distributions do not bring along.
    fn redis_in_docker(&self, suite: &Suite, programs: &[TestProgram], outcome: &mut Outcome) -> Result<(), Failure> {
        let is_conformance = |program: &&TestProgram| {
            suite.packages.contains(&program.package) && program.name().starts_with(CONFORMANCE)
        };
        let Some(program) = programs.iter().find(is_conformance) else {
            return Err(Failure(format!("{} has no program {CONFORMANCE}…", suite.packages.join(", "))));
        };
        let missing = match self.services {
            None => Some(NO_SERVICES),
            Some(_) => (!docker_answers()).then_some(NO_DOCKER),
        };
        if let Some(reason) = missing {
            outcome.ignore(REDIS_IN_DOCKER.len() * self.list(program)?.len(), reason);
            return Ok(());
        }
        for server in REDIS_IN_DOCKER {
            println!("-- {server}");
            let container = Container::start(server, self.workspace, self.interrupt)?;
            let mut command = self.command(program);
            command.env(REDIS_URL_ENV, container.url()).args(self.passed_on);
            outcome.add(self.counted(server, &mut command)?);
        }
        Ok(())
    }

    fn doc_tests(&self) -> Result<Results, Failure> {
        let mut command = cargo();
        command
            .args(["test", "--doc", "--workspace", "--no-fail-fast"])
            .args(build::features(&self.workspace.packages))
            .arg("--")
            .args(self.passed_on)
            .current_dir(&self.workspace.root);
        self.counted("documentation", &mut command)
    }

    /// Runs `command`, shows its output and counts its results. A program that fails beyond its results is one more failure.
    fn counted(&self, name: &str, command: &mut Command) -> Result<Results, Failure> {
        let Results { mut counts, mut failures } = Results::default();
        let mut saw_result = false;
        let status = run_by_line(command, self.interrupt, SUITE_LIMIT, |line| {
            println!("{line}");
            if let Some(result) = outcome::parse_result(line) {
                counts += result;
                saw_result = true;
            }
            failures.extend(outcome::parse_failure(line).map(str::to_owned));
        })?;
        if !status.success() && counts.failed == 0 {
            failures.push(format!("{name} ended with {status}"));
            counts.failed = 1;
        } else if status.success() && !saw_result {
            failures.push(format!("{name} printed no result"));
            counts.failed += 1;
        }
        Ok(Results { counts, failures })
    }

    /// The names of a program's tests that would run.
    fn list(&self, program: &TestProgram) -> Result<Vec<String>, Failure> {
        let mut command = self.command(program);
        command.args(self.passed_on).args(["--list", "--format", "terse"]);
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(Failure(format!("{} cannot list its tests", program.executable.display())));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    }

    /// The program in the surroundings that `cargo test` would give it, and with the servers.
    fn command(&self, program: &TestProgram) -> Command {
        let folder: &Path = &program.folder;
        let mut command = supervised_command(&program.executable);
        command.current_dir(folder).env("CARGO_MANIFEST_DIR", folder).env("TMPDIR", self.temporary.path());
        if let Some(server) = self.server {
            command.env(SERVER_ENV, server);
        }
        // First all of them, so that a suite never meets a server of which this run knows nothing.
        for variable in Service::ALL.into_iter().flat_map(Service::variables) {
            command.env_remove(variable);
        }
        if let Some(services) = self.services {
            command.envs(services.environment());
        }
        command
    }
}
