//! What `cargo xtask test` tells the suites about the servers that it found.

use std::env;
use std::path::{Path, PathBuf};

/// Names the variable with the URL of a running Redis that all tests share.
pub const REDIS_URL_ENV: &str = "ACTEON_TEST_REDIS_URL";

/// Names the variable with the path of the program that tests start when they need a Redis of their own.
pub const REDIS_SERVER_ENV: &str = "ACTEON_TEST_REDIS_SERVER";

/// Names the variable with the path of the `acteon-server` that was built together with the tests.
pub const SERVER_ENV: &str = "ACTEON_TEST_SERVER";

/// The module whose tests start a server of their own and therefore need its program, not just a URL.
pub const PRIVATE_SERVER_MODULE: &str = "private_server";

// Valkey speaks the same protocol and takes the same configuration; some distributions ship only it.
const REDIS_PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// The URL of the shared Redis, if one was given. An empty variable counts as not given.
pub fn redis_url_from_env() -> Option<String> {
    env::var(REDIS_URL_ENV).ok().filter(|url| !url.is_empty())
}

/// The program that starts a Redis: the one that [`REDIS_SERVER_ENV`] names, otherwise the first one on the PATH.
///
/// A named program that does not exist is returned as it is, so that starting it fails with its name instead of silently
/// testing another version.
pub fn redis_server_program() -> Option<PathBuf> {
    match env::var_os(REDIS_SERVER_ENV) {
        Some(path) if !path.is_empty() => Some(PathBuf::from(path)),
        _ => REDIS_PROGRAMS.iter().find_map(|name| find_program(name)),
    }
}

/// The `acteon-server` to start in tests: the one that [`SERVER_ENV`] names, otherwise the one that cargo left beside this test.
///
/// The latter is there after `cargo build -p acteon-server` and as old as that build. `None` when there is none.
pub fn acteon_server_program() -> Option<PathBuf> {
    if let Some(path) = env::var_os(SERVER_ENV).filter(|path| !path.is_empty()) {
        return Some(PathBuf::from(path));
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

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    const ANY_EXECUTE_BIT: u32 = 0o111;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & ANY_EXECUTE_BIT != 0)
}

#[cfg(test)]
mod tests {
    use super::find_program;

    #[test]
    fn a_program_is_found_by_name() {
        let shell = find_program("sh").expect("every Unix has sh on its PATH");
        assert!(shell.is_absolute() && shell.ends_with("sh"), "{shell:?}");
    }

    #[test]
    fn an_unknown_program_is_not_found() {
        assert_eq!(find_program("acteon-no-such-program"), None);
    }
}
