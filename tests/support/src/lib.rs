//! Real servers and network faults for tests.
//!
//! # What it promises
//! A [`RedisServer`] or a [`PostgresServer`] is a real server of the test's own: on a free port of 127.0.0.1, in a folder of its own,
//! and gone when the value is dropped, when the test panics, and (on Linux) when the test process is killed. A test may kill it
//! without warning, freeze it and bring it back on the same port. [`RedisSentinels`] are a primary, its replicas and
//! the Sentinels that watch them; a [`RedisCluster`] is three primaries with a replica each. An `Authority` (feature `certificates`) makes
//! certificates for them. A PostgreSQL can have standbys, which can be promoted, and a
//! [`PgBouncer`] in front. A [`FaultProxy`] stands between a client and any TCP server and delays, holds back, swallows or cuts the
//! traffic. An [`EngineServer`] is the `engine` command of the dispatch server, with a directory. A [`FakeClock`] steps the wall clock of a server or a client, and a [`SmallDisk`] is one that a server can fill.
//!
//! A `DynamoServer` (feature `dynamodb`) is an emulator inside the test's process, which needs no program. A `DynamoProxy` stands
//! before it, or before another one, and loses, delays or refuses single requests, before or after they are carried out.
//!
//! # Where servers come from
//! `cargo xtask test` exports what it found; tests never install anything themselves:
//! - [`REDIS_URL_ENV`], [`POSTGRES_URL_ENV`], [`DYNAMODB_URL_ENV`]: a running server, shared by all tests. Use fresh keys, or a fresh
//!   database, and leave its settings alone.
//! - [`REDIS_SERVER_ENV`], [`POSTGRES_BIN_ENV`], [`PGBOUNCER_ENV`], [`FAKETIME_ENV`]: the programs from which servers are started; without them, the
//!   PATH and the places where distributions keep them are searched. [`POSTGRES_TEMPLATE_ENV`] makes that faster.
//! - [`SERVER_ENV`]: the dispatch server that was built with the tests, for suites that start it as a process.
//!
//! With a URL but no program, tests that need a server of their own cannot run. Such tests live in a module called
//! [`PRIVATE_SERVER_MODULE`], so that `cargo xtask test` finds them by name and reports them as ignored. When run by hand without a
//! program they fail and say what is missing; they never pass unseen.
//!
//! When the tests run as root, servers that refuse root run as `postgres` or `nobody`. The folder for temporary files must then be
//! one that others may pass through.
//!
//! # Failure
//! Starting a server fails with [`StartError`], which shows the end of the server's log.

mod account;
#[cfg(feature = "certificates")]
mod certificates;
#[cfg(feature = "dynamodb")]
mod dynamo_proxy;
#[cfg(feature = "dynamodb")]
mod dynamo_server;
mod engine_server;
mod environment;
mod fake_clock;
mod pgbouncer;
mod postgres_server;
mod process;
#[cfg(feature = "proxy")]
mod proxy;
mod redis_cluster;
mod redis_sentinels;
mod redis_server;
mod resp;
mod server_process;
mod small_disk;

#[cfg(feature = "certificates")]
pub use certificates::{Authority, Identity};
#[cfg(feature = "dynamodb")]
pub use dynamo_proxy::{DynamoError, DynamoFault, DynamoProxy};
#[cfg(feature = "dynamodb")]
pub use dynamo_server::DynamoServer;
pub use engine_server::{EngineOptions, EngineServer, verify_engine_dir};
pub use environment::{
    DYNAMODB_URL_ENV, FAKETIME_ENV, PGBOUNCER_ENV, POSTGRES_BIN_ENV, POSTGRES_TEMPLATE_ENV, POSTGRES_URL_ENV,
    PRIVATE_SERVER_MODULE, REDIS_SERVER_ENV, REDIS_URL_ENV, SERVER_ENV, acteon_server_program, dynamodb_url_from_env,
    faketime_library, find_program, pgbouncer_program, postgres_bin_folder, postgres_url_from_env,
    redis_server_program, redis_url_from_env,
};
pub use fake_clock::FakeClock;
pub use pgbouncer::{PgBouncer, PoolMode};
pub use postgres_server::{PostgresDisk, PostgresOptions, PostgresServer, PostgresTemplate, PostgresTls};
pub use process::{supervised, supervised_command};
#[cfg(feature = "proxy")]
pub use proxy::{Fault, FaultProxy};
pub use redis_cluster::RedisCluster;
pub use redis_sentinels::{RedisSentinels, SentinelOptions, SentinelTls};
pub use redis_server::{RedisOptions, RedisServer, RedisTls};
pub use server_process::StartError;
pub use small_disk::SmallDisk;
