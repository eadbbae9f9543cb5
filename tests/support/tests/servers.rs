//! The support itself, against a real redis-server: a fault that does not happen would make every test that relies on it pass.

#![allow(clippy::unwrap_used, reason = "clippy.toml excuses tests, but not the helpers beside them")]

/// Named so that `cargo xtask test` knows that these need the program, not just a URL.
mod private_server {
    mod proxy;
    mod redis;
}
