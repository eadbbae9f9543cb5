//! What is compared with a real Redis.

use std::env;
use std::io;

use crate::embedded::EmbeddedEngine;
use crate::endpoint::{Endpoint, RealRedis, TcpEndpoint};

const URL_ENV: &str = "ACTEON_ENGINE_URL";

/// As a URL: a second redis-server, which shows that the comparison itself is sound.
const SELF_CHECK: &str = "redis-server";

/// The engine in this process, or what `ACTEON_ENGINE_URL` names.
///
/// # Errors
/// The server cannot be reached or started.
pub fn candidate() -> io::Result<Box<dyn Endpoint>> {
    Ok(match env::var(URL_ENV) {
        Ok(url) if url == SELF_CHECK => Box::new(RealRedis::start()?),
        Ok(url) => Box::new(TcpEndpoint::new(&url)?),
        Err(_) => Box::new(EmbeddedEngine::new()),
    })
}
