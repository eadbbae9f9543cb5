//! The account that a server runs as.
//!
//! PostgreSQL and PgBouncer refuse to run as root. Tests that run as root, as they do in most containers, therefore hand them to an
//! account without privileges: `postgres` where the package has created it, otherwise `nobody`. Tests of anybody else run servers as
//! themselves.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use rustix::process::geteuid;
use tempfile::TempDir;

/// An account other than our own. Only root can start processes as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) user: u32,
    pub(crate) group: u32,
}

const ACCOUNTS: &str = "/etc/passwd";
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];
const FILE_OWNER_ONLY: u32 = 0o600;
const FOLDER_OWNER_ONLY: u32 = 0o700;
const FOLDER_FOR_EVERYBODY: u32 = 0o755;

impl Account {
    /// The account for a server that refuses root, or `None` where it can run as we do.
    ///
    /// # Errors
    /// We are root, and there is neither a `postgres` nor a `nobody`.
    pub(crate) fn unprivileged() -> io::Result<Option<Self>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let accounts = fs::read_to_string(ACCOUNTS)?;
        UNPRIVILEGED.iter().find_map(|name| find(&accounts, name)).map(Some).ok_or_else(|| {
            io::Error::other(format!("this server refuses root, and {ACCOUNTS} has no {}", UNPRIVILEGED.join(" or ")))
        })
    }
}

/// Gives a file or folder that we have made to the account that is to use it.
pub(crate) fn hand_over(path: &Path, account: Option<Account>) -> io::Result<()> {
    match account {
        Some(Account { user, group }) => chown(path, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// Makes a temporary folder that only `account` can look into.
pub(crate) fn private_folder(prefix: &str, account: Option<Account>) -> io::Result<TempDir> {
    let only_owner = fs::Permissions::from_mode(FOLDER_OWNER_ONLY);
    let folder = tempfile::Builder::new().prefix(prefix).permissions(only_owner).tempdir()?;
    hand_over(folder.path(), account)?;
    Ok(folder)
}

/// Makes a temporary folder that everybody can look into, and nobody else can change.
pub(crate) fn pass_through_folder(prefix: &str) -> io::Result<TempDir> {
    let everybody = fs::Permissions::from_mode(FOLDER_FOR_EVERYBODY);
    tempfile::Builder::new().prefix(prefix).permissions(everybody).tempdir()
}

/// Writes a file that only `account` can read: most of them hold a password.
pub(crate) fn write_private(path: &Path, text: &str, account: Option<Account>) -> io::Result<()> {
    // Its folder is a private one, so nobody reads it between the two steps.
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(FILE_OWNER_ONLY))?;
    hand_over(path, account)
}

/// Finds an account in the text of `/etc/passwd`: `name:password:user:group:...`.
fn find(accounts: &str, name: &str) -> Option<Account> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        Some(Account { user: fields.nth(1)?.parse().ok()?, group: fields.next()?.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use super::{Account, find};

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let accounts = "root:x:0:0:root:/root:/bin/bash\npostgres2:x:7:8::/:\npostgres:x:101:104:,,,:/var:/bin/bash\n";
        assert_eq!(find(accounts, "postgres"), Some(Account { user: 101, group: 104 }));
        assert_eq!(find(accounts, "post"), None);
        assert_eq!(find("postgres:x:no:104", "postgres"), None);
    }
}
