//! The contract, on the Redis driver over Sentinels: a primary, two replicas and three Sentinels of its own, with passwords.

mod shared;

use std::process::ExitCode;

use acteon_state_redis::RedisConfig;
use acteon_test_support::{RedisSentinels, SentinelOptions};

use shared::Redis;

fn main() -> ExitCode {
    let options = SentinelOptions {
        password: Some("data1".to_owned()),
        sentinel_password: Some("watch2".to_owned()),
        ..SentinelOptions::default()
    };
    let group = match RedisSentinels::start(options) {
        Ok(group) => group,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    match RedisConfig::from_url(&group.url()) {
        Ok(config) => acteon_state_conformance::main(Redis { config, servers: vec![group.nodes[0].url()] }),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
