//! Rows whose servers are processes of their own.

mod announced;
mod clocks;
mod cluster;
mod disks;
mod engine;
mod engine_kept;
mod evictions;
mod pgbouncer;
mod postgres;
mod promotion;
mod redis;
mod sentinels;
