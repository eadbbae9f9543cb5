//! What the figures were taken on, and how much processor time was spent.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Processor, cores and kernel in one line, as far as the system tells.
pub fn describe() -> String {
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = model.map_or("unknown processor", |(_, model)| model);
    format!("Machine: {model}, {cores} cores, Linux {}\n", kernel.trim())
}

/// The file system that a folder is on, by kind and device.
pub fn file_system(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    // The innermost one, and of several at one place the last one hides the others.
    let mount = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        folder.starts_with(place).then_some((place.len(), kind, device))
    });
    match mount.max_by_key(|(length, ..)| *length) {
        Some((_, kind @ ("tmpfs" | "ramfs"), _)) => format!("{kind}, which is memory and no disk"),
        Some((_, kind, device)) => format!("{kind} on {device}"),
        None => "an unknown file system".to_owned(),
    }
}

/// Processor time that a process has used so far, user and system.
pub fn cpu_time(process: &str) -> Option<Duration> {
    cpu_ticks(process).map(|[own, _]| own)
}

/// The same with that of its children that have ended.
pub fn cpu_time_with_ended_children(process: &str) -> Option<Duration> {
    cpu_ticks(process).map(|[own, ended]| own + ended)
}

/// Of the process itself, and of its children that have ended.
fn cpu_ticks(process: &str) -> Option<[Duration; 2]> {
    /// `sysconf(_SC_CLK_TCK)` is 100 on every Linux that Rust supports: the kernel's ABI fixes it for user space.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold spaces: fields are counted from behind it. See proc(5).
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut user_and_system = || {
        let user: u64 = fields.next()?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        Some(Duration::from_millis((user + system) * 1_000 / TICKS_PER_SECOND))
    };
    Some([user_and_system()?, user_and_system()?])
}
