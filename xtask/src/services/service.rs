//! What is told apart between the servers: one description each.

use std::ffi::OsString;
use std::path::PathBuf;

use acteon_test_support::{
    PGBOUNCER_ENV, POSTGRES_BIN_ENV, POSTGRES_TEMPLATE_ENV, POSTGRES_URL_ENV, PostgresOptions, PostgresServer,
    PostgresTemplate, REDIS_SERVER_ENV, REDIS_URL_ENV, RedisOptions, RedisServer, StartError, pgbouncer_program,
    postgres_bin_folder, postgres_url_from_env, redis_server_program, redis_url_from_env,
};

/// A server that suites need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Redis,
    Postgres,
}

/// Everything that differs between one server and another.
pub(super) struct Description {
    /// As it is called in the list of suites, and by the helper that runs containers.
    pub(super) name: &'static str,
    /// Names the variable with the URL.
    pub(super) url_variable: &'static str,
    pub(super) given_url: fn() -> Option<String>,
    pub(super) schemes: &'static [&'static str],
    pub(super) default_port: u16,
    /// What tests need to start servers of their own.
    pub(super) programs: &'static [Program],
    pub(super) start: fn() -> Result<Started, StartError>,
    /// Why a test that needs programs was ignored.
    pub(super) no_programs: &'static str,
    pub(super) how_to_get: &'static str,
}

/// A program, or a folder of programs, that tests start.
pub(super) struct Program {
    pub(super) find: fn() -> Option<PathBuf>,
    /// Names the variable by which tests are told where it is.
    pub(super) variable: &'static str,
    /// The Debian package that has it.
    pub(super) package: &'static str,
}

/// A server that was started here; it ends when dropped.
pub(super) enum Started {
    Redis(Box<RedisServer>),
    Postgres(Box<(PostgresServer, PostgresTemplate)>),
}

const REDIS: Description = Description {
    name: "redis",
    url_variable: REDIS_URL_ENV,
    given_url: redis_url_from_env,
    schemes: &["redis://", "rediss://"],
    default_port: 6379,
    programs: &[Program { find: redis_server_program, variable: REDIS_SERVER_ENV, package: "redis-server" }],
    start: || RedisServer::start(RedisOptions::default()).map(|server| Started::Redis(Box::new(server))),
    no_programs: "needs a redis-server program of its own, and only a URL is there",
    how_to_get: "\
no Redis to test with: there is no redis-server on the PATH, apt cannot install one here, and no Docker engine answers. Do one of:
  - Debian, Ubuntu:  sudo apt-get install redis-server
  - Fedora:          sudo dnf install valkey
  - macOS:           brew install redis
  - start Docker
  - point ACTEON_TEST_REDIS_URL at a Redis that may be filled with test data
or leave out the suites that need it: cargo xtask test --no-services",
};

const POSTGRES: Description = Description {
    name: "postgres",
    url_variable: POSTGRES_URL_ENV,
    given_url: postgres_url_from_env,
    schemes: &["postgres://", "postgresql://"],
    default_port: 5432,
    programs: &[
        // Debian then also makes an empty cluster for the machine. Switching that off would mean to change the machine's settings
        // for good, so it stays: tests start servers on free ports and in folders of their own, and never touch it.
        Program { find: postgres_bin_folder, variable: POSTGRES_BIN_ENV, package: "postgresql" },
        Program { find: pgbouncer_program, variable: PGBOUNCER_ENV, package: "pgbouncer" },
    ],
    start: start_postgres,
    no_programs: "needs PostgreSQL and PgBouncer programs of its own, and only a URL is there",
    how_to_get: "\
no PostgreSQL to test with: postgres or pgbouncer is missing, apt cannot install it here, and no Docker engine answers. Do one of:
  - Debian, Ubuntu:  sudo apt-get install postgresql pgbouncer
  - Fedora:          sudo dnf install postgresql-server postgresql-contrib pgbouncer
  - macOS:           brew install postgresql pgbouncer
  - start Docker
  - point ACTEON_TEST_POSTGRES_URL at a PostgreSQL in which tests may create databases
or leave out the suites that need it: cargo xtask test --no-services",
};

fn start_postgres() -> Result<Started, StartError> {
    let template = PostgresTemplate::make()?;
    let server = PostgresServer::start(PostgresOptions::default())?;
    Ok(Started::Postgres(Box::new((server, template))))
}

impl Service {
    pub(crate) const ALL: [Self; 2] = [Self::Redis, Self::Postgres];

    /// As people call it.
    pub(crate) fn name(self) -> &'static str {
        self.description().name
    }

    /// Whether tests can start servers of this kind.
    pub(crate) fn has_programs(self) -> bool {
        self.description().programs.iter().all(|program| (program.find)().is_some())
    }

    /// Why tests that start servers of this kind were ignored.
    pub(crate) fn no_programs(self) -> &'static str {
        self.description().no_programs
    }

    pub(super) fn description(self) -> &'static Description {
        match self {
            Self::Redis => &REDIS,
            Self::Postgres => &POSTGRES,
        }
    }

    /// Every variable by which suites are told of servers of this kind.
    pub(crate) fn variables(self) -> impl Iterator<Item = &'static str> {
        let Description { url_variable, programs, .. } = self.description();
        let template = (self == Self::Postgres).then_some(POSTGRES_TEMPLATE_ENV);
        programs.iter().map(|program| program.variable).chain([*url_variable]).chain(template)
    }
}

impl Started {
    pub(super) fn url(&self) -> String {
        match self {
            Self::Redis(server) => server.url(),
            Self::Postgres(started) => started.0.url(),
        }
    }

    /// What helps tests beyond the URL.
    pub(super) fn environment(&self) -> Option<(&'static str, OsString)> {
        match self {
            Self::Redis(_) => None,
            Self::Postgres(started) => Some((POSTGRES_TEMPLATE_ENV, started.1.path().as_os_str().to_owned())),
        }
    }
}
