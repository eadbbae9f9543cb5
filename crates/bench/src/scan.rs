//! Listings: the first ten keys of one prefix among many other keys, and all keys in pages, on each backend.
//!
//! Whoever asks for ten keys should not pay for the others, so each backend is there twice, once with ten times as many others, and both
//! are asked by turns. Ten keys are asked for until they are there, by further pages where a page has fewer: Redis walks through all of its keys, and
//! says so in its capabilities.
//!
//! A listing may not hold more than its page. Resident memory tells: what it reaches by the end of a listing should be what it had reached when
//! the first pages were through. Whether it would tell, shows a listing whose items are kept, which stands beside.

use std::time::{Duration, Instant};

use acteon_state_core::{Put, Scan, Scope, State};
use tokio::runtime::{Builder, Runtime};

use crate::backend::{Backend, NAMES};
use crate::report::{self, Chart, Goal, Group, Report, Scale, megabytes};
use crate::rounds::{alternate_all, middle, ratio};
use crate::{Options, Outcome, machine};

/// Keys that nobody asks for, in the smaller and the larger store; a tenth in the emulator of DynamoDB, which is no measure of AWS.
const OTHERS: [usize; 2] = [100_000, 1_000_000];
const EMULATOR_PART: usize = 10;
/// Keys that are asked for.
const SOUGHT: usize = 10;
const SOUGHT_PREFIX: &str = "sought ";
/// The others have ids on both sides of those in the order of bytes.
const OTHER_PREFIXES: [&str; 2] = ["other", "zother"];
const VALUE: &[u8] = &[b'x'; 64];
/// Tasks that write at once, while nothing is measured.
const FILLERS: usize = 256;
/// The first page is asked for again and again for so long.
const TURN: Duration = Duration::from_millis(200);
/// Keys of a page of a listing, the most that a page can have.
const PAGE: u32 = 1_000;
/// Pages after which a listing should take no more memory.
const FIRST_PAGES: usize = 10;
/// What it may take more for the noise of an allocator.
const GROWTH_BYTES_MAX: u64 = 1_000_000;

/// A backend with so many other keys.
struct Filled {
    backend: Backend,
    others: usize,
}

/// What a listing took.
struct Listing {
    keys: usize,
    pages: usize,
    took: Duration,
    /// How far the peak of resident memory rose after the first pages.
    growth_bytes: u64,
}

/// What one backend was seen to do.
struct Row {
    backend: &'static str,
    /// Time for the ten keys among few and among many others.
    first: [Duration; 2],
    /// The latter beside the former.
    to_few: f64,
    growth_bytes: u64,
    /// The same if everything is kept.
    kept_bytes: u64,
}

/// Runs the suite: the backends whose name contains `only`.
///
/// # Errors
/// Whatever was measured failed.
pub fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    report.line(format_args!(
        "{SOUGHT} keys of one prefix among others of the same kind, values of {} bytes; medians of {} rounds. The emulator of DynamoDB \
         has a tenth of the keys.",
        VALUE.len(),
        options.rounds
    ));
    let mut rows = Vec::new();
    for name in NAMES.into_iter().filter(|name| name.contains(options.only)) {
        rows.push(measure(name, &runtime, options)?);
    }
    tables(&rows, report);
    goals(&rows, report);
    chart(&rows, report);
    Ok(())
}

type Measured = (Row, Vec<Listing>, [usize; 2]);

fn measure(name: &str, runtime: &Runtime, options: &Options<'_>) -> Outcome<Measured> {
    let part = if name == "dynamodb" { EMULATOR_PART } else { 1 };
    let others = OTHERS.map(|others| options.scaled(others) / part);
    let mut stores = Vec::new();
    for others in others {
        eprintln!("scan: {name}: writing {others} keys");
        stores.push(runtime.block_on(Filled::start(name, options, others))?);
    }
    eprintln!("scan: {name}: first pages");
    let times = alternate_all(stores.len(), options.rounds, |at| runtime.block_on(stores[at].first_keys()))?;
    eprintln!("scan: {name}: listings");
    let (mut listings, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        listings.push(runtime.block_on(stores[0].list(false))?);
        kept.push(runtime.block_on(stores[0].list(true))?);
    }
    let backend = stores[0].backend.name;
    for store in stores {
        runtime.block_on(store.backend.close())?;
    }
    let first = [0, 1].map(|at| Duration::from_secs_f64(middle(&times[at], Duration::as_secs_f64)));
    let to_few = ratio(&times[1], &times[0], Duration::as_secs_f64);
    let growth = |listings: &[Listing]| middle(listings, |listing| listing.growth_bytes as f64) as u64;
    let (growth_bytes, kept_bytes) = (growth(&listings), growth(&kept));
    Ok((Row { backend, first, to_few, growth_bytes, kept_bytes }, listings, others))
}

fn scope() -> Outcome<Scope> {
    Ok(Scope::new("bench", "acme", "scan")?)
}

impl Filled {
    async fn start(name: &str, options: &Options<'_>, others: usize) -> Outcome<Self> {
        let backend = Backend::start(name, options.program, 1).await?;
        let writers: Vec<_> = (0..FILLERS)
            .map(|filler| tokio::spawn(write(backend.nodes[0].clone(), (filler..others).step_by(FILLERS))))
            .collect();
        for writer in writers {
            writer.await??;
        }
        for number in 0..SOUGHT {
            let key = scope()?.key(&format!("{SOUGHT_PREFIX}{number}"))?;
            backend.nodes[0].put(&key, &Put::new(VALUE)).await?;
        }
        // As its daemon does after so many new rows; a test server has none.
        if let Some(server) = backend.postgres_server() {
            server.query("VACUUM ANALYZE acteon_entries")?;
        }
        Ok(Self { backend, others })
    }

    /// The time in which the keys that are asked for are there.
    async fn first_keys(&self) -> Outcome<Duration> {
        let (mut times, began) = (0, Instant::now());
        while times == 0 || began.elapsed() < TURN {
            let (mut found, mut cursor) = (0, None);
            loop {
                let scan = Scan::new(scope()?).id_prefix(SOUGHT_PREFIX).page_size(SOUGHT as u32).from_cursor(cursor);
                let page = self.backend.nodes[0].scan_page(&scan).await?;
                found += page.items.len();
                cursor = page.next;
                if found >= SOUGHT || cursor.is_none() {
                    break;
                }
            }
            if found != SOUGHT {
                return Err(format!("of {SOUGHT} keys, {found} are found").into());
            }
            times += 1;
        }
        Ok(began.elapsed() / times)
    }

    /// Lists everything, with the values, and drops each page before the next one or only the last.
    async fn list(&self, keeps_all: bool) -> Outcome<Listing> {
        machine::forget_peak()?;
        let (mut keys, mut pages, mut cursor) = (0, 0, None);
        let (mut kept, mut first_peak_bytes, began) = (Vec::new(), 0, Instant::now());
        loop {
            let scan = Scan::new(scope()?).page_size(PAGE).with_entries().from_cursor(cursor);
            let page = self.backend.nodes[0].scan_page(&scan).await?;
            (keys, pages) = (keys + page.items.len(), pages + 1);
            if pages <= FIRST_PAGES {
                first_peak_bytes = peak_bytes()?;
            }
            cursor = page.next;
            if keeps_all {
                kept.extend(page.items);
            }
            if cursor.is_none() {
                break;
            }
        }
        let took = began.elapsed();
        // Redis may tell a key twice while its table grows, never one less.
        if keys < self.others + SOUGHT {
            return Err(format!("of {} keys, {keys} are listed", self.others + SOUGHT).into());
        }
        Ok(Listing { keys, pages, took, growth_bytes: peak_bytes()?.saturating_sub(first_peak_bytes) })
    }
}

fn peak_bytes() -> Outcome<u64> {
    machine::peak_bytes("self").ok_or_else(|| "this process's peak of memory is unknown".into())
}

async fn write(state: State, numbers: impl Iterator<Item = usize>) -> Outcome {
    for number in numbers {
        let id = format!("{} {number:09}", OTHER_PREFIXES[number % OTHER_PREFIXES.len()]);
        state.put(&scope()?.key(&id)?, &Put::new(VALUE)).await?;
    }
    Ok(())
}

fn tables(measured: &[Measured], report: &mut Report) {
    report.line("\n## The first ten keys");
    report.table(&["backend", "other keys", "time", "ten times as many others", "time", "to fewer"], 1);
    for (Row { backend, first, to_few, .. }, _, others) in measured {
        let ([few, many], [time, time_many]) = (others, first.map(report::time));
        report.line(format_args!("| {backend} | {few} | {time} | {many} | {time_many} | {to_few:.2} |"));
    }
    report.line(format_args!("\n## All keys, with their values, in pages of {PAGE}"));
    let columns = ["backend", "keys", "pages", "keys/s", "memory after the first pages", "if all were kept"];
    report.table(&columns, 1);
    for (Row { backend, growth_bytes, kept_bytes, .. }, listings, _) in measured {
        let [keys, pages] = [middle(listings, |it| it.keys as f64), middle(listings, |it| it.pages as f64)];
        let rate = middle(listings, |it| it.keys as f64 / it.took.as_secs_f64());
        let [growth, kept] = [growth_bytes, kept_bytes].map(|bytes| megabytes(*bytes));
        report.line(format_args!("| {backend} | {keys} | {pages} | {rate:.0} | +{growth} | +{kept} |"));
    }
}

fn goals(measured: &[Measured], report: &mut Report) {
    let rows = || measured.iter().map(|(row, ..)| row);
    // An engine by itself could; over the network it keeps Redis's protocol, and with it SCAN.
    let independent = rows().filter(|row| !matches!(row.backend, "redis" | "engine"));
    let to_few = independent.map(|row| (row.backend, row.to_few));
    report.goal(Goal::at_most("ten keys among ten times as many others: time to fewer", 1.5, "x").cases(to_few));
    // Only where keeping everything would have been seen.
    let seen = rows().filter(|row| row.kept_bytes > GROWTH_BYTES_MAX);
    let growth = seen.map(|row| (row.backend, row.growth_bytes as f64 / 1e6));
    let bound = GROWTH_BYTES_MAX as f64 / 1e6;
    report.goal(Goal::at_most(format!("listing: memory after {FIRST_PAGES} pages"), bound, " MB more").cases(growth));
}

fn chart(measured: &[Measured], report: &mut Report) {
    let group = |(row, ..): &Measured| Group {
        label: row.backend.to_owned(),
        values: row.first.map(|time| Some(time.as_secs_f64() * 1e3)).to_vec(),
        goal: None,
    };
    report.chart(Chart {
        name: "",
        title: "The first ten keys of a prefix among many others".to_owned(),
        axis: "milliseconds, logarithmic",
        scale: Scale::Log,
        series: vec!["others".to_owned(), "ten times as many".to_owned()],
        groups: measured.iter().map(group).collect(),
    });
}
