//! The support itself, against real servers: a fault that does not happen would make every test that relies on it pass.

#![allow(clippy::unwrap_used, reason = "clippy.toml excuses tests, but not the helpers beside them")]

/// Named so that `cargo xtask test` knows that these need the programs, not just URLs.
mod private_server {
    mod clock;
    mod disk;
    mod pgbouncer;
    mod postgres;
    mod postgres_standby;
    mod proxy;
    mod redis;
}
