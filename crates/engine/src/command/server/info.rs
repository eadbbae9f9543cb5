//! INFO: what dashboards and clients read of a server, by Redis's names.
//!
//! Fields about what does not exist here (replicas; saving, where nobody keeps the data) say what a Redis without it says. The version is that of
//! the Redis whose behaviour this is, since clients choose features by it; this server's own is `acteon_version`.

use std::fmt::Display;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use super::super::all;
use super::super::call::Call;
use super::super::connection::REDIS_VERSION;
use super::super::error::CommandError;
use super::super::options::is;
use crate::instance::{Channels, HostFacts, KeeperFigures, Traffic, Usage};
use crate::lock::Contended;
use crate::stats::Stats;

/// The sections in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Server,
    Clients,
    Memory,
    Persistence,
    Stats,
    Replication,
    Cpu,
    Modules,
    CommandStats,
    ErrorStats,
    LatencyStats,
    Cluster,
    Keyspace,
}

/// With their names, and whether they are shown to those who do not choose.
const SECTIONS: [(Section, &str, bool); 13] = [
    (Section::Server, "Server", true),
    (Section::Clients, "Clients", true),
    (Section::Memory, "Memory", true),
    (Section::Persistence, "Persistence", true),
    (Section::Stats, "Stats", true),
    (Section::Replication, "Replication", true),
    (Section::Cpu, "CPU", true),
    (Section::Modules, "Modules", true),
    (Section::CommandStats, "Commandstats", false),
    (Section::ErrorStats, "Errorstats", true),
    (Section::LatencyStats, "Latencystats", false),
    (Section::Cluster, "Cluster", true),
    (Section::Keyspace, "Keyspace", true),
];

/// Who asks for a percentage of nothing gets this.
const ALL_OF_IT: f64 = 100.0;

pub(super) fn info(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let chosen = choose(&call.args[1..]);
    let report = Report::of(call, &chosen)?;
    let mut text = String::new();
    for (section, name, _) in SECTIONS {
        if chosen.contains(&section) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let _ = write!(text, "# {name}\r\n");
            report.write(section, call, &mut text);
        }
    }
    call.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn choose(args: &[&[u8]]) -> Vec<Section> {
    let mut chosen = Vec::new();
    let wanted: &[&[u8]] = if args.is_empty() { &[b"default"] } else { args };
    for word in wanted {
        for (section, name, is_default) in SECTIONS {
            let is_all = is(word, "everything") || is(word, "all") && section != Section::Modules;
            if is_all || is(word, "default") && is_default || is(word, name) {
                chosen.push(section);
            }
        }
    }
    chosen
}

/// What several sections need.
struct Report {
    keyspace: Vec<(usize, Stats)>,
    facts: HostFacts,
    usage: Usage,
    traffic: Traffic,
}

/// The numbers of the databases that are in use, as far as they can be read without waiting for others while holding keys.
pub(super) fn keyspace(call: &mut Call<'_, '_>) -> Result<Vec<(usize, Stats)>, CommandError> {
    let locked = &mut *call.keys.locked;
    let databases = locked.databases();
    let mut all = Vec::new();
    for (number, engine) in databases.used() {
        let mut stats = engine.keyspace().stats();
        for place in databases.places_of(number) {
            // Inside of a transaction all databases are held that were there when it began.
            if locked.is_empty() || locked.holds(place) {
                locked
                    .step(place, |_, segment| segment.add_to(&mut stats))
                    .map_err(|Contended| CommandError::Contended)?;
            }
        }
        all.push((number, stats));
    }
    Ok(all)
}

/// Writes `name:value` lines.
struct Lines<'t>(&'t mut String);

impl Lines<'_> {
    fn put(&mut self, name: &str, value: impl Display) {
        // Writing into memory does not fail.
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    /// The bytes, and the same for people.
    fn bytes(&mut self, name: &str, bytes: u64) {
        self.put(name, bytes);
        self.put(&format!("{name}_human"), human(bytes));
    }

    /// A duration, or that there is none yet.
    fn seconds(&mut self, name: &str, seconds: Option<u64>) {
        match seconds {
            Some(seconds) => self.put(name, seconds),
            None => self.put(name, -1),
        }
    }

    fn zeros(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.put(name, 0));
    }
}

fn status(is_fine: bool) -> &'static str {
    if is_fine { "ok" } else { "err" }
}

impl Report {
    fn of(call: &mut Call<'_, '_>, chosen: &[Section]) -> Result<Self, CommandError> {
        let needs_keyspace = [Section::Memory, Section::Stats, Section::Keyspace];
        let is_needed = needs_keyspace.iter().any(|section| chosen.contains(section));
        let keyspace = if is_needed { keyspace(call)? } else { Vec::new() };
        let instance = call.instance;
        instance.stats.note_start(call.keys.now_us);
        let (facts, usage, traffic) = (instance.host_facts(), instance.usage(), instance.traffic());
        Ok(Self { keyspace, facts, usage, traffic })
    }

    fn write(&self, section: Section, call: &Call<'_, '_>, text: &mut String) {
        let mut lines = Lines(text);
        match section {
            Section::Server => self.server(call, &mut lines),
            Section::Clients => clients(call, &mut lines),
            Section::Memory => self.memory(call, &mut lines),
            Section::Persistence => self.persistence(call, &mut lines),
            Section::Stats => self.stats(call, &mut lines),
            Section::Replication => replication(call, &mut lines),
            Section::Cpu => self.cpu(&mut lines),
            Section::Modules => {}
            Section::CommandStats => command_stats(call, &mut lines),
            Section::ErrorStats => error_stats(call, &mut lines),
            Section::LatencyStats => latency_stats(call, &mut lines),
            Section::Cluster => lines.put("cluster_enabled", 0),
            Section::Keyspace => self.keyspace(&mut lines),
        }
    }

    fn server(&self, call: &Call<'_, '_>, lines: &mut Lines<'_>) {
        let (facts, now_us) = (&self.facts, call.keys.now_us);
        let uptime_s = now_us.saturating_sub(call.instance.stats.started_us()) / 1_000_000;
        lines.put("redis_version", REDIS_VERSION);
        lines.put("redis_git_sha1", "00000000");
        lines.put("redis_git_dirty", 0);
        lines.put("redis_build_id", "0000000000000000");
        lines.put("redis_mode", "standalone");
        lines.put("acteon_version", env!("CARGO_PKG_VERSION"));
        lines.put("os", &facts.os);
        lines.put("arch_bits", usize::BITS);
        lines.put("process_id", facts.process_id);
        lines.put("run_id", &call.instance.run_id);
        lines.put("tcp_port", facts.port);
        lines.put("server_time_usec", now_us);
        lines.put("uptime_in_seconds", uptime_s);
        lines.put("uptime_in_days", uptime_s / 86_400);
        lines.put("hz", 10);
        lines.put("configured_hz", 10);
        lines.put("lru_clock", (now_us / 1_000_000) & 0x00ff_ffff);
        lines.put("executable", facts.executable.display());
        lines.put("config_file", facts.config_file.display());
        lines.put("io_threads_active", 0);
    }

    fn bytes(&self) -> u64 {
        self.keyspace.iter().map(|(_, stats)| stats.bytes).sum()
    }

    fn memory(&self, call: &Call<'_, '_>, lines: &mut Lines<'_>) {
        let (used, rss) = (self.bytes(), self.usage.resident_bytes);
        let peak = call.instance.stats.peak_bytes(used);
        let bytes_max = call.instance.databases.first().memory_bytes_max().unwrap_or(0);
        let (scripts, scripts_bytes) = call.instance.scripts.size();
        lines.bytes("used_memory", used);
        lines.bytes("used_memory_rss", rss);
        lines.bytes("used_memory_peak", peak);
        lines.put("used_memory_peak_perc", format_args!("{:.2}%", percent(used, peak)));
        lines.zeros(&["used_memory_overhead", "used_memory_startup"]);
        lines.put("used_memory_dataset", used);
        lines.put("used_memory_dataset_perc", "100.00%");
        lines.put("allocator_allocated", used);
        lines.put("allocator_active", rss);
        lines.put("allocator_resident", rss);
        lines.bytes("total_system_memory", self.usage.machine_bytes);
        lines.bytes("used_memory_lua", 0);
        lines.bytes("used_memory_scripts", scripts_bytes as u64);
        lines.put("used_memory_scripts_eval", scripts_bytes);
        lines.put("number_of_cached_scripts", scripts);
        lines.zeros(&["number_of_functions", "number_of_libraries"]);
        lines.bytes("maxmemory", bytes_max);
        lines.put("maxmemory_policy", call.instance.eviction().policy());
        lines.put("mem_fragmentation_ratio", format_args!("{:.2}", ratio(rss, used)));
        lines.put("mem_fragmentation_bytes", i128::from(rss) - i128::from(used));
        lines.zeros(&["mem_not_counted_for_evict", "mem_replication_backlog", "mem_total_replication_buffers"]);
        lines.zeros(&["mem_clients_slaves", "mem_clients_normal", "mem_cluster_links", "mem_aof_buffer"]);
        lines.put("mem_allocator", "libc");
        lines.zeros(&["active_defrag_running", "lazyfree_pending_objects", "lazyfreed_objects"]);
    }

    fn persistence(&self, call: &Call<'_, '_>, lines: &mut Lines<'_>) {
        let stats = &call.instance.stats;
        let keeper = call.instance.keeper_figures();
        let is_kept = keeper.is_some();
        let memory_only = KeeperFigures {
            changes_since_save: stats.totals().changes,
            last_save_s: stats.started_us() / 1_000_000,
            ..KeeperFigures::default()
        };
        let figures = keeper.unwrap_or(memory_only);
        let (save, rewrite) = (figures.save, figures.rewrite);
        lines.zeros(&["loading", "async_loading"]);
        // What takes the place of pages that a fork would have copied.
        let held = call.instance.databases.first().snapshot_held_bytes();
        lines.put("current_cow_peak", if save.is_running || rewrite.is_running { held.peak } else { 0 });
        lines.put("current_cow_size", held.now);
        lines.put("rdb_changes_since_last_save", figures.changes_since_save);
        lines.put("rdb_bgsave_in_progress", u8::from(save.is_running || save.is_scheduled));
        lines.put("rdb_last_save_time", figures.last_save_s);
        lines.put("rdb_last_bgsave_status", status(!save.has_failed));
        lines.seconds("rdb_last_bgsave_time_sec", (save.ended > 0).then_some(save.last_s));
        lines.put("rdb_current_bgsave_time_sec", -1);
        lines.put("rdb_saves", save.ended);
        lines.zeros(&["rdb_last_cow_size", "rdb_last_load_keys_expired", "rdb_last_load_keys_loaded"]);
        lines.put("aof_enabled", u8::from(is_kept));
        lines.put("aof_rewrite_in_progress", u8::from(rewrite.is_running));
        lines.put("aof_rewrite_scheduled", u8::from(rewrite.is_scheduled));
        lines.seconds("aof_last_rewrite_time_sec", (rewrite.ended > 0).then_some(rewrite.last_s));
        lines.put("aof_current_rewrite_time_sec", -1);
        lines.put("aof_last_bgrewrite_status", status(!rewrite.has_failed));
        lines.put("aof_rewrites", rewrite.ended);
        lines.put("aof_last_write_status", status(figures.refusal.is_none()));
        lines.zeros(&["aof_last_cow_size", "module_fork_in_progress", "module_fork_last_cow_size"]);
        if is_kept {
            lines.put("aof_current_size", figures.journal_bytes);
            lines.put("aof_base_size", figures.base_bytes);
            lines.put("aof_pending_rewrite", 0);
            lines.put("aof_buffer_length", figures.pending_bytes);
            lines.put("aof_pending_bio_fsync", u8::from(figures.pending_syncs > 0));
            lines.put("aof_delayed_fsync", 0);
        }
    }

    fn stats(&self, call: &Call<'_, '_>, lines: &mut Lines<'_>) {
        let (instance, traffic) = (call.instance, &self.traffic);
        let (totals, rates) = (instance.stats.totals(), instance.stats.per_second());
        let expired = self.keyspace.iter().map(|(_, stats)| stats.expired_total).sum();
        let limit_disconnections = traffic.output_limit_disconnections + instance.peers.output_limit_disconnections();
        lines.put("total_connections_received", traffic.connections_received);
        lines.put("total_commands_processed", totals.commands);
        lines.put("instantaneous_ops_per_sec", rates.commands);
        lines.put("total_net_input_bytes", traffic.input_bytes);
        lines.put("total_net_output_bytes", traffic.output_bytes);
        lines.zeros(&["total_net_repl_input_bytes", "total_net_repl_output_bytes"]);
        lines.put("instantaneous_input_kbps", format_args!("{:.2}", rates.input_bytes / 1_024.0));
        lines.put("instantaneous_output_kbps", format_args!("{:.2}", rates.output_bytes / 1_024.0));
        lines.put("rejected_connections", traffic.connections_rejected);
        lines.zeros(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
        lines.put("expired_keys", instance.stats.expired(expired));
        lines.put("expired_stale_perc", "0.00");
        lines.put("expired_time_cap_reached_count", 0);
        lines.put("evicted_keys", instance.stats.evicted(instance.eviction().evicted_total()));
        lines.put("evicted_clients", 0);
        lines.put("keyspace_hits", totals.hits);
        lines.put("keyspace_misses", totals.misses);
        lines.put("pubsub_channels", instance.pubsub.count(Channels::Plain));
        lines.put("pubsub_patterns", instance.pubsub.count(Channels::Pattern));
        lines.put("pubsubshard_channels", instance.pubsub.count(Channels::Shard));
        lines.zeros(&["latest_fork_usec", "total_forks", "migrate_cached_sockets", "slave_expires_tracked_keys"]);
        lines.zeros(&["active_defrag_hits", "active_defrag_misses", "active_defrag_key_hits"]);
        lines.zeros(&["active_defrag_key_misses", "tracking_total_keys", "tracking_total_items"]);
        lines.zeros(&["tracking_total_prefixes", "unexpected_error_replies"]);
        lines.put("total_error_replies", totals.errors);
        lines.zeros(&["dump_payload_sanitizations", "total_reads_processed", "total_writes_processed"]);
        lines.put("client_query_buffer_limit_disconnections", traffic.query_limit_disconnections);
        lines.put("client_output_buffer_limit_disconnections", limit_disconnections);
    }

    fn cpu(&self, lines: &mut Lines<'_>) {
        let seconds = |us: u64| format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
        lines.put("used_cpu_sys", seconds(self.usage.cpu_system_us));
        lines.put("used_cpu_user", seconds(self.usage.cpu_user_us));
        lines.put("used_cpu_sys_children", seconds(0));
        lines.put("used_cpu_user_children", seconds(0));
    }

    fn keyspace(&self, lines: &mut Lines<'_>) {
        for (number, stats) in self.keyspace.iter().filter(|(_, stats)| stats.keys > 0) {
            let Stats { keys, keys_with_ttl, ttl_average_ms, .. } = stats;
            let facts = format_args!("keys={keys},expires={keys_with_ttl},avg_ttl={ttl_average_ms}");
            lines.put(&format!("db{number}"), facts);
        }
    }
}

fn clients(call: &Call<'_, '_>, lines: &mut Lines<'_>) {
    let instance = call.instance;
    lines.put("connected_clients", instance.peers.count());
    lines.put("cluster_connections", 0);
    lines.put("maxclients", instance.network_settings().clients_max);
    lines.zeros(&["client_recent_max_input_buffer", "client_recent_max_output_buffer"]);
    lines.put("blocked_clients", instance.blocked.count());
    lines.zeros(&["tracking_clients", "clients_in_timeout_table"]);
}

fn replication(call: &Call<'_, '_>, lines: &mut Lines<'_>) {
    lines.put("role", "master");
    lines.put("connected_slaves", 0);
    lines.put("master_failover_state", "no-failover");
    lines.put("master_replid", &call.instance.run_id);
    lines.put("master_replid2", "0".repeat(40));
    lines.put("master_repl_offset", 0);
    lines.put("second_repl_offset", -1);
    lines.put("repl_backlog_active", 0);
    lines.put("repl_backlog_size", 1_048_576);
    lines.zeros(&["repl_backlog_first_byte_offset", "repl_backlog_histlen"]);
}

fn command_stats(call: &Call<'_, '_>, lines: &mut Lines<'_>) {
    for command in all() {
        let totals = call.instance.stats.command(command.number);
        if totals.calls + totals.rejected + totals.failed == 0 {
            continue;
        }
        let per_call = ratio(totals.duration_us, totals.calls);
        lines.put(
            &format!("cmdstat_{}", command.full_name()),
            format_args!(
                "calls={},usec={},usec_per_call={per_call:.2},rejected_calls={},failed_calls={}",
                totals.calls, totals.duration_us, totals.rejected, totals.failed
            ),
        );
    }
}

fn error_stats(call: &Call<'_, '_>, lines: &mut Lines<'_>) {
    for (code, count) in call.instance.stats.errors() {
        // Scripts choose codes, and a line must stay a line.
        let code = code.replace([':', '\r', '\n'], "?");
        lines.put(&format!("errorstat_{code}"), format_args!("count={count}"));
    }
}

fn latency_stats(call: &Call<'_, '_>, lines: &mut Lines<'_>) {
    if !call.instance.settings.latency_tracking.load(Ordering::Relaxed) {
        return;
    }
    let percentiles = call.instance.settings.latency_percentiles.read();
    for command in all() {
        let durations = call.instance.stats.durations(command.number);
        if durations.count() == 0 {
            continue;
        }
        let shown: Vec<String> = percentiles
            .iter()
            .map(|percentile| format!("p{percentile}={:.3}", durations.percentile_ns(*percentile) as f64 / 1_000.0))
            .collect();
        lines.put(&format!("latency_percentiles_usec_{}", command.full_name()), shown.join(","));
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { ALL_OF_IT } else { part as f64 * 100.0 / whole as f64 }
}

/// Bytes for people: `1.50K`.
fn human(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    let unit = UNITS.iter().find(|(unit, _)| bytes >= *unit);
    unit.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{:.2}{name}", bytes as f64 / *unit as f64))
}

#[cfg(test)]
mod tests {
    use super::{SECTIONS, Section, choose, human};
    use crate::{Client, ClientOptions, Engine, EngineConfig, Flow, Instance, InstanceConfig};

    #[test]
    fn sections_are_chosen_by_name_and_by_group() {
        assert_eq!(choose(&[b"KEYSPACE", b"server"]), [Section::Keyspace, Section::Server]);
        assert_eq!(choose(&[b"nosuch"]), []);
        assert_eq!(choose(&[b"everything"]).len(), SECTIONS.len());
        assert!(!choose(&[b"all"]).contains(&Section::Modules) && choose(&[b"all"]).contains(&Section::CommandStats));
        assert_eq!(choose(&[]), choose(&[b"default"]));
        assert!(!choose(&[]).contains(&Section::CommandStats));
    }

    #[test]
    fn time_that_keys_have_left_is_shown_by_database() {
        let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
        let mut client = Client::connect(&instance, ClientOptions::default());
        let mut call = |text: &str| {
            let args: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
            let mut reply = Vec::new();
            assert_eq!(client.execute(&args, 1_000_000, &mut reply), Flow::Done, "{text}");
            String::from_utf8(reply).expect("text")
        };
        call("SET a 1 PX 5000");
        call("SELECT 3");
        call("MSET a 1 b 1");
        instance.housekeeping(2_000_000, 100);
        assert!(
            call("INFO keyspace").contains("db0:keys=1,expires=1,avg_ttl=4000\r\ndb3:keys=2,expires=0,avg_ttl=0\r\n")
        );
        call("SWAPDB 0 3");
        assert!(
            call("INFO keyspace").contains("db0:keys=2,expires=0,avg_ttl=0\r\ndb3:keys=1,expires=1,avg_ttl=4000\r\n")
        );
        call("FLUSHDB");
        call("SET a 1 PX 5000");
        assert!(call("INFO keyspace").ends_with("db3:keys=1,expires=1,avg_ttl=0\r\n\r\n"), "not seen by a cycle yet");
    }

    #[test]
    fn bytes_for_people_have_two_decimals() {
        for (bytes, text) in [(0, "0B"), (1_023, "1023B"), (1_536, "1.50K"), (5 << 20, "5.00M"), (3 << 40, "3.00T")] {
            assert_eq!(human(bytes), text);
        }
    }
}
