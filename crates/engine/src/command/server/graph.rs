//! The drawing of LATENCY GRAPH: a column for each sample, with its age written downwards below.

use std::fmt::Write as _;

use crate::instance::LatencyEvent;

/// Lines of the drawing, without those of the ages.
const ROWS: usize = 4;
/// What a line can show, from low to high; above it is the line full.
const LEVELS: [char; 3] = ['_', 'o', '#'];
const FULL: char = '|';
/// Columns side by side.
const WIDTH: usize = 80;

/// Draws the samples of `event`.
pub(super) fn graph(name: &str, event: &LatencyEvent, now_s: u64) -> String {
    let samples: Vec<(u64, u64)> = event.samples.iter().copied().collect();
    let all_ms = || samples.iter().map(|(_, ms)| *ms);
    let (low_ms, high_ms) = (all_ms().min().unwrap_or(0), all_ms().max().unwrap_or(0));
    let mut text = format!("{name} - high {high_ms} ms, low {low_ms} ms (all time high {} ms)\n", event.longest_ms);
    let _ = writeln!(text, "{}", "-".repeat(WIDTH));
    for (at, samples) in samples.chunks(WIDTH).enumerate() {
        if at > 0 {
            text.push('\n');
        }
        columns(samples, low_ms, high_ms, now_s, &mut text);
    }
    text
}

fn columns(samples: &[(u64, u64)], low_ms: u64, high_ms: u64, now_s: u64, text: &mut String) {
    let steps: Vec<usize> = samples.iter().map(|(_, ms)| step(*ms, low_ms, high_ms)).collect();
    for row in (0..ROWS).rev() {
        text.extend(steps.iter().map(|step| level(*step, row)));
        text.push('\n');
    }
    let ages: Vec<Vec<char>> =
        samples.iter().map(|(at_s, _)| age(now_s.saturating_sub(*at_s)).chars().collect()).collect();
    let longest = ages.iter().map(Vec::len).max().unwrap_or(0);
    text.push_str(&" ".repeat(samples.len()));
    text.push('\n');
    for line in 0..longest {
        text.extend(ages.iter().map(|age| age.get(line).copied().unwrap_or(' ')));
        text.push('\n');
    }
}

/// The height of a sample among all.
fn step(ms: u64, low_ms: u64, high_ms: u64) -> usize {
    const STEPS: usize = ROWS * LEVELS.len();
    let share = (ms - low_ms) as f64 / (high_ms - low_ms).max(1) as f64;
    ((share * STEPS as f64) as usize).min(STEPS - 1)
}

/// What a line shows of a column, `row` lines above the lowest.
fn level(step: usize, row: usize) -> char {
    match step.checked_sub(row * LEVELS.len()) {
        None => ' ',
        Some(above) => LEVELS.get(above).copied().unwrap_or(FULL),
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::graph;
    use crate::instance::LatencyEvent;

    #[test]
    fn columns_rise_with_the_samples_and_show_their_ages() {
        let event = LatencyEvent { samples: [(100, 10), (160, 22), (3_700, 16)].into(), longest_ms: 30 };
        let text = graph("command", &event, 3_705);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "command - high 22 ms, low 10 ms (all time high 30 ms)");
        assert_eq!(lines[2..], [" # ", " |_", " ||", "_||", "   ", "155", "h9s", " m "]);
    }
}
