//! What memory does under churn: values of mixed sizes are overwritten, deleted and written again, while as many keys and about as many
//! bytes are live all the time. What an allocator cannot use again shows as resident memory that grows.

use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::Options;
use super::load::Load;
use super::servers::Server;
use crate::Outcome;
use crate::report::{Report, megabytes};

/// Keys that live.
const KEYS: usize = 200_000;
const CYCLES: usize = 10;
/// Of the keys, so many are overwritten in a cycle, and so many are deleted and replaced by others.
const OVERWRITTEN_PERCENT: usize = 50;
const REPLACED_PERCENT: usize = 30;
/// At the end so many stay.
const LEFT_PERCENT: usize = 10;
/// Values have any size between these, each power of two as often as the next.
const VALUE_BYTES_MIN: f64 = 16.0;
const VALUE_BYTES_MAX: f64 = 4_096.0;
const SEED: u64 = 42;
/// Time for a server to finish what it does a little at a time, and for its allocator to give back what it gives back.
const SETTLE: Duration = Duration::from_secs(2);

/// Which keys are live, with the sizes of their values.
struct Plan {
    random: SmallRng,
    live: Vec<(usize, usize)>,
    /// The number of the next new key.
    next: usize,
}

pub(super) fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    if !options.includes("churn", "") {
        return Ok(());
    }
    let keys = options.scaled(KEYS);
    report.line(format_args!(
        "\n## Memory under churn\n\n{keys} keys with values of {VALUE_BYTES_MIN} to {VALUE_BYTES_MAX} bytes; in each cycle {OVERWRITTEN_PERCENT} % are overwritten and \
         {REPLACED_PERCENT} % replaced by others."
    ));
    let columns = [
        "after",
        "live values",
        "redis: used",
        "redis: resident",
        "resident/live",
        "engine: used",
        "engine: resident",
        "resident/live",
    ];
    report.table(&columns, 1);
    let servers = [Server::redis()?, Server::engine(options.program, 1)?];
    let mut plan = Plan { random: SmallRng::seed_from_u64(SEED), live: Vec::new(), next: 0 };
    set(&servers, &plan.add(keys))?;
    row("filling", &servers, &plan, report)?;
    for cycle in 1..=CYCLES {
        eprintln!("churn: cycle {cycle} of {CYCLES}");
        set(&servers, &plan.overwrite(keys * OVERWRITTEN_PERCENT / 100))?;
        let replaced = keys * REPLACED_PERCENT / 100;
        delete(&servers, &plan.remove(replaced))?;
        set(&servers, &plan.add(replaced))?;
        row(&format!("cycle {cycle}"), &servers, &plan, report)?;
    }
    delete(&servers, &plan.remove(keys - keys * LEFT_PERCENT / 100))?;
    row(&format!("all but {LEFT_PERCENT} % are deleted"), &servers, &plan, report)
}

fn row(label: &str, servers: &[Server; 2], plan: &Plan, report: &mut Report) -> Outcome {
    sleep(SETTLE);
    let live = plan.live_bytes();
    let mut row = format!("| {label} | {} ", megabytes(live));
    for server in servers {
        let (used, resident) = (server.used_bytes()?, server.resident_bytes()?);
        let to_live = resident as f64 / live as f64;
        row.push_str(&format!("| {} | {} | {to_live:.2} ", megabytes(used), megabytes(resident)));
    }
    report.line(format_args!("{row}|"));
    Ok(())
}

fn set(servers: &[Server; 2], values: &[(usize, usize)]) -> Outcome {
    let value = vec![b'x'; VALUE_BYTES_MAX as usize];
    let load = Load { requests: values.len(), per_second: None, reply: b"+OK\r\n" };
    servers.iter().try_for_each(|server| {
        load.run(server, |out: &mut dyn Write, at| {
            let (key, bytes) = values[at];
            write!(out, "*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${bytes}\r\n")?;
            out.write_all(&value[..bytes])?;
            out.write_all(b"\r\n")
        })
    })
}

fn delete(servers: &[Server; 2], keys: &[usize]) -> Outcome {
    let load = Load { requests: keys.len(), per_second: None, reply: b":1\r\n" };
    servers.iter().try_for_each(|server| {
        load.run(server, |out: &mut dyn Write, at| write!(out, "*2\r\n$3\r\nDEL\r\n$16\r\nkey:{:012}\r\n", keys[at]))
    })
}

impl Plan {
    fn size(&mut self) -> usize {
        let share = self.random.random::<f64>();
        (VALUE_BYTES_MIN * (VALUE_BYTES_MAX / VALUE_BYTES_MIN).powf(share)) as usize
    }

    /// New keys with their sizes.
    fn add(&mut self, count: usize) -> Vec<(usize, usize)> {
        let added: Vec<_> = (self.next..self.next + count).map(|key| (key, self.size())).collect();
        self.next += count;
        self.live.extend_from_slice(&added);
        added
    }

    /// New sizes for keys chosen at random, some of them more than once.
    fn overwrite(&mut self, count: usize) -> Vec<(usize, usize)> {
        let mut overwritten = Vec::with_capacity(count);
        for _ in 0..count {
            let (at, bytes) = (self.random.random_range(0..self.live.len()), self.size());
            self.live[at].1 = bytes;
            overwritten.push(self.live[at]);
        }
        overwritten
    }

    /// Keys chosen at random, which live no longer.
    fn remove(&mut self, count: usize) -> Vec<usize> {
        let mut removed = Vec::with_capacity(count);
        for _ in 0..count {
            let at = self.random.random_range(0..self.live.len());
            removed.push(self.live.swap_remove(at).0);
        }
        removed
    }

    fn live_bytes(&self) -> u64 {
        self.live.iter().map(|(_, bytes)| *bytes as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::{Plan, VALUE_BYTES_MAX, VALUE_BYTES_MIN};

    #[test]
    fn plan_knows_what_lives_in_a_server_that_follows_it() {
        let mut plan = Plan { random: SmallRng::seed_from_u64(1), live: Vec::new(), next: 0 };
        let mut server: HashMap<usize, usize> = plan.add(1_000).into_iter().collect();
        for _ in 0..5 {
            let overwritten = plan.overwrite(500);
            assert!(overwritten.iter().all(|(key, bytes)| server.insert(*key, *bytes).is_some()));
            assert!(plan.remove(300).iter().all(|key| server.remove(key).is_some()));
            assert!(plan.add(300).iter().all(|(key, bytes)| server.insert(*key, *bytes).is_none()));
        }
        assert_eq!(plan.live.iter().copied().collect::<HashMap<_, _>>(), server);
        assert_eq!(server.len(), 1_000);
        assert_eq!(plan.live_bytes(), server.values().map(|bytes| *bytes as u64).sum::<u64>());
        let bounds = VALUE_BYTES_MIN as usize..=VALUE_BYTES_MAX as usize;
        assert!(server.values().all(|bytes| bounds.contains(bytes)));
    }
}
