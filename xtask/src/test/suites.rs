//! Which suites there are. A new package is a suite by itself.

use std::collections::BTreeSet;
use std::fmt;

use crate::Failure;
use crate::services::{CLIENT_TOOLS, CLOCK_TOOLS, Service, Tool};
use crate::workspace::{Package, Workspace};

/// Tests that are run and reported together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    pub(crate) name: String,
    /// The packages whose test programs belong to it.
    pub(crate) packages: Vec<String>,
    /// The real servers that its integration tests talk to.
    pub(crate) needs: &'static [Service],
    /// The programs that they run besides.
    pub(crate) tools: &'static [Tool],
    /// Whether its tests start the dispatch server as a process.
    pub(crate) starts_server: bool,
    pub(crate) kind: Kind,
}

/// Where the tests of a suite are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In the test programs of its packages.
    Programs,
    /// In a build of the engine for a model checker, which tries the orders in which threads can take locks.
    Interleavings,
    /// Those of the contract on the Redis driver, over servers that run in Docker.
    RedisInDocker,
    /// In the documentation of all packages: its examples.
    Docs,
}

/// Suites that belong to no package, and the packages whose programs they run all the same.
const SUITES_APART: &[(&str, Kind, &[&str])] = &[
    ("interleavings", Kind::Interleavings, &[]),
    ("redis-in-docker", Kind::RedisInDocker, &["acteon-state-redis"]),
    ("docs", Kind::Docs, &[]),
];

/// The real servers that the integration tests of a suite talk to.
const NEEDS: &[(&str, &[Service])] = &[
    ("dispatch", &[Service::Redis]),
    ("e2e", &[Service::Redis, Service::Postgres]),
    ("engine-tests", &[Service::Redis]),
    ("faults", &[Service::Redis, Service::Postgres]),
    ("server", &[Service::Postgres]),
    ("state-postgres", &[Service::Postgres]),
    ("state-redis", &[Service::Redis]),
    ("test-support", &[Service::Redis, Service::Postgres]),
];

/// What the integration tests of a suite need besides servers.
const TOOLS: &[(&str, &[Tool])] =
    &[("engine-tests", CLIENT_TOOLS), ("faults", CLOCK_TOOLS), ("test-support", CLOCK_TOOLS)];

/// Suites that start the dispatch server as a process. Its own package is told by cargo where the program is.
const STARTS_SERVER: &[&str] = &["e2e", "engine-tests", "faults"];

/// All suites: one per package, in the order of their folders, then those apart.
pub(crate) fn all(workspace: &Workspace) -> Vec<Suite> {
    let mut suites: Vec<Suite> = Vec::new();
    for package in &workspace.packages {
        let name = suite_name(package);
        match suites.iter_mut().find(|suite| suite.name == name) {
            Some(suite) => suite.packages.push(package.name.clone()),
            None => suites.push(Suite {
                name: name.to_owned(),
                packages: vec![package.name.clone()],
                needs: NEEDS.iter().find(|(suite, _)| *suite == name).map_or(&[], |(_, needs)| needs),
                tools: TOOLS.iter().find(|(suite, _)| *suite == name).map_or(&[], |(_, tools)| tools),
                starts_server: STARTS_SERVER.contains(&name),
                kind: Kind::Programs,
            }),
        }
    }
    suites.extend(SUITES_APART.iter().map(|(name, kind, packages)| Suite {
        name: (*name).to_owned(),
        packages: packages.iter().map(|package| (*package).to_owned()).collect(),
        needs: &[],
        tools: &[],
        starts_server: false,
        kind: *kind,
    }));
    suites
}

/// The suites with these names; all of them when no names are given.
pub(crate) fn choose(suites: Vec<Suite>, names: &[String]) -> Result<Vec<Suite>, Failure> {
    for name in names {
        if !suites.iter().any(|suite| suite.name == *name) {
            let known: Vec<_> = suites.iter().map(|suite| suite.name.as_str()).collect();
            return Err(Failure(format!("no suite is called {name}; there are: {}", known.join(", "))));
        }
    }
    let is_chosen = |suite: &Suite| names.is_empty() || names.contains(&suite.name);
    Ok(suites.into_iter().filter(is_chosen).collect())
}

/// The servers that at least one of the suites needs.
pub(crate) fn needs(suites: &[Suite]) -> Vec<Service> {
    let needs: BTreeSet<_> = suites.iter().flat_map(|suite| suite.needs).copied().collect();
    needs.into_iter().collect()
}

/// The name that people type.
fn suite_name(package: &Package) -> &str {
    match package.short_name() {
        "tests" => "e2e",
        "state-conformance" => "conformance",
        _ if package.folder.starts_with("examples/") => "examples",
        short => short,
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if !self.needs.is_empty() {
            let names: Vec<_> = self.needs.iter().map(|service| service.name()).collect();
            write!(f, "  ({})", names.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Suite, all, choose, needs};
    use crate::services::Service;
    use crate::workspace::{Package, Workspace};

    fn suites() -> Vec<Suite> {
        let package = |(name, folder): (&str, &str)| Package {
            name: name.to_owned(),
            folder: folder.to_owned(),
            ..Package::default()
        };
        all(&Workspace {
            target: std::path::PathBuf::from("/w/target"),
            root: PathBuf::new(),
            packages: [
                ("acteon-state-conformance", "crates/state-conformance"),
                ("acteon-state-redis", "crates/state-redis"),
                ("embed", "examples/embed"),
                ("limiter", "examples/limiter"),
                ("acteon-tests", "tests"),
            ]
            .map(package)
            .into(),
        })
    }

    fn names(suites: &[Suite]) -> Vec<&str> {
        suites.iter().map(|suite| suite.name.as_str()).collect()
    }

    #[test]
    fn each_package_has_a_suite_and_examples_share_one() {
        let suites = suites();
        let apart = ["interleavings", "redis-in-docker", "docs"];
        assert_eq!(names(&suites), [&["conformance", "state-redis", "examples", "e2e"], &apart[..]].concat());
        assert_eq!(suites[2].packages, ["embed", "limiter"]);
    }

    #[test]
    fn suites_are_chosen_by_name() {
        let only = ["e2e".to_owned(), "state-redis".to_owned()];
        let chosen = choose(suites(), &only).unwrap();
        assert_eq!(names(&chosen), ["state-redis", "e2e"]);
    }

    #[test]
    fn only_the_servers_of_the_chosen_suites_are_needed() {
        let needed = |name: &str| needs(&choose(suites(), &[name.to_owned()]).unwrap());
        assert_eq!(needed("conformance"), []);
        assert_eq!(needed("state-redis"), [Service::Redis]);
        assert_eq!(needs(&suites()), [Service::Redis, Service::Postgres]);
    }

    #[test]
    fn the_list_says_which_servers_a_suite_needs() {
        let shown: Vec<_> = suites().iter().map(Suite::to_string).collect();
        assert_eq!(shown[..4], ["conformance", "state-redis  (redis)", "examples", "e2e  (redis, postgres)"]);
    }

    #[test]
    fn an_unknown_suite_is_refused_with_the_known_names() {
        let failure = choose(suites(), &["redis".to_owned()]).unwrap_err();
        assert!(failure.0.contains("called redis; there are: conformance, state-redis"), "{}", failure.0);
    }
}
