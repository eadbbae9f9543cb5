//! The files of an empty server.
//!
//! initdb takes 0.5 s, copying what it made 0.1 s. A run of many suites therefore makes a [`PostgresTemplate`] once and names it in
//! [`POSTGRES_TEMPLATE_ENV`]; servers then start from copies. Whoever runs a single test by hand needs none.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Programs, StartError, USER};
use crate::account::{private_folder, write_private};
use crate::environment::{POSTGRES_TEMPLATE_ENV, postgres_template_from_env};

/// The files of an empty server, from which others start by copying them. Removed when dropped.
///
/// The copies have the same superuser and the same password.
#[derive(Debug)]
pub struct PostgresTemplate {
    folder: TempDir,
}

const DATA: &str = "data";
const PASSWORD_FILE: &str = "password";
const PASSWORD_BYTES: usize = 16;

impl PostgresTemplate {
    /// Makes one in the folder for temporary files.
    ///
    /// # Errors
    /// [`StartError`]: there is no PostgreSQL, or initdb fails.
    pub fn make() -> Result<Self, StartError> {
        let programs = Programs::find()?;
        let folder = private_folder("acteon-pg-template-", programs.account)?;
        initdb(&programs, &folder.path().join(DATA), &folder.path().join(PASSWORD_FILE))?;
        Ok(Self { folder })
    }

    /// Its folder, for [`POSTGRES_TEMPLATE_ENV`].
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Makes the files of an empty server in `data`, which does not exist yet, and returns its password.
pub(super) fn fill(programs: &Programs, data: &Path) -> io::Result<String> {
    match postgres_template_from_env() {
        Some(template) => copy(programs, &template, data),
        None => initdb(programs, data, &data.with_extension(PASSWORD_FILE)),
    }
}

fn copy(programs: &Programs, template: &Path, data: &Path) -> io::Result<String> {
    let password = fs::read_to_string(template.join(PASSWORD_FILE)).map_err(|error| {
        let path = template.display();
        io::Error::new(error.kind(), format!("{POSTGRES_TEMPLATE_ENV} names {path}, which is no template: {error}"))
    })?;
    // With the rights of each file: PostgreSQL refuses a folder that others can read.
    programs.run(&PathBuf::from("cp"), |command| {
        command.arg("-a").arg(template.join(DATA)).arg(data);
    })?;
    Ok(password)
}

/// Runs initdb with a new password, which it reads from the file that is written here.
fn initdb(programs: &Programs, data: &Path, password_file: &Path) -> io::Result<String> {
    let password = random_password()?;
    write_private(password_file, &password, programs.account)?;
    programs.run(&programs.path("initdb"), |command| {
        command
            .arg("-D")
            .arg(data)
            .arg("--pwfile")
            .arg(password_file)
            .args(["--username", USER, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
            .args(["--no-sync", "--no-instructions"]);
    })?;
    Ok(password)
}

fn random_password() -> io::Result<String> {
    let mut bytes = [0; PASSWORD_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
