//! What the process uses, as Linux tells it in `/proc`; nothing on other systems.
//!
//! See <https://man7.org/linux/man-pages/man5/proc.5.html>.

use std::env::consts::{ARCH, OS};
use std::fs::read_to_string;

use acteon_engine::Usage;

/// The unit of times in `/proc`, which is the same on all architectures.
const TICK_US: u64 = 10_000;

/// What is used now. What cannot be read is zero.
pub(crate) fn now() -> Usage {
    let read = |path: &str| read_to_string(path).unwrap_or_default();
    let (cpu_user_us, cpu_system_us) = cpu_us(&read("/proc/self/stat"));
    Usage {
        resident_bytes: line_bytes(&read("/proc/self/status"), "VmRSS:"),
        machine_bytes: line_bytes(&read("/proc/meminfo"), "MemTotal:"),
        cpu_system_us,
        cpu_user_us,
    }
}

/// The operating system with its release and the machine, as `uname` says it.
pub(crate) fn os() -> String {
    let read = |name: &str| read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    let (name, release) = (read("ostype"), read("osrelease"));
    let name = if name.is_empty() { OS } else { name.trim() };
    format!("{name} {} {ARCH}", release.trim())
}

/// The value of a line `name   123 kB`.
fn line_bytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1_024)
}

/// Time in the program and in the kernel. The name of the program may hold anything, so fields count from its closing bracket.
fn cpu_us(stat: &str) -> (u64, u64) {
    /// Fields between the name and the times.
    const SKIPPED: usize = 11;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut ticks = fields.split_whitespace().skip(SKIPPED).map(|field| field.parse::<u64>().unwrap_or(0));
    let mut next_us = || ticks.next().unwrap_or(0).saturating_mul(TICK_US);
    (next_us(), next_us())
}

#[cfg(test)]
mod tests {
    use super::{cpu_us, line_bytes};

    #[test]
    fn numbers_are_found_in_the_words_of_the_kernel() {
        let stat = "12 (a) b) c) S 1 2 3 0 -1 4194560 100 0 5 0 250 40 0 0 20 0 1";
        assert_eq!(cpu_us(stat), (2_500_000, 400_000));
        assert_eq!(cpu_us(""), (0, 0));
        let status = "VmPeak:\t  9 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!(line_bytes(status, "VmRSS:"), 2 << 20);
        assert_eq!(line_bytes(status, "MemTotal:"), 0);
    }
}
