//! The Acteon dispatch server: takes actions over HTTP and sees to it that each becomes an outcome.
//!
//! # Map
//! | file | what it holds |
//! |---|---|
//! | [`cli`] | arguments and the text of `--help` |
//! | [`config`] | every option with its default and bounds; file, environment, arguments |
//! | [`app`] | the wiring: from a configuration to a running server, and back |
//! | [`check`] | `acteon-server check` |
//! | [`migrate`] | `acteon-server migrate` |
//! | [`locks`] | `acteon-server locks` |
//! | [`engine`] | the engine for Redis clients, published or alone |
//! | [`http`] | routes, errors, limits, metrics, OpenAPI |
//! | [`shutdown`] | signals |
//! | [`logging`] | where log lines go |
//! | [`start_error`] | why a server did not start, for people |
//!
//! # In a test, or inside another program
//! ```no_run
//! # async fn example() -> Result<(), acteon_server::StartError> {
//! let mut config = acteon_server::Config::default();
//! config.server.port = 0;
//! let server = acteon_server::Server::start(config).await?;
//! println!("listening on {}", server.address());
//! let shutdown = acteon_server::Shutdown::default();
//! server.run(shutdown).await
//! # }
//! ```

use std::process::ExitCode;
use std::time::Duration;

use acteon_state::Migrate;
use tokio::runtime::{Builder, Runtime};
use tracing::{info, warn};

pub mod app;
pub mod check;
pub mod cli;
pub mod config;
pub mod engine;
pub mod http;
pub mod locks;
pub mod logging;
pub mod migrate;
pub mod shutdown;
pub mod start_error;

pub use app::Server;
pub use cli::Cli;
pub use config::Config;
pub use shutdown::Shutdown;
pub use start_error::StartError;

use cli::Command;

/// Does what the command line says. What goes wrong is written to stderr, and the exit code is 1.
#[must_use]
pub fn execute(cli: &Cli) -> ExitCode {
    match try_execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts a server and runs it until `shutdown` says so and what was under way is finished.
///
/// # Errors
/// [`StartError`] when it cannot start, and when its store could not keep everything in the end. Once it runs, it ends only by `shutdown`.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), StartError> {
    let Some(server) = shutdown.unless_begun(Server::start(config)).await else {
        info!("stopped before the server had started");
        return Ok(());
    };
    let server = server?;
    shutdown.reload_rules_of(server.app());
    server.run(shutdown).await
}

/// Time for threads to end what they are busy with, when all is closed: a command or script that takes forever must not keep the process.
const THREADS_END_TIMEOUT: Duration = Duration::from_secs(1);

fn try_execute(cli: &Cli) -> Result<(), StartError> {
    if let Command::Engine { command: Some(command), .. } = cli.command() {
        return look_after(&command);
    }
    let sources = cli.sources();
    let config = Config::load(&sources)?;
    // The one provider of cryptography in this process, for `rediss://` and `https://` alike.
    let installed = rustls::crypto::ring::default_provider().install_default();
    let runtime = runtime(config.server.threads)?;
    let result = match cli.command() {
        Command::Check => runtime.block_on(check::check(&config, sources.file(), &mut std::io::stdout().lock())),
        Command::Migrate { check } => {
            let how = if check { Migrate::Check } else { Migrate::Apply };
            runtime.block_on(migrate::migrate(&config, how, &mut std::io::stdout().lock()))
        }
        Command::Locks { command } => runtime.block_on(locks::locks(&config, &command, &mut std::io::stdout().lock())),
        Command::Engine { .. } => {
            logging::init(&config.server)?;
            runtime.block_on(run_engine(config))
        }
        Command::Serve => {
            logging::init(&config.server)?;
            if installed.is_err() {
                warn!("another provider of cryptography was installed before ours");
            }
            runtime.block_on(async { run(config, Shutdown::on_signals()?).await })
        }
    };
    runtime.shutdown_timeout(THREADS_END_TIMEOUT);
    result
}

/// What all work runs on.
fn runtime(threads: Option<usize>) -> Result<Runtime, StartError> {
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().map_err(|error| StartError::new("the runtime cannot be started", error))
}

#[cfg(feature = "memory")]
async fn run_engine(mut config: Config) -> Result<(), StartError> {
    if !config.engine.is_published() {
        config.engine.listen.push(engine::config::LISTEN_DEFAULT.to_owned());
        config.check_engine().map_err(|(_, why)| StartError::because("the engine cannot be run alone", why))?;
    }
    let shutdown = Shutdown::on_signals()?;
    engine::run_alone(&config, shutdown).await
}

#[cfg(feature = "memory")]
fn look_after(command: &cli::EngineCommand) -> Result<(), StartError> {
    engine::tools::run(command, &mut std::io::stdout().lock())
}

#[cfg(not(feature = "memory"))]
fn look_after(_: &cli::EngineCommand) -> Result<(), StartError> {
    Err(StartError::because("the engine was not compiled in", "build with the cargo feature `memory`"))
}

#[cfg(not(feature = "memory"))]
async fn run_engine(_: Config) -> Result<(), StartError> {
    Err(StartError::because("the engine was not compiled in", "build with the cargo feature `memory`"))
}
