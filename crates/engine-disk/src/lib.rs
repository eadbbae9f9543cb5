//! The data of an engine in a directory: a journal of its changes, snapshots, recovery, backups.
//!
//! # Guarantees
//! - What was acknowledged under [`Fsync::Always`] is there after any crash, of the process or the machine. Under [`Fsync::EverySecond`] the last
//!   second may be missing, under [`Fsync::No`] what the operating system had not written. In all cases what is there is what the engine held
//!   at one moment: nothing is missing in the middle, and no command or transaction is there in part.
//! - Damage is found: a directory in which a bit has changed is refused, with the file, the place and what to do.
//! - A failing disk loses nothing that was acknowledged: writes are refused with the reason, reads go on, and writes as well as soon as the
//!   disk recovers.
//! - A directory has one writer.
//!
//! # Bounds
//! What waits for the disk is bounded ([`DiskConfig::buffer_bytes_max`]). The engine never waits for the disk: whoever wants an acknowledgement does
//! ([`Disk::kept`]). A snapshot stops the engine for some ten microseconds.
//!
//! # What is not here
//! No clock but that of syncs each second, and of pauses on a failing disk: the owner calls [`Disk::tick`]. No runtime: waiting is a future
//! for any of them, or blocks. Two threads of its own.
//!
//! # The directory
//! | file | holds |
//! |---|---|
//! | `lock` | the number of the process that has it |
//! | `manifest` | which of the following count |
//! | `base.<n>.rdb` | a snapshot, which the journals from `<n>` on continue |
//! | `journal.<n>` | groups of changes, one for each command, transaction or script that changed something |
//! | `journal.<n>.torn` | a last record that was cut off by a crash, kept aside |
//! | `synced` | how much of the last journal is on the disk for certain; the rest is written again when it is opened |
//! | `dump.rdb` | what `SAVE` writes; a new directory that holds nothing else begins with it |
//!
//! # Where is what
//! | file | holds |
//! |---|---|
//! | `disk.rs` | [`Disk`]: opening, waiting, jobs, closing |
//! | `shared.rs` | what threads share; what the engine appends to |
//! | `writer.rs`, `active.rs` | the thread that writes the journal, and its file |
//! | `health.rs` | whether writes are taken, and why not |
//! | `news.rs` | what the log says of that |
//! | `waiting.rs` | who waits for the disk |
//! | `batch.rs` | one wake of the writer for all that a thread appends in a row |
//! | `maintenance.rs`, `jobs.rs` | the thread that rewrites, saves and heals, and what it is asked for |
//! | `snapshot_file.rs` | a snapshot as an RDB file |
//! | `format.rs`, `crc32c.rs` | the bytes of a journal |
//! | `manifest.rs` | the manifest, and the names of files |
//! | `scan.rs`, `contents.rs` | reading journals and bases |
//! | `recovery.rs` | loading a directory |
//! | `synced.rs` | what of the last journal is on the disk for certain |
//! | `verify.rs` | verification and repair |
//! | `backup.rs` | backups, of a directory in use as well |
//! | `storage.rs` | what is asked of a directory, and the real one |
//! | `watched.rs` | one that tells how much of it was read |
//! | `simulation.rs` | one in memory that fails by plan |

mod active;
mod backup;
mod batch;
mod config;
mod contents;
mod crc32c;
mod disk;
mod format;
mod health;
mod jobs;
mod maintenance;
mod manifest;
mod news;
mod problem;
mod recovery;
mod remade;
mod scan;
mod shared;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod snapshot_file;
mod statistics;
mod storage;
mod synced;
#[cfg(test)]
mod tests;
mod verify;
mod waiting;
mod watched;
mod writer;

pub use backup::{Backup, BackupError, backup_of};
pub use batch::Batch;
pub use config::{DiskConfig, Fsync, RewriteSchedule, SavePoint};
pub use disk::{CloseError, Disk, OpenError};
pub use format::VERSION;
pub use jobs::InProgress;
pub use problem::{Problem, ProblemKind, Remedy};
pub use recovery::{Loaded, TornTail};
pub use scan::TornReason;
pub use statistics::{JobStatistics, Statistics};
pub use storage::{File, FileError, Files, Lock, LockError, Storage};
pub use verify::{FileReport, Found, Repaired, Report, look, repair, verify};
pub use waiting::{Kept, NotKept};
pub use watched::Watched;
