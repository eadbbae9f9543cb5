//! Resident memory per key, allocator and tables included.

use std::thread::sleep;
use std::time::Duration;

use super::servers::Server;
use super::{Options, load};
use crate::Outcome;
use crate::report::{Chart, Goal, Group, Report, Scale, figure};

const VALUE_BYTES: [usize; 3] = [16, 64, 256];
/// Far enough that nothing expires.
const TTL_S: &str = "1000000";
/// Time for a server to finish what it does a little at a time, such as moving to a larger table.
const SETTLE: Duration = Duration::from_secs(2);

/// What is asked for with this size of values at the largest number of keys, and how much more with a time to live.
const BYTES_ASKED: [f64; 3] = [60.0, 106.0, 330.0];
const TTL_BYTES_ASKED: f64 = 8.0;

pub(super) fn run(options: &Options<'_>, report: &mut Report) -> Outcome {
    if !options.includes("memory", "") {
        return Ok(());
    }
    report.line("\n## Memory per key\n\nResident memory divided by keys, `key:%012d`.");
    report.table(&["memory per key", "keys", "redis: bytes", "engine: bytes", "engine/redis"], 1);
    let mut groups = Vec::new();
    for keys in [options.keys, options.keys_max] {
        for (ttl, with_ttl) in [(&[][..], ""), (&["EX", TTL_S], ", with ttl")] {
            for (value_bytes, asked) in VALUE_BYTES.into_iter().zip(BYTES_ASKED) {
                let name = format!("values of {value_bytes} bytes{with_ttl}");
                eprintln!("memory: {keys} keys, {name}");
                let redis = bytes_per_key(&Server::redis()?, keys, value_bytes, ttl)?;
                let engine = bytes_per_key(&Server::engine(options.program, 1)?, keys, value_bytes, ttl)?;
                let ratio = engine / redis;
                report.line(format_args!("| {name} | {keys} | {redis:.0} | {engine:.0} | {ratio:.2} |"));
                if keys == options.keys_max {
                    let asked = if ttl.is_empty() { asked } else { asked + TTL_BYTES_ASKED };
                    report.goal(Goal::at_most(format!("memory per key, {name}"), asked, " bytes").case("", engine));
                    groups.push(Group { label: name, values: vec![Some(redis), Some(engine)], goal: Some(asked) });
                }
            }
        }
    }
    report.chart(Chart {
        name: "memory",
        title: format!("Memory per key with {} keys", figure(options.keys_max as f64)),
        axis: "resident bytes per key",
        scale: Scale::Linear,
        series: vec!["redis-server".to_owned(), "engine".to_owned()],
        groups,
    });
    Ok(())
}

fn bytes_per_key(server: &Server, keys: usize, value_bytes: usize, ttl: &[&str]) -> Outcome<f64> {
    let before = server.resident_bytes()?;
    load::fill(server, keys, value_bytes, ttl)?;
    sleep(SETTLE);
    Ok(server.resident_bytes()?.saturating_sub(before) as f64 / keys as f64)
}
