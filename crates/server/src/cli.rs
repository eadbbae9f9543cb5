//! The command line.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::config::Sources;
use crate::locks::LocksCommand;

// Lines of at most 80 columns, so that no terminal breaks them.
const EXAMPLES: &str = "\
Examples:
  acteon-server
      with ./acteon.toml if there is one, otherwise with the defaults
  acteon-server -c acteon.toml check
      is it valid, does the backend answer, what do its locks guarantee?
  acteon-server -c acteon.toml migrate
      create or update the tables of a backend that has some, and exit
  acteon-server -c acteon.toml locks list demo:acme:action --held
      who holds the locks of tenant acme's actions, since when?
  acteon-server -c acteon.toml locks release KEY --reason 'node 3 is gone'
      take a lock from whoever holds it
  acteon-server engine --listen 127.0.0.1:6380
      run the engine alone, for any Redis client
  acteon-server engine import /var/lib/redis --into ./data
      take over the data of a Redis, for an engine whose dir that is
  acteon-server engine backup ./data --to ./backup-monday
      copy the data, also while an engine uses them
  acteon-server engine verify ./backup-monday
      read it all: can it be used?
  ACTEON__STATE__BACKEND=redis ACTEON__STATE__URL=redis://db:6379 acteon-server
      every option has a variable: ACTEON__SECTION__KEY
  acteon-server --host 0.0.0.0 --port 80
      for other machines: put something in front that authenticates them

Settings, later ones win: defaults, file, environment, command line.

Signals:
  SIGTERM, SIGINT  finish what is under way and stop; a second one stops at once
  SIGHUP           read the rules again; if they are bad, the old ones stay

Exit codes: 0 after a clean stop, a successful check or migration, a lock that
was found; 1 when it cannot start, or something is wrong or missing; 2 for
wrong arguments.";

/// Dispatches actions: decides by rules whether they may be executed, are duplicates, come too often or go elsewhere,
/// and has them executed by providers, once.
///
/// Without a command the server runs in the foreground and logs to stderr.
#[derive(Clone, Debug, Parser)]
#[command(name = "acteon-server", version, after_long_help = EXAMPLES, after_help = "--help shows examples.")]
pub struct Cli {
    /// The configuration file [default: ./acteon.toml, if there is one]
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// The address or name that the HTTP server listens on, instead of the configured one
    #[arg(long, value_name = "HOST", global = true)]
    host: Option<String>,

    /// The port that the HTTP server listens on, instead of the configured one; 0 chooses a free one
    #[arg(long, value_name = "PORT", global = true)]
    port: Option<u16>,

    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the server (the default)
    Serve,
    /// Check the configuration and the rules, connect to the backend, and print what it can do and what its locks guarantee
    ///
    /// Prints the configuration in force, with secrets as ***. Nothing is written to the backend. The exit code is 1 when
    /// something is wrong, also when an optional backend does not answer.
    Check,
    /// Create or update the tables of the backend, for data and locks, and print the versions before and after
    ///
    /// A server does the same when it starts, unless its backend is set to migrate = "check". Run this where the server's own role
    /// may not create tables, with the URL of one that may: ACTEON__STATE__URL. Safe while servers run, and on several machines at
    /// once. Backends without tables have nothing to migrate.
    Migrate {
        /// Change nothing; only say what there is to do. The exit code is 1 when there is something
        #[arg(long)]
        check: bool,
    },
    /// Show who holds which lock, and release locks by force
    ///
    /// Asks the backend of the configuration, so it works beside running servers and without any. With backend = "memory" the locks
    /// are in the server's process: ask it over HTTP.
    Locks {
        /// What to do with them
        #[command(subcommand)]
        command: LocksCommand,
    },
    /// Run the engine alone, for Redis clients: no rules, no providers, no HTTP; or look after its directory
    ///
    /// Reads the sections engine and state of the configuration; the backend must be memory. Everything else in it is checked and not used.
    /// The commands about a directory read no configuration, and need that no process uses the directory; only of a backup it may be in use.
    #[command(args_conflicts_with_subcommands = true)]
    Engine {
        /// What to do with a directory, instead of running
        #[command(subcommand)]
        command: Option<EngineCommand>,
        /// Where to listen, instead of the configured addresses [default: 127.0.0.1:6380, if none is configured]
        #[arg(long, value_name = "HOST:PORT")]
        listen: Vec<String>,
    },
}

/// What to do with the directory in which an engine keeps its data.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum EngineCommand {
    /// Read everything in a directory and say whether it can be used. The exit code is 1 when something is wrong
    Verify {
        /// The directory
        dir: PathBuf,
        /// Keep what comes before the damage; what comes after it is kept aside and does not count any more
        #[arg(long)]
        repair: bool,
    },
    /// Take over the data of a Redis, for a new directory
    Import {
        /// An RDB file, an append-only file, or the directory of a Redis
        #[arg(value_name = "FILE-OR-DIR")]
        from: PathBuf,
        /// The new directory
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
        /// Leave out what the engine has not, such as streams and values of modules, and say how much that was
        #[arg(long)]
        skip_unsupported: bool,
    },
    /// Write the data to an RDB file, which a Redis 7.0 loads
    Export {
        /// The directory
        dir: PathBuf,
        /// The new file
        #[arg(long, value_name = "FILE.rdb")]
        to: PathBuf,
    },
    /// Copy a directory, as of its last whole change; a running engine may use it, and does not notice
    Backup {
        /// The directory
        dir: PathBuf,
        /// The new directory
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Make a new directory of a backup, and verify both
    Restore {
        /// The backup
        backup: PathBuf,
        /// The new directory
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
}

impl Cli {
    /// The arguments of this process. What is wrong with them is printed and ends it, with exit code 2.
    #[must_use]
    pub fn of_process() -> Self {
        Self::parse().checked().unwrap_or_else(|error| error.exit())
    }

    /// What to do.
    #[must_use]
    pub fn command(&self) -> Command {
        self.command.clone().unwrap_or(Command::Serve)
    }

    /// Where the configuration comes from.
    #[must_use]
    pub fn sources(&self) -> Sources {
        let environment = std::env::vars_os();
        Sources {
            file: self.config.clone(),
            host: self.host.clone(),
            port: self.port,
            engine_listen: self.engine_listen(),
            ..Sources::with_env(environment)
        }
    }
}

impl Cli {
    /// Refuses what would be ignored.
    fn checked(self) -> Result<Self, clap::Error> {
        if self.config.is_some() && matches!(self.command, Some(Command::Engine { command: Some(_), .. })) {
            let message =
                "the commands about a directory read no configuration: leave --config away, and name the directory";
            return Err(<Self as CommandFactory>::command().error(ErrorKind::ArgumentConflict, message));
        }
        let message = match &self.command {
            Some(Command::Engine { .. }) => {
                "--host and --port are those of the HTTP server, which does not run here; use --listen HOST:PORT"
            }
            Some(Command::Locks { .. }) => {
                "--host and --port are those of the HTTP server, which is not asked; the backend in the configuration is"
            }
            _ => return Ok(self),
        };
        if self.host.is_some() || self.port.is_some() {
            return Err(<Self as CommandFactory>::command().error(ErrorKind::ArgumentConflict, message));
        }
        Ok(self)
    }

    fn engine_listen(&self) -> Vec<String> {
        match &self.command {
            Some(Command::Engine { listen, .. }) => listen.clone(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use clap::{CommandFactory, Parser};

    use super::{Cli, Command, EXAMPLES, EngineCommand};

    #[test]
    fn arguments_are_consistent() {
        <Cli as CommandFactory>::command().debug_assert();
    }

    #[test]
    fn serving_is_the_default_and_options_stand_on_either_side_of_a_command() {
        assert_eq!(Cli::parse_from(["acteon-server", "-c", "a.toml"]).command(), Command::Serve);
        for arguments in [["acteon-server", "check", "-c", "a.toml"], ["acteon-server", "-c", "a.toml", "check"]] {
            let cli = Cli::parse_from(arguments);
            assert_eq!((cli.command(), cli.config.as_deref()), (Command::Check, Some("a.toml".as_ref())));
        }
    }

    #[test]
    fn the_engine_alone_listens_where_it_is_told() {
        let cli = Cli::parse_from(["acteon-server", "engine", "--listen", "127.0.0.1:0", "--listen", "[::1]:0"]);
        assert_eq!(cli.sources().engine_listen, ["127.0.0.1:0", "[::1]:0"]);
        assert!(Cli::parse_from(["acteon-server", "engine"]).sources().engine_listen.is_empty());
    }

    #[test]
    fn each_command_about_a_directory_is_what_was_written() {
        let parse = |line: &str| {
            let arguments = ["acteon-server", "engine"].into_iter().chain(line.split(' '));
            match Cli::try_parse_from(arguments).map(|cli| cli.command()) {
                Ok(Command::Engine { command: Some(command), .. }) => Ok(command),
                Ok(other) => panic!("{line}: {other:?}"),
                Err(error) => Err(error.kind()),
            }
        };
        let (one, two) = (|| "one".into(), || "two".into());
        for (line, expected) in [
            ("verify one", EngineCommand::Verify { dir: one(), repair: false }),
            ("verify one --repair", EngineCommand::Verify { dir: one(), repair: true }),
            ("import one --into two", EngineCommand::Import { from: one(), into: two(), skip_unsupported: false }),
            (
                "import --skip-unsupported --into two one",
                EngineCommand::Import { from: one(), into: two(), skip_unsupported: true },
            ),
            ("export one --to two", EngineCommand::Export { dir: one(), to: two() }),
            ("backup one --to two", EngineCommand::Backup { dir: one(), to: two() }),
            ("restore one --into two", EngineCommand::Restore { backup: one(), into: two() }),
        ] {
            assert_eq!(parse(line), Ok(expected), "{line}");
        }
        for line in ["verify", "import one", "export one", "backup one", "restore one"] {
            assert_eq!(parse(line), Err(ErrorKind::MissingRequiredArgument), "{line}");
        }
        assert_eq!(parse("verify one --listen 127.0.0.1:1"), Err(ErrorKind::UnknownArgument));
    }

    /// It was taken, not read, and might not even be there.
    #[test]
    fn configuration_is_refused_where_none_is_read() {
        for arguments in [["-c", "a.toml", "engine", "verify", "one"], ["engine", "verify", "one", "-c", "a.toml"]] {
            let cli = Cli::parse_from(["acteon-server"].into_iter().chain(arguments));
            let refused = cli.checked().expect_err("not read");
            assert_eq!(refused.kind(), ErrorKind::ArgumentConflict);
            assert!(refused.to_string().contains("read no configuration"), "{refused}");
        }
        assert!(Cli::parse_from(["acteon-server", "-c", "a.toml", "engine"]).checked().is_ok());
    }

    #[test]
    fn examples_are_such_as_can_be_written() {
        let mut examples = 0;
        for line in EXAMPLES.lines() {
            assert!(line.len() <= 80, "{line}");
            let Some((_, arguments)) = line.split_once("acteon-server") else { continue };
            let arguments = arguments.replace("KEY", "demo:acme:action:greet");
            // What is quoted is one argument.
            let quoted = arguments.split('\'').enumerate();
            let words = quoted.flat_map(|(number, part)| match number % 2 {
                0 => part.split_whitespace().collect(),
                _ => vec![part],
            });
            let cli = Cli::try_parse_from(["acteon-server"].into_iter().chain(words));
            cli.and_then(Cli::checked).unwrap_or_else(|error| panic!("{line}: {error}"));
            examples += 1;
        }
        assert!(examples > 10, "{examples}");
    }

    #[test]
    fn options_of_the_http_server_are_refused_where_it_does_not_run() {
        for option in ["--port=6380", "--host=::1"] {
            let refused = Cli::parse_from(["acteon-server", "engine", option]).checked().expect_err(option);
            assert_eq!(refused.kind(), ErrorKind::ArgumentConflict);
            assert!(refused.to_string().contains("use --listen HOST:PORT"), "{refused}");
            let locks = Cli::parse_from(["acteon-server", "locks", "list", "shop:acme:till", option]);
            assert!(locks.checked().expect_err(option).to_string().contains("which is not asked"));
            assert!(Cli::parse_from(["acteon-server", option]).checked().is_ok());
        }
    }

    #[test]
    fn a_lock_is_released_by_force_only_with_a_reason() {
        let release = |more: &[&str]| {
            let arguments = ["acteon-server", "locks", "release", "shop:acme:till:1"].iter().chain(more);
            Cli::try_parse_from(arguments).map(|cli| cli.command()).map_err(|error| error.kind())
        };
        assert_eq!(release(&[]), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(release(&["--reason", " "]), Err(ErrorKind::ValueValidation));
        assert!(matches!(release(&["--reason", "stuck"]), Ok(Command::Locks { .. })));
        for prefix in ["shop", "shop:acme:till:*"] {
            let refused = Cli::try_parse_from(["acteon-server", "locks", "list", prefix]).expect_err(prefix);
            assert_eq!(refused.kind(), ErrorKind::ValueValidation);
        }
    }

    #[test]
    fn migrating_changes_something_unless_told_to_check() {
        for (arguments, check) in
            [(&["acteon-server", "migrate"][..], false), (&["acteon-server", "migrate", "--check"], true)]
        {
            assert_eq!(Cli::parse_from(arguments).command(), Command::Migrate { check });
        }
    }
}
