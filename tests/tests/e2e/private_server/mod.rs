//! Tests that start a Redis of their own, and kill it.

mod documentation;
mod facade;
mod once;
mod outage;
mod schedule;
mod throttle;
