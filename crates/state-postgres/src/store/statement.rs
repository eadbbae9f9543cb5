//! Statements that travel by themselves: listings, transactions, and what runs in the background.

use std::sync::Arc;

use acteon_state_core::Result;
use async_trait::async_trait;
use sqlx::postgres::{PgArguments, PgRow};

use crate::error::Sent;
use crate::lane::Family;
use crate::session::Session;

/// A statement with its parameters.
pub(crate) struct Statement {
    pub(crate) sql: Arc<str>,
    pub(crate) arguments: PgArguments,
}

/// Statements that change nothing.
pub(crate) struct Reading;

/// Statements that change something.
pub(crate) struct Writing;

#[async_trait]
impl Family for Reading {
    type Op = Statement;
    type Reply = Vec<PgRow>;

    const SENT: Sent = Sent::Read;

    fn key(_: &Statement) -> Option<&str> {
        None
    }

    fn bytes(_: &Statement) -> usize {
        0
    }

    async fn run(&self, session: &mut Session, ops: &[&Statement]) -> sqlx::Result<Vec<Result<Vec<PgRow>>>> {
        run_each(session, ops).await
    }
}

#[async_trait]
impl Family for Writing {
    type Op = Statement;
    type Reply = Vec<PgRow>;

    const SENT: Sent = Sent::Write;

    fn key(_: &Statement) -> Option<&str> {
        None
    }

    fn bytes(_: &Statement) -> usize {
        0
    }

    async fn run(&self, session: &mut Session, ops: &[&Statement]) -> sqlx::Result<Vec<Result<Vec<PgRow>>>> {
        run_each(session, ops).await
    }
}

/// Their lanes hand out one at a time, so a failure concerns just that one.
async fn run_each(session: &mut Session, ops: &[&Statement]) -> sqlx::Result<Vec<Result<Vec<PgRow>>>> {
    let mut replies = Vec::with_capacity(ops.len());
    for op in ops {
        replies.push(Ok(session.fetch_all(&op.sql, op.arguments.clone()).await?));
    }
    Ok(replies)
}
