//! Which crate may depend on which: arrows go one way, and a driver never names another driver.
//!
//! Dependencies of tests may go anywhere except from one driver to another: what two drivers share is tested in `tests/`.

use crate::workspace::Package;

/// What each crate may name, without the prefix `acteon-`. `DRIVERS` stands for all drivers; they have no row of their own.
/// A crate in neither place is refused: whoever adds one decides here where it belongs.
const ALLOWED: &[(&str, &[&str])] = &[
    ("state-core", &[]),
    ("resp", &[]),
    ("engine", &["resp"]),
    ("engine-disk", &["engine"]),
    ("engine-server", &["engine", "engine-disk", "resp"]),
    ("state-conformance", &["state-core"]),
    ("state", &["state-core", DRIVERS]),
    ("patterns", &["state", "state-core"]),
    ("dispatch", &["state", "state-core", "patterns"]),
    ("hot-paths", &["dispatch", "engine", "engine-disk", "engine-server", "resp", "state-core", DRIVERS]),
    ("bench", &["engine", "engine-disk", "engine-server", "state-core", "test-support", DRIVERS]),
    ("server", &["dispatch", "engine", "engine-disk", "engine-server", "state", "state-core", "patterns"]),
];

const DRIVERS: &str = "*drivers*";

/// What a driver may name: the contract, and what it drives.
const ALLOWED_FOR_DRIVERS: &[&str] = &["state-core", "engine", "engine-disk", "resp"];

/// Packages from outside that a crate must never need, and why.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("engine", "tokio", "time and I/O come into the engine from outside"),
    ("engine-disk", "tokio", "waiting is a future of any runtime, or blocks"),
    ("resp", "tokio", "bytes come and go through the caller's buffers"),
];

pub(super) fn check(packages: &[Package]) -> Vec<String> {
    packages
        .iter()
        .filter(|package| package.folder.starts_with("crates/"))
        .flat_map(|package| check_package(package, packages))
        .collect()
}

fn check_package(package: &Package, packages: &[Package]) -> Vec<String> {
    let name = package.short_name();
    let Some(allowed) = allowed(name) else {
        return vec![format!("{}: no row in xtask/src/tidy/borders.rs says what {name} may depend on", package.folder)];
    };
    let mut problems = Vec::new();
    for dependency in &package.dependencies {
        if let Some((.., why)) =
            FORBIDDEN.iter().find(|(from, to, _)| *from == name && *to == dependency.package && !dependency.is_dev)
        {
            problems.push(format!("{}: must not depend on {}: {why}", package.folder, dependency.package));
        }
        let Some(target) = packages.iter().find(|other| other.name == dependency.package) else {
            continue;
        };
        let target = target.short_name();
        if is_driver(name) && is_driver(target) {
            problems.push(format!("{}: a driver must not name another driver, {target}", package.folder));
        } else if !dependency.is_dev && !permits(allowed, target) {
            problems.push(format!("{}: must not depend on {target}; arrows go one way", package.folder));
        }
    }
    problems
}

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    if is_driver(name) {
        return Some(ALLOWED_FOR_DRIVERS);
    }
    ALLOWED.iter().find(|(row, _)| *row == name).map(|(_, allowed)| *allowed)
}

fn permits(allowed: &[&str], target: &str) -> bool {
    allowed.contains(&target) || (is_driver(target) && allowed.contains(&DRIVERS))
}

/// Drivers are recognised by name, so that a new one needs no line here.
fn is_driver(name: &str) -> bool {
    name.strip_prefix("state-").is_some_and(|rest| !matches!(rest, "core" | "conformance"))
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::workspace::{Dependency, Package};

    fn package(name: &str, dependencies: &[(&str, bool)]) -> Package {
        Package {
            name: format!("acteon-{name}"),
            folder: format!("crates/{name}"),
            features: Vec::new(),
            dependencies: dependencies
                .iter()
                .map(|(name, is_dev)| Dependency { package: (*name).to_owned(), is_dev: *is_dev })
                .collect(),
        }
    }

    /// The problems of a crate with these dependencies, in a workspace with the usual others.
    fn problems(name: &str, dependencies: &[(&str, bool)]) -> Vec<String> {
        let mut packages: Vec<_> = ["state-core", "engine", "state-memory", "state-redis", "state", "dispatch"]
            .into_iter()
            .filter(|other| *other != name)
            .map(|other| package(other, &[]))
            .collect();
        packages.push(package(name, dependencies));
        check(&packages)
    }

    #[test]
    fn arrows_downwards_are_fine() {
        assert!(problems("state", &[("acteon-state-redis", false), ("serde", false)]).is_empty());
        assert!(problems("dispatch", &[("acteon-state-core", false)]).is_empty());
        assert!(problems("state-memory", &[("acteon-engine", false), ("tokio", false)]).is_empty());
        assert!(problems("state-core", &[("acteon-state-memory", true)]).is_empty());
    }

    #[test]
    fn arrows_upwards_are_refused() {
        assert_eq!(problems("state-core", &[("acteon-engine", false)]).len(), 1);
        assert_eq!(problems("engine", &[("acteon-state-core", false)]).len(), 1);
        assert_eq!(problems("state-redis", &[("acteon-state", false)]).len(), 1);
        assert_eq!(problems("server", &[("acteon-state-redis", false)]).len(), 1);
    }

    #[test]
    fn a_driver_never_names_another_even_in_tests() {
        assert_eq!(problems("state-redis", &[("acteon-state-memory", true)]).len(), 1);
        assert_eq!(problems("state-new", &[("acteon-state-redis", false)]).len(), 1);
    }

    #[test]
    fn the_engine_needs_no_runtime() {
        assert_eq!(problems("engine", &[("tokio", false)]).len(), 1);
        assert!(problems("engine", &[("tokio", true)]).is_empty());
    }

    #[test]
    fn a_crate_without_a_place_is_refused() {
        assert!(problems("gossip", &[])[0].contains("no row"));
    }
}
