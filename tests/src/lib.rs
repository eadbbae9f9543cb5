//! Suites across crates, on real servers
