//! What is compared with a real Redis.

use std::env;
use std::io;

use crate::endpoint::{Endpoint, RealRedis, TcpEndpoint};

const URL_ENV: &str = "ACTEON_ENGINE_URL";

/// The server that `ACTEON_ENGINE_URL` names; without it a second redis-server, which shows that the comparison itself is sound.
///
/// # Errors
/// The server cannot be reached or started.
pub fn candidate() -> io::Result<Box<dyn Endpoint>> {
    Ok(match env::var(URL_ENV) {
        Ok(url) => Box::new(TcpEndpoint::new(&url)?),
        Err(_) => Box::new(RealRedis::start()?),
    })
}
