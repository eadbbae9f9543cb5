//! The server over real sockets: what clients see of pipelines, limits, listeners, and ends.

mod ending;
mod keeping;
mod limits;
mod listeners;
mod pipelining;
mod scripts;
mod support;
