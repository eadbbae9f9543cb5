//! The contract, on the Redis driver over a Cluster of its own: three primaries with a replica each, with a password.

mod shared;

use std::process::ExitCode;

use acteon_state_redis::RedisConfig;
use acteon_test_support::RedisCluster;

use shared::Redis;

fn main() -> ExitCode {
    let cluster = match RedisCluster::start(Some("data1"), &[]) {
        Ok(cluster) => cluster,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let servers = cluster.nodes.iter().take(3).map(|node| node.url()).collect();
    match RedisConfig::from_url(&cluster.url()) {
        Ok(config) => acteon_state_conformance::main(Redis { config, servers }),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
