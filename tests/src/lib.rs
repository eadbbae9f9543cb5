//! Suites across crates, on real servers. The tests are in `tests/`; this library is empty.
