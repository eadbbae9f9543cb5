//! What `cargo xtask test` tells the suites about the servers that it found.

use std::env;
use std::path::{Path, PathBuf};

/// Names the variable with the URL of a running Redis that all tests share.
pub const REDIS_URL_ENV: &str = "ACTEON_TEST_REDIS_URL";

/// Names the variable with the path of the program that tests start when they need a Redis of their own.
pub const REDIS_SERVER_ENV: &str = "ACTEON_TEST_REDIS_SERVER";

/// Names the variable with the URL of a running PostgreSQL that all tests share. Its role may create databases.
pub const POSTGRES_URL_ENV: &str = "ACTEON_TEST_POSTGRES_URL";

/// Names the variable with the folder of `postgres`, `initdb` and the other programs from which tests start a PostgreSQL of their own.
pub const POSTGRES_BIN_ENV: &str = "ACTEON_TEST_POSTGRES_BIN";

/// Names the variable with the folder of a [`PostgresTemplate`](crate::PostgresTemplate), from which servers start faster.
pub const POSTGRES_TEMPLATE_ENV: &str = "ACTEON_TEST_POSTGRES_TEMPLATE";

/// Names the variable with the path of the `pgbouncer` that tests start.
pub const PGBOUNCER_ENV: &str = "ACTEON_TEST_PGBOUNCER";

/// Names the variable with the path of the `libfaketime.so.1` under which tests step clocks.
pub const FAKETIME_ENV: &str = "ACTEON_TEST_FAKETIME";

/// Names the variable with the endpoint of a DynamoDB that all tests share: DynamoDB Local, or AWS itself.
pub const DYNAMODB_URL_ENV: &str = "ACTEON_TEST_DYNAMODB_URL";

/// Names the variable with the path of the `acteon-server` that was built together with the tests.
pub const SERVER_ENV: &str = "ACTEON_TEST_SERVER";

/// The module whose tests start a server of their own and therefore need its program, not just a URL.
pub const PRIVATE_SERVER_MODULE: &str = "private_server";

// Valkey speaks the same protocol and takes the same configuration; some distributions ship only it.
const REDIS_PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

// Debian keeps the servers of each version in a folder of their own, off the PATH.
const DEBIAN_POSTGRES: &str = "/usr/lib/postgresql";

// Debian puts it where only root's PATH leads.
const DEBIAN_PGBOUNCER: &str = "/usr/sbin/pgbouncer";

// Debian has a folder for each architecture there, others have lib64; both keep the library in a folder of its own.
const LIBRARIES: [&str; 3] = ["/usr/lib", "/usr/lib64", "/usr/local/lib"];
const FAKETIME: &str = "faketime/libfaketime.so.1";

/// The URL of the shared Redis, if one was given. An empty variable counts as not given.
pub fn redis_url_from_env() -> Option<String> {
    env::var(REDIS_URL_ENV).ok().filter(|url| !url.is_empty())
}

/// The URL of the shared PostgreSQL, if one was given. An empty variable counts as not given.
pub fn postgres_url_from_env() -> Option<String> {
    env::var(POSTGRES_URL_ENV).ok().filter(|url| !url.is_empty())
}

/// The endpoint of the shared DynamoDB, if one was given. An empty variable counts as not given.
pub fn dynamodb_url_from_env() -> Option<String> {
    env::var(DYNAMODB_URL_ENV).ok().filter(|url| !url.is_empty())
}

/// The folder with the programs of PostgreSQL: the one that [`POSTGRES_BIN_ENV`] names, otherwise that of the newest version where
/// Debian keeps them, otherwise that of the first `postgres` on the PATH.
///
/// As with [`redis_server_program`], a named folder is returned even if nothing is there.
pub fn postgres_bin_folder() -> Option<PathBuf> {
    if let Some(folder) = named_by(POSTGRES_BIN_ENV) {
        return Some(folder);
    }
    newest_version(Path::new(DEBIAN_POSTGRES)).or_else(|| Some(find_program("postgres")?.parent()?.to_owned()))
}

/// The folder of the template for new servers, if there is one.
pub(crate) fn postgres_template_from_env() -> Option<PathBuf> {
    named_by(POSTGRES_TEMPLATE_ENV)
}

/// The program that starts a PgBouncer: the one that [`PGBOUNCER_ENV`] names, otherwise the first one on the PATH or where Debian
/// puts it.
pub fn pgbouncer_program() -> Option<PathBuf> {
    named_by(PGBOUNCER_ENV)
        .or_else(|| find_program("pgbouncer"))
        .or_else(|| Some(PathBuf::from(DEBIAN_PGBOUNCER)).filter(|path| is_executable(path)))
}

/// libfaketime: the one that [`FAKETIME_ENV`] names, otherwise the first one where distributions keep it.
pub fn faketime_library() -> Option<PathBuf> {
    if let Some(library) = named_by(FAKETIME_ENV) {
        return Some(library);
    }
    let is_there = |path: &PathBuf| path.is_file();
    LIBRARIES.iter().map(Path::new).find_map(|folder| {
        let beside = || folder.read_dir().ok()?.flatten().map(|entry| entry.path().join(FAKETIME)).find(is_there);
        Some(folder.join(FAKETIME)).filter(is_there).or_else(beside)
    })
}

/// The program that starts a Redis: the one that [`REDIS_SERVER_ENV`] names, otherwise the first one on the PATH.
///
/// A named program that does not exist is returned as it is, so that starting it fails with its name instead of silently
/// testing another version.
pub fn redis_server_program() -> Option<PathBuf> {
    named_by(REDIS_SERVER_ENV).or_else(|| REDIS_PROGRAMS.iter().find_map(|name| find_program(name)))
}

/// The `acteon-server` to start in tests: the one that [`SERVER_ENV`] names, otherwise the one that cargo left beside this test.
///
/// The latter is there after `cargo build -p acteon-server` and as old as that build. `None` when there is none.
pub fn acteon_server_program() -> Option<PathBuf> {
    if let Some(path) = named_by(SERVER_ENV) {
        return Some(path);
    }
    // Tests are in target/debug/deps, programs in target/debug.
    let test = env::current_exe().ok()?;
    let program = test.parent()?.parent()?.join("acteon-server");
    is_executable(&program).then_some(program)
}

/// The first executable file called `name` in the folders of PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| is_executable(candidate))
}

/// The path in a variable. An empty one counts as not set.
fn named_by(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The `bin` of the highest number among the folders in `versions` that has a server, and not just the clients of that version.
fn newest_version(versions: &Path) -> Option<PathBuf> {
    let (_, folder) = versions
        .read_dir()
        .ok()?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version: u32 = path.file_name()?.to_str()?.parse().ok()?;
            Some((version, path.join("bin")))
        })
        .filter(|(_, bin)| is_executable(&bin.join("postgres")))
        .max()?;
    Some(folder)
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    const ANY_EXECUTE_BIT: u32 = 0o111;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & ANY_EXECUTE_BIT != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::{find_program, newest_version};

    #[test]
    fn a_program_is_found_by_name() {
        let shell = find_program("sh").expect("every Unix has sh on its PATH");
        assert!(shell.is_absolute() && shell.ends_with("sh"), "{shell:?}");
    }

    #[test]
    fn an_unknown_program_is_not_found() {
        assert_eq!(find_program("acteon-no-such-program"), None);
    }

    #[test]
    fn the_newest_version_with_a_server_is_taken_by_number() {
        let versions = tempfile::tempdir().unwrap();
        for (version, mode) in [("9", 0o755), ("14", 0o755), ("17", 0o644), ("common", 0o755)] {
            let bin = versions.path().join(version).join("bin");
            fs::create_dir_all(&bin).unwrap();
            fs::write(bin.join("postgres"), "").unwrap();
            fs::set_permissions(bin.join("postgres"), fs::Permissions::from_mode(mode)).unwrap();
        }
        assert_eq!(newest_version(versions.path()), Some(versions.path().join("14/bin")));
        assert_eq!(newest_version(&versions.path().join("none")), None);
    }
}
