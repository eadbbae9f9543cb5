//! The queue of the raw side by itself, for the suite `due`: a table as somebody would make it, one item by SKIP LOCKED and one DELETE.

use acteon_test_support::PostgresServer;

use super::raw::Raw;
use super::{CONNECTIONS, fill};
use crate::Outcome;

/// A queue made by hand, and the connections of those who claim.
#[derive(Clone)]
pub(crate) struct RawQueue {
    raw: Raw,
}

impl RawQueue {
    /// Makes the table, and connects.
    pub(crate) async fn start(server: &PostgresServer) -> Outcome<Self> {
        server.query(fill::RAW_DUE)?;
        Ok(Self { raw: Raw::connect(&server.url(), CONNECTIONS).await? })
    }

    /// Has so many items due.
    pub(crate) fn refill(server: &PostgresServer, length: usize) -> Outcome {
        fill::top_up_raw(server, u64::try_from(length)?)
    }

    /// Claims an item, and removes it.
    pub(crate) async fn claim(&self) -> Outcome {
        self.raw.claim().await
    }
}
