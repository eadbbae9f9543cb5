//! Tables in Markdown.

use std::time::Duration;

use crate::rounds::Standing;

/// Prints the head of a table of standings.
pub fn head(base: &str) {
    println!("| case | contestant | per operation | time relative to {base} |");
    println!("|---|---|---:|---:|");
}

/// Prints one row per standing.
pub fn rows(case: &str, standings: &[Standing]) {
    for Standing { name, median, ratio } in standings {
        println!("| {case} | {name} | {} | {ratio:.2} |", time(*median));
    }
}

/// A time with three digits and a unit.
pub fn time(time: Duration) -> String {
    let ns = time.as_nanos();
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.2} µs", time.as_secs_f64() * 1e6),
        _ => format!("{:.2} ms", time.as_secs_f64() * 1e3),
    }
}

/// Megabytes, of a million bytes each.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
