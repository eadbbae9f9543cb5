//! One run of redis-benchmark, and what it cost the server.

use std::process::Command;
use std::time::Duration;

use super::servers::Server;
use crate::Outcome;

/// How redis-benchmark is called.
#[derive(Clone, Copy)]
pub(crate) struct RedisBenchmark {
    pub(crate) connections: usize,
    pub(crate) pipeline: usize,
    pub(crate) requests: usize,
    /// Different keys that it chooses from.
    pub(crate) keys: usize,
    pub(crate) value_bytes: usize,
}

/// What one run cost.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) cpu_s_per_million: f64,
    pub(crate) per_second: f64,
}

impl RedisBenchmark {
    /// Runs it, and tells what it took.
    pub(super) fn measure(&self, server: &Server, words: &[String]) -> Outcome<Sample> {
        let before = server.cpu_time()?;
        let per_second = self.run(server, words)?;
        let spent: Duration = server.cpu_time()?.saturating_sub(before);
        Ok(Sample { cpu_s_per_million: spent.as_secs_f64() * 1e6 / self.requests as f64, per_second })
    }

    /// Returns the operations per second that redis-benchmark reports.
    pub(super) fn run(&self, server: &Server, words: &[String]) -> Outcome<f64> {
        self.run_on(server.port(), words)
    }

    /// The same for whatever listens on that port of this machine.
    pub(crate) fn run_on(&self, port: u16, words: &[String]) -> Outcome<f64> {
        let mut command = Command::new("redis-benchmark");
        command.args(["-p", &port.to_string(), "-c", &self.connections.to_string(), "--csv"]);
        command.args(["-d", &self.value_bytes.to_string(), "-P", &self.pipeline.to_string()]);
        command.args(["-n", &self.requests.to_string(), "-r", &self.keys.to_string()]);
        let output = command.args(words).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let rate = if output.status.success() { rate(&text) } else { None };
        rate.ok_or_else(|| format!("redis-benchmark says: {text}{}", String::from_utf8_lossy(&output.stderr)).into())
    }
}

/// The operations per second in a line with the names of the columns, and one with the figures. The name of a test may hold commas, so
/// columns count from the end.
fn rate(csv: &str) -> Option<f64> {
    /// Columns of latencies after that of operations per second.
    const LATENCIES: usize = 6;
    csv.lines().last()?.split(',').rev().nth(LATENCIES)?.trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::rate;

    #[test]
    fn the_rate_is_found_whatever_the_test_is_called() {
        let names = r#""test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms""#;
        let figures = r#""EVAL return {1,2}","99009.90","0.267","0.088","0.263","0.303","0.399","0.607""#;
        assert_eq!(rate(&format!("{names}\n{figures}\n")), Some(99_009.90));
        assert_eq!(rate("ERR unknown command"), None);
    }
}
