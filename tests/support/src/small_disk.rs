//! A file system that is small enough to be filled, for the files of one server.
//!
//! # What it promises
//! [`SmallDisk::fill`] leaves no byte free, [`SmallDisk::free`] gives back what it took. Only the server sees the disk; files stay there over its
//! restarts, and are gone with this value.
//!
//! # Failure
//! Where the machine lets nobody mount anything in a namespace of their own, making one fails with the words of the program that tried. A test that needs
//! one fails then: it cannot prove anything.
//!
//! # How it works
//! A process, the keeper, has a mount namespace of its own (`unshare`) with a tmpfs over one folder; the server is started inside of that namespace
//! (`nsenter`). Whoever is not root is root in a user namespace for that, and the server is themselves again in another one, since PostgreSQL
//! refuses root. From outside, the disk is seen through the keeper's root in `/proc`.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{getegid, geteuid};
use tempfile::TempDir;

use crate::process::{supervised, supervised_command};

/// See the module.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
    keeper: Child,
    /// Where the disk is mounted before it takes the place of the folder.
    _beside: TempDir,
}

/// Copies what the folder has onto the disk and puts the disk in its place. Then it waits for the end of its input, which is ours.
const KEEP: &str = r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && cp -a "$3/." "$2/" && mount --bind "$2" "$3" && echo ready && read -r _"#;
const READY: &str = "ready\n";

/// Goes back to where the server's files are: entering a namespace leads to its root.
const ENTER: &str = r#"cd "$0" && exec "$@""#;

const BALLAST: &str = "ballast";
const BALLAST_PIECE_BYTES: usize = 4096; // a page, which is what a tmpfs counts

impl SmallDisk {
    /// Puts a disk of this size over `folder`, with the files that are in it.
    ///
    /// # Errors
    /// The machine does not permit it, or the files do not fit.
    pub(crate) fn over(folder: &Path, bytes: u64) -> io::Result<Self> {
        let beside = tempfile::Builder::new().prefix("acteon-disk-").tempdir()?;
        let mut command = supervised_command("unshare");
        if !geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "--", "sh", "-c", KEEP, "sh", &bytes.to_string()]).arg(beside.path()).arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut keeper = supervised(command)?;
        let mut said = vec![0; READY.len()];
        let is_ready = keeper.stdout.as_mut().is_some_and(|output| output.read_exact(&mut said).is_ok());
        let mut disk = Self { folder: folder.to_owned(), keeper, _beside: beside };
        if is_ready && said == READY.as_bytes() { Ok(disk) } else { Err(disk.refused()) }
    }

    /// Takes all space that is left.
    ///
    /// # Errors
    /// The disk cannot be written for another reason than that it is full.
    pub fn fill(&self) -> io::Result<()> {
        let mut ballast = File::create(self.ballast())?;
        loop {
            match ballast.write(&[0; BALLAST_PIECE_BYTES]) {
                Ok(1..) => {}
                Ok(0) => return Err(io::Error::other("the disk takes nothing and does not say why")),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives back what [`fill`](Self::fill) took.
    ///
    /// # Errors
    /// It was not filled.
    pub fn free(&self) -> io::Result<()> {
        fs::remove_file(self.ballast())
    }

    /// A command that runs `inner` where the disk is seen, in this working directory, and as the account that `inner` chooses.
    pub(crate) fn enter(&self, inner: &Command, working_folder: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.keeper.id().to_string(), "--mount"]);
        if geteuid().is_root() {
            command.arg("--");
        } else {
            command.args(["--user", "--preserve-credentials", "--", "unshare", "--user"]);
            command.arg(format!("--map-user={}", geteuid())).arg(format!("--map-group={}", getegid())).arg("--");
        }
        command.args(["sh", "-c", ENTER]).arg(working_folder).arg(inner.get_program()).args(inner.get_args());
        command
    }

    fn ballast(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(self.folder.strip_prefix("/").unwrap_or(&self.folder)).join(BALLAST)
    }

    fn refused(&mut self) -> io::Error {
        let mut reason = String::new();
        drop(self.keeper.stdin.take());
        if let Some(mut errors) = self.keeper.stderr.take() {
            let _ = errors.read_to_string(&mut reason);
        }
        let reason = reason.trim();
        io::Error::other(format!(
            "no small disk: this machine does not let us mount one in a namespace of our own: {reason}"
        ))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The namespace, and the disk with it, end with the last process in it. There is nobody to report an error to.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
