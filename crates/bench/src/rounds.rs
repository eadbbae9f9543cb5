//! Alternating rounds: every contestant runs once in each, beginning with another one each time, so that drift of the
//! machine's speed hits all alike. Ratios are taken within a round; medians over the rounds.

use std::time::Duration;

/// Something that is measured against others.
pub struct Contestant<'a> {
    /// What it is called in a table.
    pub name: String,
    /// Does the work once and returns the time per operation.
    pub run: Box<dyn FnMut() -> Duration + 'a>,
}

impl<'a> Contestant<'a> {
    /// A contestant that does its work by `run`.
    pub fn new(name: impl Into<String>, run: impl FnMut() -> Duration + 'a) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// What a contestant made of its rounds.
pub struct Standing {
    /// What it is called in a table.
    pub name: String,
    /// Median time per operation.
    pub median: Duration,
    /// Median of its time over the first contestant's time of the same round: below 1 is faster.
    pub ratio: f64,
}

/// Runs the contestants against the first of them. One round before the counted ones warms up.
pub fn compare(mut contestants: Vec<Contestant<'_>>, rounds: usize) -> Vec<Standing> {
    let mut times: Vec<Vec<Duration>> = contestants.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        for turn in 0..contestants.len() {
            let at = (round + turn) % contestants.len();
            let time = (contestants[at].run)();
            if round > 0 {
                times[at].push(time);
            }
        }
    }
    let standing = |(contestant, own): (Contestant<'_>, &Vec<Duration>)| Standing {
        name: contestant.name,
        median: median(own.clone()),
        ratio: median(own.iter().zip(&times[0]).map(|(own, base)| own.as_secs_f64() / base.as_secs_f64()).collect()),
    };
    contestants.into_iter().zip(&times).map(standing).collect()
}

/// The middle value; of an even number, the upper middle.
pub fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values[values.len() / 2]
}
