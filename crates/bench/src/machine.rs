//! What the figures were taken on, and how much processor time was spent.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor, cores, memory and kernel in one line, and in another what the code was built from and by, as far as they tell.
pub fn describe() -> String {
    format!("{}\n{}", hardware(), versions())
}

fn hardware() -> String {
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = model.map_or("unknown processor", |(_, model)| model);
    let memory_info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_kib = memory_info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let memory = memory_kib.map(|kib| format!(", {:.0} GiB", kib as f64 / f64::from(1 << 20))).unwrap_or_default();
    // What ran beside the benchmark when it began: on a busy machine figures say less.
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    // What follows the version names who built it.
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    format!("Machine: {model}, {cores} cores{memory}, Linux {kernel}; load at the beginning {load}.")
}

/// What a program says of itself in one line; nothing if it is not there.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn versions() -> String {
    let commit = said("git", &["rev-parse", "--short", "HEAD"]).map(|commit| {
        let is_clean = said("git", &["status", "--porcelain", "--untracked-files=no"]).is_some_and(|it| it.is_empty());
        format!(", commit {commit}{}", if is_clean { "" } else { " with changes" })
    });
    let compiler = said("rustc", &["--version"]).map(|version| format!(", {version}"));
    format!("Code: acteon {}{}{}.", env!("CARGO_PKG_VERSION"), commit.unwrap_or_default(), compiler.unwrap_or_default())
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

/// Processor time that a process has used so far, user and system; of this one, `self`, to the nanosecond.
pub fn cpu_time(process: &str) -> Option<Duration> {
    if process == "self" { own_cpu_time() } else { cpu_ticks(process).map(|[own, _]| own) }
}

/// By the clock of the process: what the kernel tells in `/proc` is counted in hundredths of a second.
fn own_cpu_time() -> Option<Duration> {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).ok()
}

/// The same with that of its children that have ended.
pub fn cpu_time_with_ended_children(process: &str) -> Option<Duration> {
    cpu_ticks(process).map(|[own, ended]| own + ended)
}

/// Resident memory of a process in bytes.
pub fn resident_bytes(process: &str) -> Option<u64> {
    status_bytes(process, "VmRSS:")
}

/// The most that was resident since the process began, or since [`forget_peak`].
pub fn peak_bytes(process: &str) -> Option<u64> {
    status_bytes(process, "VmHWM:")
}

/// Has the peak of this process begin anew at what is resident now. See `clear_refs` in proc(5).
pub fn forget_peak() -> io::Result<()> {
    fs::write("/proc/self/clear_refs", "5")
}

fn status_bytes(process: &str, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
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

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::{cpu_ticks, cpu_time};

    #[test]
    fn work_of_this_process_is_seen_by_its_clock_and_by_the_kernels_count() {
        let before = cpu_time("self").unwrap();
        let mut sum = 0_u64;
        while cpu_ticks("self").unwrap()[0].is_zero() {
            sum = black_box((0..100_000).fold(sum, |sum, number| sum ^ black_box(number)));
        }
        assert!(cpu_time("self").unwrap() > before);
    }
}
