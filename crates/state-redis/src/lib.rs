//! StateStore over Redis and Valkey
