//! What is special to the Redis driver: connections, faults, bytes, round trips. What all drivers share is in the conformance
//! suite. Every test here starts a server of its own.

mod private_server;
