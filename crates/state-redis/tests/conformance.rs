//! The contract, on the Redis driver over a real server: the one that `ACTEON_TEST_REDIS_URL` names, otherwise one of its own.

mod shared;

use std::process::ExitCode;

use acteon_state_redis::RedisConfig;
use acteon_test_support::{RedisOptions, RedisServer, redis_url_from_env};

use shared::Redis;

fn main() -> ExitCode {
    if let Some(url) = redis_url_from_env() {
        return conformance(&url);
    }
    match RedisServer::start(RedisOptions::default()) {
        Ok(server) => conformance(&server.url()),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn conformance(url: &str) -> ExitCode {
    match RedisConfig::from_url(url) {
        Ok(config) => acteon_state_conformance::main(Redis { config, servers: vec![url.to_owned()] }),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
