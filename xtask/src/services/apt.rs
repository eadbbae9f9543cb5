//! Installs a Debian package where that works without asking anybody for a password.

use std::process::{Command, Stdio};

use acteon_test_support::find_program;
use rustix::process::geteuid;

use crate::Failure;
use crate::interrupt::Interrupt;
use crate::process;

/// Installs `package` and shows apt's progress. Does nothing where apt is missing or not permitted.
///
/// A failed installation is shown and is no error: there are other ways to get a server.
pub(crate) fn install(package: &str, interrupt: &Interrupt) -> Result<(), Failure> {
    if !permitted() {
        return Ok(());
    }
    eprintln!("{package} is missing: installing it with apt");
    let install = ["install", "--yes", "--no-install-recommends", package];
    // On a fresh machine the package lists are empty; where they are not, refreshing them first would only cost time.
    if !apt(&install, interrupt)? {
        eprintln!("apt could not install {package}: refreshing its package lists");
        if apt(&["update"], interrupt)? && apt(&install, interrupt)? {
            return Ok(());
        }
        eprintln!("apt could not install {package}");
    }
    Ok(())
}

fn permitted() -> bool {
    find_program("apt-get").is_some() && (geteuid().is_root() || sudo_without_password())
}

fn sudo_without_password() -> bool {
    find_program("sudo").is_some()
        && Command::new("sudo")
            .args(["--non-interactive", "true"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

fn apt(arguments: &[&str], interrupt: &Interrupt) -> Result<bool, Failure> {
    let mut command = if geteuid().is_root() {
        Command::new("env")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["--non-interactive", "env"]);
        sudo
    };
    // The run level keeps init scripts from starting the packaged service: tests start servers of their own.
    command.args(["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get"]).args(arguments);
    Ok(process::run(&mut command, interrupt)?.success())
}
