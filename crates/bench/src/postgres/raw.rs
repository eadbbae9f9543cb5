//! The raw side: sqlx with its pool, the statements of the driver, one operation per call.
//!
//! Claims are the exception. There, it does what is commonly written: one item by SKIP LOCKED, one DELETE when it is done.

use std::time::Duration;

use acteon_state_core::{OwnerId, Version};
use sqlx::postgres::{PgArguments, PgPool, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::types::Uuid;
use sqlx::{Executor as _, Postgres, Row as _};

use super::{LEASE, Operation, Side, TTL, Task, VALUE, fill};
use crate::Outcome;

/// How long a task waits for one of the connections, which all of them share.
const PATIENCE: Duration = Duration::from_secs(60);

/// The planner settings that the driver has in its sessions.
const SESSION: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;
    SET enable_mergejoin = off; SET jit = off; SET plan_cache_mode = force_generic_plan";

const GET: &str = "
    SELECT k.position, e.value, e.version, e.fence, e.counter, e.expires_at_us - n.now_us
      FROM (SELECT acteon_now_us() AS now_us OFFSET 0) n
     CROSS JOIN unnest($1::text[], $2::text[], $3::text[], $4::text[])
           WITH ORDINALITY AS k (namespace, tenant, kind, id, position)
     CROSS JOIN LATERAL (
           SELECT * FROM acteon_entries e
            WHERE e.namespace = k.namespace AND e.tenant = k.tenant AND e.kind = k.kind AND e.id = k.id
            LIMIT 1) e
     WHERE e.expires_at_us IS NULL OR e.expires_at_us > n.now_us";

const APPLY: &str = "
    SELECT * FROM acteon_apply($1::boolean, false, $2::text[], $3::text[], $4::text[], $5::text[],
        $6::smallint[], $7::smallint[], $8::uuid[], $9::bigint[], $10::bytea[], $11::uuid[], $12::smallint[], $13::bigint[],
        $14::bigint[], $15::bigint[], $16::bigint[], $17::boolean[])";

const LOCK: &str = "
    SELECT * FROM acteon_lock($1::text[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::uuid[], $7::smallint[],
        $8::integer[], $9::bigint[], $10::text[], $11::bigint[], $12::bigint)";

const SCHEDULE: &str = "
    SELECT * FROM acteon_due_apply($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::bigint[],
        $8::uuid[], $9::bytea[])";

const CLAIM_ONE: &str = "
    UPDATE raw_due SET visible_at = clock_timestamp() + interval '600 s', attempt = attempt + 1, claim = $1
     WHERE id = (SELECT id FROM raw_due WHERE queue = 'backlog' AND visible_at <= clock_timestamp()
                  ORDER BY visible_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id, payload";

const DELETE_ONE: &str = "DELETE FROM raw_due WHERE id = $1 AND claim = $2";

/// Lock records stay for ten minutes, as in the driver.
const RETENTION_US: i64 = 600_000_000;

#[derive(Clone)]
pub(super) struct Raw {
    pool: PgPool,
}

/// What an operation on a value says beside its key.
#[derive(Clone, Copy, Default)]
struct Apply {
    op: i16,
    condition: i16,
    expected: Option<Uuid>,
    version: Option<Uuid>,
    ttl: i16,
    delta: Option<i64>,
}

impl Raw {
    pub(super) async fn connect(url: &str, connections: u32) -> Outcome<Self> {
        let pool = PgPoolOptions::new()
            .min_connections(connections)
            .max_connections(connections)
            .test_before_acquire(false)
            .acquire_timeout(PATIENCE)
            .after_connect(|connection, _| Box::pin(async move { connection.execute(SESSION).await.map(drop) }))
            .connect(url)
            .await?;
        Ok(Self { pool })
    }

    /// Runs a call of `apply` and returns its status.
    async fn apply(&self, parts: [String; 4], apply: Apply) -> Outcome<i16> {
        let is_put = apply.version.is_some();
        let ttl_us = i64::try_from(TTL.as_micros())?;
        let query = with_key(sqlx::query(APPLY).bind(false), parts)
            .bind(vec![apply.op])
            .bind(vec![apply.condition])
            .bind(apply.expected.map(|expected| vec![expected]))
            .bind(None::<Vec<i64>>)
            .bind(is_put.then(|| vec![VALUE]))
            .bind(apply.version.map(|version| vec![version]))
            .bind(vec![apply.ttl])
            .bind((apply.ttl == 2).then(|| vec![ttl_us]))
            .bind(apply.delta.map(|delta| vec![delta]))
            .bind(None::<Vec<i64>>)
            .bind(apply.delta.map(|_| vec![i64::MAX]))
            .bind(apply.delta.map(|_| vec![false]));
        Ok(query.fetch_one(&self.pool).await?.try_get(0)?)
    }

    /// The same, where there is nothing that could prevent it.
    async fn apply_surely(&self, parts: [String; 4], apply: Apply) -> Outcome {
        match self.apply(parts, apply).await? {
            1 => Ok(()),
            status => Err(format!("apply answers with status {status}").into()),
        }
    }

    async fn compare_and_swap(&self, parts: [String; 4], task: &mut Task) -> Outcome {
        let new = uuid(Version::draw());
        let put = Apply { op: 2, version: Some(new), ..Apply::default() };
        let guarded = Apply { condition: 3, expected: Some(uuid(task.version)), ..put };
        if self.apply(parts.clone(), guarded).await? != 1 {
            self.apply_surely(parts, put).await?;
        }
        task.version = Version::from_u128(new.as_u128());
        Ok(())
    }

    async fn lock(&self, parts: [String; 4], op: i16, owner: Uuid) -> Outcome {
        let query = with_key(sqlx::query(LOCK), parts)
            .bind(vec![op])
            .bind(vec![owner])
            .bind(vec![1_i16])
            .bind(vec![1_i32])
            .bind(vec![i64::try_from(LEASE.as_micros())?])
            .bind(vec![""])
            .bind(vec![0_i64])
            .bind(RETENTION_US);
        match query.fetch_one(&self.pool).await?.try_get::<i16, _>(0)? {
            1 => Ok(()),
            status => Err(format!("lock answers with status {status}").into()),
        }
    }

    async fn schedule(&self, task: &Task) -> Outcome {
        let query = with_key(sqlx::query(SCHEDULE), fill::later()?.parts().map(String::from))
            .bind(vec![task.item()])
            .bind(vec![2_i16])
            .bind(vec![i64::try_from(TTL.as_millis())?])
            .bind(None::<Vec<Uuid>>)
            .bind(vec![VALUE]);
        query.fetch_one(&self.pool).await?;
        Ok(())
    }

    /// Claims an item of the backlog, and removes it.
    pub(super) async fn claim(&self) -> Outcome {
        let token = uuid(Version::draw());
        let row: Option<PgRow> = sqlx::query(CLAIM_ONE).bind(token).fetch_optional(&self.pool).await?;
        let id: i64 = row.ok_or("the backlog is used up")?.try_get(0)?;
        let deleted = sqlx::query(DELETE_ONE).bind(id).bind(token).execute(&self.pool).await?;
        if deleted.rows_affected() == 1 { Ok(()) } else { Err("a fresh claim is not ours".into()) }
    }
}

impl Side for Raw {
    async fn operate(&self, operation: Operation, task: &mut Task) -> Outcome<u64> {
        let parts =
            || Ok::<_, Box<dyn std::error::Error + Send + Sync>>(task.key(operation)?.parts().map(String::from));
        let put =
            |condition| Apply { op: 2, condition, version: Some(uuid(Version::draw())), ttl: 2, ..Apply::default() };
        match operation {
            Operation::Get => {
                let row = with_key(sqlx::query(GET), parts()?).fetch_one(&self.pool).await?;
                row.try_get::<&[u8], _>(1)?;
            }
            Operation::PutTtl => self.apply_surely(parts()?, put(0)).await?,
            Operation::PutIfAbsent => self.apply_surely(parts()?, put(1)).await?,
            Operation::CompareAndSwap => {
                let parts = parts()?;
                self.compare_and_swap(parts, task).await?;
            }
            Operation::Increment | Operation::HotCounter => {
                self.apply_surely(parts()?, Apply { op: 6, delta: Some(1), ..Apply::default() }).await?;
            }
            Operation::LockCycle => {
                let (parts, owner) = (parts()?, Uuid::from_u128(OwnerId::draw().as_u128()));
                self.lock(parts.clone(), 1, owner).await?;
                self.lock(parts, 3, owner).await?;
            }
            Operation::Schedule => self.schedule(task).await?,
            Operation::Claim(_) => self.claim().await?,
        }
        Ok(1)
    }
}

type Bound = Query<'static, Postgres, PgArguments>;

fn with_key(query: Bound, parts: [String; 4]) -> Bound {
    parts.into_iter().fold(query, |query, part| query.bind(vec![part]))
}

fn uuid(version: Version) -> Uuid {
    Uuid::from_u128(version.as_u128())
}
