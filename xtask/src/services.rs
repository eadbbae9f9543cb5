//! Finds or starts the servers that suites need, and stops what it started.
//!
//! # Where Redis comes from, in this order
//! 1. `ACTEON_TEST_REDIS_URL`, when set: used as it is and left running.
//! 2. A redis-server on the PATH (or named by `ACTEON_TEST_REDIS_SERVER`), on a free port and in a temporary folder.
//! 3. The same, after installing it with apt where that needs no password.
//! 4. Redis in Docker.
//! 5. Otherwise the task fails and says what to install.
//!
//! # Failure
//! A given URL at which nothing answers is an error, not a reason to look further: whoever sets it wants that server tested.

mod apt;
mod container;

use std::ffi::OsString;
use std::net::{TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use acteon_test_support::{
    REDIS_SERVER_ENV, REDIS_URL_ENV, RedisOptions, RedisServer, redis_server_program, redis_url_from_env,
};

use self::container::Container;
use crate::Failure;
use crate::interrupt::Interrupt;
use crate::workspace::Workspace;

/// The servers that are up. Dropping it stops those that were started here.
pub(crate) struct Services {
    redis: Redis,
}

enum Redis {
    Given(String),
    Started(RedisServer),
    InDocker(Container),
}

const HOW_TO_GET_REDIS: &str = "\
no Redis to test with: there is no redis-server on the PATH, apt cannot install one here, and no Docker engine answers. Do one of:
  - Debian, Ubuntu:  sudo apt-get install redis-server
  - Fedora:          sudo dnf install valkey
  - macOS:           brew install redis
  - start Docker
  - point ACTEON_TEST_REDIS_URL at a Redis that may be filled with test data
or leave out the suites that need it: cargo xtask test --no-services";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const INTERRUPT_POLL: Duration = Duration::from_millis(100);

/// `cargo xtask services`: the servers stay up until Ctrl-C.
pub(crate) fn run(workspace: &Workspace, interrupt: &Interrupt) -> Result<(), Failure> {
    let services = Services::start(workspace, interrupt)?;
    for (name, value) in services.environment() {
        println!("export {name}={}", value.to_string_lossy());
    }
    println!("# running until Ctrl-C");
    while !interrupt.requested() {
        thread::sleep(INTERRUPT_POLL);
    }
    drop(services);
    Ok(())
}

impl Services {
    pub(crate) fn start(workspace: &Workspace, interrupt: &Interrupt) -> Result<Self, Failure> {
        let redis = start_redis(workspace, interrupt)?;
        let services = Self { redis };
        eprintln!("redis: {} ({})", services.redis.url_without_password(), services.redis.origin());
        Ok(services)
    }

    /// The variables by which suites find the servers.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = vec![(REDIS_URL_ENV, OsString::from(self.redis.url()))];
        if let Some(program) = redis_server_program() {
            variables.push((REDIS_SERVER_ENV, program.into_os_string()));
        }
        variables
    }

    /// Whether tests can start servers of their own.
    pub(crate) fn private_servers(&self) -> bool {
        redis_server_program().is_some()
    }
}

impl Redis {
    fn url(&self) -> String {
        match self {
            Self::Given(url) => url.clone(),
            Self::Started(server) => server.url(),
            Self::InDocker(container) => container.url().to_owned(),
        }
    }

    /// For the terminal and for logs of CI.
    fn url_without_password(&self) -> String {
        let url = self.url();
        match (url.find("://"), url.rfind('@')) {
            (Some(scheme), Some(at)) if scheme < at => {
                format!("{}://***{}", &url[..scheme], &url[at..])
            }
            _ => url,
        }
    }

    fn origin(&self) -> &'static str {
        match self {
            Self::Given(_) => "given by ACTEON_TEST_REDIS_URL",
            Self::Started(_) => "started",
            Self::InDocker(_) => "started in Docker",
        }
    }
}

fn start_redis(workspace: &Workspace, interrupt: &Interrupt) -> Result<Redis, Failure> {
    if let Some(url) = redis_url_from_env() {
        require_answer(&url)?;
        return Ok(Redis::Given(url));
    }
    if redis_server_program().is_none() {
        apt::install("redis-server", interrupt)?;
    }
    if redis_server_program().is_some() {
        return Ok(Redis::Started(RedisServer::start(RedisOptions::default())?));
    }
    if container::docker_answers() {
        return Container::start(workspace, interrupt).map(Redis::InDocker);
    }
    Err(Failure(HOW_TO_GET_REDIS.to_owned()))
}

/// Fails early when nothing listens at a `redis://` URL. Other kinds of URL are left to the driver under test.
fn require_answer(url: &str) -> Result<(), Failure> {
    let Some(authority) = authority(url) else {
        return Ok(());
    };
    let refused = |reason: String| Failure(format!("{REDIS_URL_ENV}: {authority} does not answer: {reason}"));
    let addresses = authority.to_socket_addrs().map_err(|error| refused(error.to_string()))?;
    let mut last_error = "the name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(error) => last_error = error.to_string(),
        }
    }
    Err(refused(last_error))
}

/// `host:port` of a `redis://` or `rediss://` URL.
fn authority(url: &str) -> Option<String> {
    const DEFAULT_PORT: u16 = 6379;
    let rest = url.strip_prefix("redis://").or_else(|| url.strip_prefix("rediss://"))?;
    let authority = rest.split(['/', '?']).next()?;
    let address = authority.rsplit('@').next()?;
    let port_follows = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Some(if port_follows { address.to_owned() } else { format!("{address}:{DEFAULT_PORT}") })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::{Redis, authority, require_answer};

    #[test]
    fn the_address_is_found_in_each_form_of_url() {
        let cases = [
            ("redis://localhost", Some("localhost:6379")),
            ("redis://:secret@localhost:7000/3", Some("localhost:7000")),
            ("rediss://user:p:w@[::1]:7000?x=1", Some("[::1]:7000")),
            ("redis://[::1]", Some("[::1]:6379")),
            ("unix:///tmp/redis.sock", None),
        ];
        for (url, expected) in cases {
            assert_eq!(authority(url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn a_given_url_without_a_server_is_refused_by_name() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let failure = require_answer(&format!("redis://{free}")).unwrap_err();
        assert!(failure.0.contains("ACTEON_TEST_REDIS_URL") && failure.0.contains(&free.to_string()), "{}", failure.0);
    }

    #[test]
    fn passwords_are_not_printed() {
        let given = |url: &str| Redis::Given(url.to_owned()).url_without_password();
        assert_eq!(given("redis://user:s@cret@host:1"), "redis://***@host:1");
        assert_eq!(given("redis://host:1"), "redis://host:1");
    }
}
