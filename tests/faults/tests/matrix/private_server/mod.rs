//! Rows whose servers are processes of their own.

mod announced;
mod cluster;
mod engine;
mod evictions;
mod pgbouncer;
mod postgres;
mod promotion;
mod redis;
mod sentinels;
