//! Alternating rounds: every contestant runs once in each, beginning with another one each time, so that drift of the
//! machine's speed hits all alike. Ratios are taken within a round; medians over the rounds.

use std::time::Duration;

use crate::Outcome;

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

/// One sample of each of `N` contestants per round, after a round that warms up and does not count. Each round begins with another one.
///
/// # Errors
/// The first failure of `measure`.
pub fn alternate<T, const N: usize>(rounds: usize, measure: impl FnMut(usize) -> Outcome<T>) -> Outcome<[Vec<T>; N]> {
    alternate_all(N, rounds, measure)?.try_into().map_err(|_| "as many lists of samples as contestants".into())
}

/// The same for any number of contestants.
///
/// # Errors
/// The first failure of `measure`.
pub fn alternate_all<T>(
    contestants: usize,
    rounds: usize,
    mut measure: impl FnMut(usize) -> Outcome<T>,
) -> Outcome<Vec<Vec<T>>> {
    let mut samples: Vec<Vec<T>> = (0..contestants).map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        for turn in 0..contestants {
            let at = (round + turn) % contestants;
            let sample = measure(at)?;
            if round > 0 {
                samples[at].push(sample);
            }
        }
    }
    Ok(samples)
}

/// The median of a figure over rounds.
pub fn middle<T>(of: &[T], value: impl Fn(&T) -> f64) -> f64 {
    median(of.iter().map(value).collect())
}

/// The median of its ratio to that of another contestant in the same round.
pub fn ratio<T>(of: &[T], to: &[T], value: impl Fn(&T) -> f64) -> f64 {
    median(of.iter().zip(to).map(|(of, to)| value(of) / value(to)).collect())
}

/// The middle value; of an even number, the upper middle.
pub fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::{alternate, middle, ratio};

    #[test]
    fn each_round_begins_with_another_contestant_and_the_first_round_does_not_count() {
        let mut order = Vec::new();
        let samples: [Vec<usize>; 2] = alternate(3, |at| {
            order.push(at);
            Ok(order.len())
        })
        .unwrap();
        assert_eq!(order, [0, 1, 1, 0, 0, 1, 1, 0]);
        assert_eq!(samples, [vec![4, 5, 8], vec![3, 6, 7]]);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let (of, to) = ([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]);
        assert!((ratio(&of, &to, |value| *value) - 2.0).abs() < f64::EPSILON);
        assert!((middle(&of, |value| *value) - 4.0).abs() < f64::EPSILON);
    }
}
