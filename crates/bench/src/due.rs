//! Claims and acknowledgements from a long queue of items that are due, on each backend, by workers that do nothing else.
//!
//! Beside the driver for PostgreSQL stands what somebody would write by hand on the same server: one item by `FOR UPDATE SKIP LOCKED`, and one
//! `DELETE` when it is done. Workers share one store, as in a server, and one queue, which is the hardest case. What a turn took is scheduled
//! again before the next one, so that the queue is as long in each.
//!
//! An item counts when it is acknowledged. Its processor time is that of the workers and the driver, and that of the server apart; in memory there is
//! no server.

use std::time::{Duration, Instant};

use acteon_state_core::{ClaimDue, ClaimOutcome, DueAt, Schedule, State, StateKey};
use futures_util::future::try_join_all;
use tokio::runtime::{Builder, Runtime};

use crate::backend::{Backend, NAMES};
use crate::postgres::RawQueue;
use crate::report::{self, Chart, Goal, Group, Report, Scale};
use crate::rounds::{alternate_all, middle, ratio};
use crate::{Options, Outcome, machine};

const WORKERS: usize = 8;
/// Items that a claim asks for.
const BATCHES: [u32; 3] = [1, 10, 100];
/// Items that are due when a turn begins; fewer in the emulator of DynamoDB, which is no measure of AWS.
const BACKLOG: usize = 1_000_000;
const BACKLOG_EMULATOR: usize = 20_000;
/// How long the workers of one contestant work before it is another's turn.
const TURN: Duration = Duration::from_millis(500);
/// Nothing is handed out again while it is measured.
const VISIBILITY: Duration = Duration::from_secs(600);
/// Tasks that schedule at once, while nothing is measured.
const FILLERS: usize = 256;
/// The first item is due then, long ago, and the next ones a millisecond later each.
const DUE_FROM_MS: u64 = 1_700_000_000_000;
const PAYLOAD: &[u8] = &[b'x'; 64];
/// What a turn may take in all: more than any, so that a queue that hands out nothing is an error and no standstill.
const TURN_MAX: Duration = Duration::from_secs(60);

/// A backend with its queue.
struct Queue {
    backend: Backend,
    /// By hand, where the backend is PostgreSQL.
    raw: Option<RawQueue>,
    key: StateKey,
    length: usize,
    /// How many were scheduled so far: the next one's number.
    scheduled: usize,
    /// Taken and not yet replaced.
    taken: usize,
}

/// Who claims how many at once from which queue.
#[derive(Clone, Copy)]
struct Contestant {
    queue: usize,
    batch: u32,
    /// By hand instead of by the driver.
    is_raw: bool,
}

/// What one turn was good for.
#[derive(Clone, Copy)]
struct Turn {
    items: usize,
    wall: Duration,
    client_cpu: Duration,
    server_cpu: Option<Duration>,
}

/// What a row of the table says.
struct Row {
    backend: String,
    batch: u32,
    per_second: f64,
    /// Throughput beside that by hand on the same server.
    to_raw: Option<f64>,
}

/// Runs the suite: the backends whose name contains `only`.
///
/// # Errors
/// Whatever was measured failed.
pub fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let mut queues = Vec::new();
    for name in NAMES.into_iter().filter(|name| name.contains(options.only)) {
        let backlog = options.scaled(if name == "dynamodb" { BACKLOG_EMULATOR } else { BACKLOG });
        eprintln!("due: {name}: scheduling {backlog} items");
        queues.push(runtime.block_on(Queue::start(name, options, backlog))?);
    }
    report.line(format_args!(
        "{WORKERS} workers, {} items that are due, {} with the emulator of DynamoDB; medians of {} rounds of {} ms.",
        options.scaled(BACKLOG),
        options.scaled(BACKLOG_EMULATOR),
        options.rounds,
        TURN.as_millis()
    ));
    let contestants = contestants(&queues);
    let turns = alternate_all(contestants.len(), options.rounds, |at| {
        let Contestant { queue, batch, is_raw } = contestants[at];
        let queue = &mut queues[queue];
        eprintln!("due: {}, {batch} per claim{}", queue.backend.name, if is_raw { ", by hand" } else { "" });
        queue.turn(&runtime, batch, is_raw)
    })?;
    let rows = table(&contestants, &queues, &turns, report);
    goals(&rows, report);
    chart(&rows, report);
    for queue in queues {
        runtime.block_on(queue.backend.close())?;
    }
    Ok(())
}

fn contestants(queues: &[Queue]) -> Vec<Contestant> {
    let of = |(queue, it): (usize, &Queue)| {
        let by_hand = it.raw.iter().map(move |_| Contestant { queue, batch: 1, is_raw: true });
        by_hand.chain(BATCHES.map(|batch| Contestant { queue, batch, is_raw: false })).collect::<Vec<_>>()
    };
    queues.iter().enumerate().flat_map(of).collect()
}

impl Queue {
    async fn start(name: &str, options: &Options<'_>, length: usize) -> Outcome<Self> {
        let backend = Backend::start(name, options.program, 1).await?;
        let raw = match backend.postgres_server() {
            Some(server) => Some(RawQueue::start(server).await?),
            None => None,
        };
        let key = StateKey::new("bench", "acme", "queue", "backlog")?;
        let mut queue = Self { backend, raw, key, length, scheduled: 0, taken: length };
        queue.refill().await?;
        Ok(queue)
    }

    /// Schedules as many items as were taken.
    async fn refill(&mut self) -> Outcome {
        let (begin, end) = (self.scheduled, self.scheduled + self.taken);
        let fillers = (0..FILLERS).map(|filler| {
            let (state, key) = (self.backend.nodes[0].clone(), self.key.clone());
            tokio::spawn(async move { schedule(&state, &key, (begin + filler..end).step_by(FILLERS)).await })
        });
        for filler in fillers.collect::<Vec<_>>() {
            filler.await??;
        }
        self.scheduled = end;
        if let Some(server) = self.backend.postgres_server() {
            RawQueue::refill(server, self.length)?;
            // Its daemon would do so in the middle of somebody's turn.
            server.query("VACUUM acteon_due")?;
        }
        self.taken = 0;
        Ok(())
    }

    fn turn(&mut self, runtime: &Runtime, batch: u32, is_raw: bool) -> Outcome<Turn> {
        runtime.block_on(self.refill())?;
        let client_cpu = || machine::cpu_time("self").ok_or("this process's CPU time is unknown");
        let (client_before, server_before) = (client_cpu()?, self.backend.cpu()?);
        let started = Instant::now();
        let work = async { tokio::time::timeout(TURN_MAX, self.work(batch, is_raw, started + TURN)).await };
        let items = runtime.block_on(work)??;
        let wall = started.elapsed();
        let server_cpu = server_before.zip(self.backend.cpu()?).map(|(before, after)| after.saturating_sub(before));
        if items == 0 {
            return Err(format!("{}: a long queue handed out nothing", self.backend.name).into());
        }
        if !is_raw {
            self.taken = items;
        }
        Ok(Turn { items, wall, client_cpu: client_cpu()? - client_before, server_cpu })
    }

    /// Has all workers work, and returns how many items they acknowledged.
    async fn work(&self, batch: u32, is_raw: bool, until: Instant) -> Outcome<usize> {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                let (state, key, raw) = (self.backend.nodes[0].clone(), self.key.clone(), self.raw.clone());
                tokio::spawn(async move {
                    match raw.filter(|_| is_raw) {
                        Some(raw) => by_hand(&raw, until).await,
                        None => claim(&state, &key, batch, until).await,
                    }
                })
            })
            .collect();
        let mut items = 0;
        for worker in workers {
            items += worker.await??;
        }
        Ok(items)
    }
}

async fn schedule(state: &State, queue: &StateKey, numbers: impl Iterator<Item = usize>) -> Outcome {
    for number in numbers {
        let due_at = DueAt::UnixMs(DUE_FROM_MS + number as u64);
        state.schedule(queue, &Schedule { id: format!("item {number}"), due_at, payload: PAYLOAD.into() }).await?;
    }
    Ok(())
}

/// One worker. A claim that finds nothing while others take what there is, is another attempt, not an end.
async fn claim(state: &State, queue: &StateKey, batch: u32, until: Instant) -> Outcome<usize> {
    let mut items = 0;
    // At least once: a machine that stands still for a whole turn must not pass for a queue that hands out nothing.
    loop {
        let claimed = state.claim_due(queue, ClaimDue { limit: batch, visibility: VISIBILITY }).await?.items;
        let outcomes = try_join_all(claimed.iter().map(|item| state.ack(queue, item))).await?;
        if outcomes.iter().any(|outcome| *outcome != ClaimOutcome::Done) {
            return Err("a fresh claim is not ours".into());
        }
        items += claimed.len();
        // In memory nothing ever waits: without this, as many workers as there are processors would have all.
        tokio::task::consume_budget().await;
        if Instant::now() >= until {
            return Ok(items);
        }
    }
}

async fn by_hand(raw: &RawQueue, until: Instant) -> Outcome<usize> {
    let mut items = 0;
    loop {
        raw.claim().await?;
        items += 1;
        if Instant::now() >= until {
            return Ok(items);
        }
    }
}

impl Turn {
    fn per_second(&self) -> f64 {
        self.items as f64 / self.wall.as_secs_f64()
    }
}

fn table(contestants: &[Contestant], queues: &[Queue], turns: &[Vec<Turn>], report: &mut Report) -> Vec<Row> {
    let columns = ["backend", "items per claim", "items/s", "to by hand", "client CPU per item", "server CPU per item"];
    report.table(&columns, 1);
    let mut rows = Vec::new();
    for (contestant, own) in contestants.iter().zip(turns) {
        let hand = contestants.iter().position(|it| it.is_raw && it.queue == contestant.queue);
        let to_raw = hand.map(|hand| ratio(own, &turns[hand], Turn::per_second));
        let name = queues[contestant.queue].backend.name;
        let backend = if contestant.is_raw { format!("{name}, SKIP LOCKED by hand") } else { name.to_owned() };
        let per_second = middle(own, Turn::per_second);
        // The kernel counts in hundredths of a second: all turns together say more than a median of them.
        let items: usize = own.iter().map(|turn| turn.items).sum();
        let client: Duration = own.iter().map(|turn| turn.client_cpu).sum();
        let server: Option<Duration> = own.iter().map(|turn| turn.server_cpu).sum();
        let each = |cpu: Duration| report::time(cpu.div_f64(items as f64));
        report.line(format_args!(
            "| {backend} | {} | {per_second:.0} | {} | {} | {} |",
            contestant.batch,
            to_raw.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
            each(client),
            server.map_or_else(|| "–".to_owned(), each),
        ));
        rows.push(Row { backend, batch: contestant.batch, per_second, to_raw });
    }
    rows
}

fn goals(rows: &[Row], report: &mut Report) {
    let hundreds = || rows.iter().filter(|row| row.batch == BATCHES[2]);
    for name in ["memory", "redis", "engine"] {
        let rate = hundreds().filter(|row| row.backend == name).map(|row| (name, row.per_second));
        report.goal(Goal::at_least(format!("{name}: items, claimed by hundreds"), 100_000.0, "/s").cases(rate));
    }
    let to_raw = hundreds().filter_map(|row| Some(("", row.to_raw?)));
    report.goal(Goal::at_least("PostgreSQL by hundreds: to SKIP LOCKED one by one", 10.0, "x").cases(to_raw));
}

fn chart(rows: &[Row], report: &mut Report) {
    let mut groups: Vec<Group> = Vec::new();
    for row in rows {
        let column = BATCHES.iter().position(|batch| *batch == row.batch).unwrap_or_default();
        let at = groups.iter().position(|group| group.label == row.backend).unwrap_or_else(|| {
            let goal = matches!(row.backend.as_str(), "memory" | "redis" | "engine").then_some(100_000.0);
            groups.push(Group { label: row.backend.clone(), values: vec![None; BATCHES.len()], goal });
            groups.len() - 1
        });
        groups[at].values[column] = Some(row.per_second);
    }
    report.chart(Chart {
        name: "",
        title: format!("Due items claimed and acknowledged by {WORKERS} workers"),
        axis: "items per second, logarithmic",
        scale: Scale::Log,
        series: BATCHES.map(|batch| format!("{batch} per claim")).to_vec(),
        groups,
    });
}
