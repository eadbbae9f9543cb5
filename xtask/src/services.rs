//! Finds or starts the servers that suites need, and stops what it started.
//!
//! # Where Redis and PostgreSQL come from, in this order
//! 1. `ACTEON_TEST_REDIS_URL` or `ACTEON_TEST_POSTGRES_URL`, when set: used as it is and left running.
//! 2. The programs, where they are installed or named by a variable: a server on a free port and in a temporary folder.
//! 3. The same, after installing them with apt where that needs no password.
//! 4. Docker.
//! 5. Otherwise the task fails and says what to install.
//!
//! # Failure
//! A given URL at which nothing answers is an error, not a reason to look further: whoever sets it wants that server tested.

mod apt;
mod container;
mod service;
mod tool;

use std::ffi::OsString;
use std::net::{TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

pub(crate) use self::container::{Container, docker_answers};
pub(crate) use self::service::Service;
use self::service::{Description, Started};
pub(crate) use self::tool::{CLIENT_TOOLS, CLOCK_TOOLS, COUNTING_TOOLS, Tool};
use crate::Failure;
use crate::interrupt::Interrupt;
use crate::workspace::Workspace;

/// The servers that are up. Dropping it stops those that were started here.
pub(crate) struct Services(Vec<Running>);

/// One server.
struct Running {
    service: Service,
    source: Source,
}

enum Source {
    Given(String),
    Started(Started),
    InDocker(Container),
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const INTERRUPT_POLL: Duration = Duration::from_millis(100);

/// `cargo xtask services`: the servers stay up until Ctrl-C.
pub(crate) fn run(workspace: &Workspace, interrupt: &Interrupt) -> Result<(), Failure> {
    let services = Services::start(&Service::ALL, workspace, interrupt)?;
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
    /// Starts the servers of `needed`. Those before one that cannot be had are stopped again.
    pub(crate) fn start(needed: &[Service], workspace: &Workspace, interrupt: &Interrupt) -> Result<Self, Failure> {
        let mut services = Vec::new();
        for &service in needed {
            let running = Running { service, source: Source::find(service.description(), workspace, interrupt)? };
            eprintln!("{}: {} ({})", service.name(), without_password(&running.url()), running.origin());
            services.push(running);
        }
        Ok(Self(services))
    }

    /// The variables by which suites find the servers.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        self.0.iter().flat_map(Running::environment).collect()
    }
}

impl Running {
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let Description { url_variable, programs, .. } = self.service.description();
        let mut variables = vec![(*url_variable, OsString::from(self.url()))];
        variables
            .extend(programs.iter().filter_map(|program| Some((program.variable, (program.find)()?.into_os_string()))));
        if let Source::Started(started) = &self.source {
            variables.extend(started.environment());
        }
        variables
    }

    fn url(&self) -> String {
        match &self.source {
            Source::Given(url) => url.clone(),
            Source::Started(server) => server.url(),
            Source::InDocker(container) => container.url().to_owned(),
        }
    }

    fn origin(&self) -> String {
        match self.source {
            Source::Given(_) => format!("given by {}", self.service.description().url_variable),
            Source::Started(_) => "started".to_owned(),
            Source::InDocker(_) => "started in Docker".to_owned(),
        }
    }
}

impl Source {
    fn find(service: &Description, workspace: &Workspace, interrupt: &Interrupt) -> Result<Self, Failure> {
        if let Some(url) = (service.given_url)() {
            require_answer(service, &url)?;
            return Ok(Self::Given(url));
        }
        let is_missing = || service.programs.iter().filter(|program| (program.find)().is_none());
        for program in is_missing() {
            apt::install(program.package, interrupt)?;
        }
        if is_missing().next().is_none() {
            return Ok(Self::Started((service.start)()?));
        }
        if docker_answers() {
            eprintln!("the programs of {} are missing: running it in Docker", service.name);
            return Container::start(service.name, workspace, interrupt).map(Self::InDocker);
        }
        Err(Failure(service.how_to_get.to_owned()))
    }
}

/// For the terminal and for logs of CI.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}://***{}", &url[..scheme], &url[at..])
        }
        _ => url.to_owned(),
    }
}

/// Fails early when nothing listens at a URL with a host. Other kinds of URL are left to the driver under test.
fn require_answer(service: &Description, url: &str) -> Result<(), Failure> {
    let Some(authority) = authority(service, url) else {
        return Ok(());
    };
    let variable = service.url_variable;
    let refused = |reason: String| Failure(format!("{variable}: {authority} does not answer: {reason}"));
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

/// `host:port` of a URL with one host.
fn authority(service: &Description, url: &str) -> Option<String> {
    let rest = service.schemes.iter().find_map(|scheme| url.strip_prefix(scheme))?;
    let authority = rest.split(['/', '?']).next()?;
    let address = authority.rsplit('@').next()?;
    if address.is_empty() || address.contains(',') {
        return None; // PostgreSQL also takes several hosts, or a host that is named further behind
    }
    let port_follows = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Some(if port_follows { address.to_owned() } else { format!("{address}:{}", service.default_port) })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::{Service, authority, require_answer, without_password};

    #[test]
    fn the_address_is_found_in_each_form_of_url() {
        let cases = [
            (Service::Redis, "redis://localhost", Some("localhost:6379")),
            (Service::Redis, "redis://:secret@localhost:7000/3", Some("localhost:7000")),
            (Service::Redis, "rediss://user:p:w@[::1]:7000?x=1", Some("[::1]:7000")),
            (Service::Redis, "redis://[::1]", Some("[::1]:6379")),
            (Service::Redis, "unix:///tmp/redis.sock", None),
            (Service::Postgres, "postgres://user:secret@localhost/db", Some("localhost:5432")),
            (Service::Postgres, "postgresql://localhost:7000", Some("localhost:7000")),
            (Service::Postgres, "postgres:///db?host=/run/postgresql", None),
            (Service::Postgres, "postgres://user@one:5432,two:5432/db", None),
        ];
        for (service, url, expected) in cases {
            assert_eq!(authority(service.description(), url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn a_given_url_without_a_server_is_refused_by_name() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for service in Service::ALL {
            let service = service.description();
            let failure = require_answer(service, &format!("{}{free}", service.schemes[0])).unwrap_err();
            assert!(failure.0.contains(service.url_variable), "{}", failure.0);
            assert!(failure.0.contains(&free.to_string()), "{}", failure.0);
        }
    }

    #[test]
    fn what_to_install_names_every_package_and_the_variable() {
        for service in Service::ALL {
            let service = service.description();
            let packages = service.programs.iter().map(|program| program.package);
            for word in packages.chain([service.url_variable]) {
                assert!(service.how_to_get.contains(word), "{word}: {}", service.how_to_get);
            }
        }
    }

    #[test]
    fn passwords_are_not_printed() {
        assert_eq!(without_password("redis://user:s@cret@host:1"), "redis://***@host:1");
        assert_eq!(without_password("postgres://acteon:secret@host:1/db"), "postgres://***@host:1/db");
        assert_eq!(without_password("redis://host:1"), "redis://host:1");
    }
}
