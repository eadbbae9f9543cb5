//! Directories that crash, fail, fill up and are damaged, against what the engine appended.

mod backups;
mod batches;
mod crashes;
mod damage;
mod failing;
mod fixtures;
mod lab;
mod named;
mod news;
mod restarts;
mod rewriting;
mod schedule;
