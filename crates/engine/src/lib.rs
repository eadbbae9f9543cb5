//! The native in-memory database
