//! Tests that start a Redis, a PostgreSQL or a DynamoDB emulator of their own, and kill it.

mod documentation;
mod dynamodb;
mod facade;
mod fences;
mod once;
mod outage;
mod postgres;
mod schedule;
mod sentinel;
mod throttle;
