//! The contract, on the Redis driver over TLS: a server of its own whose certificate is checked, and which asks for ours.

mod shared;

use std::error::Error;
use std::process::ExitCode;

use acteon_state_redis::RedisConfig;
use acteon_test_support::{Authority, RedisOptions, RedisServer, RedisTls};

use shared::Redis;

fn main() -> ExitCode {
    match conformance() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn conformance() -> Result<ExitCode, Box<dyn Error>> {
    let authority = Authority::new("tests")?;
    let tls = authority.identity("server", &["localhost"])?.of_server(authority.ca_file());
    let options = RedisOptions { tls: Some(RedisTls { auth_clients: true, ..tls }), ..RedisOptions::default() };
    let server = RedisServer::start(options)?;
    let client = authority.identity("client", &[])?;
    let port = server.tls_port().ok_or("the server has no port for TLS")?;
    let config = RedisConfig {
        ca_file: Some(authority.ca_file()),
        cert_file: Some(client.cert_file),
        key_file: Some(client.key_file),
        ..RedisConfig::from_url(&format!("rediss://localhost:{port}"))?
    };
    Ok(acteon_state_conformance::main(Redis { config, servers: vec![server.url()] }))
}
