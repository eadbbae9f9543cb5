//! Tests that start a Redis or a PostgreSQL of their own, and kill it.

mod documentation;
mod facade;
mod once;
mod outage;
mod postgres;
mod schedule;
mod throttle;
