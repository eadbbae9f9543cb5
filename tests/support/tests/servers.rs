//! The support itself, against a real redis-server: a fault that does not happen would make every test that relies on it pass.

/// Named so that `cargo xtask test` knows that these need the program, not just a URL.
mod private_server {
    mod proxy;
    mod redis;
}
