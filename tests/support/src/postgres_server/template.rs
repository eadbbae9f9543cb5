//! Fills the folder of a new server.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::{Programs, USER};
use crate::account::write_private;

const PASSWORD_BYTES: usize = 16;

/// Makes the files of an empty server in `data`, which does not exist yet, and returns its password.
pub(super) fn fill(programs: &Programs, data: &Path) -> io::Result<String> {
    let password = random_password()?;
    let password_file = data.with_extension("password");
    write_private(&password_file, &password, programs.account)?;
    let made = initdb(programs, data, &password_file);
    fs::remove_file(&password_file)?;
    made.map(|()| password)
}

fn initdb(programs: &Programs, data: &Path, password_file: &Path) -> io::Result<()> {
    programs
        .run(&programs.path("initdb"), |command| {
            command.arg("-D").arg(data).arg("--pwfile").arg(password_file).args([
                "--username",
                USER,
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            ]);
        })
        .map(drop)
}

fn random_password() -> io::Result<String> {
    let mut bytes = [0; PASSWORD_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
