//! Backends without a server of their own: the memory driver, and an emulator of DynamoDB.

mod dynamodb;
mod memory;
