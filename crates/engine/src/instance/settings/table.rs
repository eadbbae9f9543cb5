//! The table of settings.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use super::{
    BULK_BYTES_MAX, Home, IMMUTABLE, Kind, Refusal, Setting, parse_bytes, set_limit, set_network, shown, store,
};
use crate::evict::EvictionPolicy;
use crate::instance::{Instance, OutputLimit, OutputLimits, Secret, SyncPolicy};

const INT_MAX: i64 = i32::MAX as i64;
/// The smallest bound for one argument, as Redis has.
const BULK_BYTES_MIN: i64 = 1 << 20;

const fn setting(name: &'static str, kind: Kind, home: Home) -> Setting {
    Setting { name, alias: "", kind, home }
}

impl Setting {
    const fn once(mut self, alias: &'static str) -> Self {
        self.alias = alias;
        self
    }
}

/// A value that Redis can have otherwise and this server cannot.
const fn always(name: &'static str, kind: Kind, value: &'static str) -> Setting {
    setting(name, kind, Home::Always(value))
}

const COUNT: Kind = Kind::Integer(0, i64::MAX);
const INT: Kind = Kind::Integer(0, INT_MAX);
const BYTES: Kind = Kind::Bytes(0, i64::MAX);

pub(super) static SETTINGS: &[Setting] = &[
    setting(
        "hash-max-listpack-entries",
        COUNT,
        Home::Number(
            |instance| shown(instance.limits().1.hash_max_listpack_entries as u64),
            |instance, number| set_limit(instance, |limits| limits.hash_max_listpack_entries = number as usize),
        ),
    )
    .once("hash-max-ziplist-entries"),
    setting(
        "hash-max-listpack-value",
        BYTES,
        Home::Number(
            |instance| shown(instance.limits().1.hash_max_listpack_value as u64),
            |instance, number| set_limit(instance, |limits| limits.hash_max_listpack_value = number as usize),
        ),
    )
    .once("hash-max-ziplist-value"),
    setting(
        "set-max-intset-entries",
        COUNT,
        Home::Number(
            |instance| shown(instance.limits().1.set_max_intset_entries as u64),
            |instance, number| set_limit(instance, |limits| limits.set_max_intset_entries = number as usize),
        ),
    ),
    setting(
        "zset-max-listpack-entries",
        COUNT,
        Home::Number(
            |instance| shown(instance.limits().1.zset_max_listpack_entries as u64),
            |instance, number| set_limit(instance, |limits| limits.zset_max_listpack_entries = number as usize),
        ),
    )
    .once("zset-max-ziplist-entries"),
    setting(
        "zset-max-listpack-value",
        BYTES,
        Home::Number(
            |instance| shown(instance.limits().1.zset_max_listpack_value as u64),
            |instance, number| set_limit(instance, |limits| limits.zset_max_listpack_value = number as usize),
        ),
    )
    .once("zset-max-ziplist-value"),
    setting(
        "list-max-listpack-size",
        Kind::Integer(-INT_MAX - 1, INT_MAX),
        Home::Number(
            |instance| instance.limits().1.list_max_listpack_size,
            |instance, number| set_limit(instance, |limits| limits.list_max_listpack_size = number),
        ),
    )
    .once("list-max-ziplist-size"),
    always("list-compress-depth", INT, "0"),
    setting(
        "hll-sparse-max-bytes",
        BYTES,
        Home::Number(
            |instance| shown(instance.limits().1.hll_sparse_max_bytes as u64),
            |instance, number| set_limit(instance, |limits| limits.hll_sparse_max_bytes = number as usize),
        ),
    ),
    setting("maxmemory", BYTES, Home::Number(memory_max, set_memory_max)),
    setting("maxmemory-policy", Kind::Choice(POLICIES), Home::Number(policy, set_policy)),
    setting(
        "maxmemory-samples",
        Kind::Integer(1, INT_MAX),
        Home::Number(
            |instance| i64::from(instance.eviction().samples()),
            |instance, samples| {
                instance.eviction().set_samples(small(samples));
                Ok(())
            },
        ),
    ),
    setting(
        "lfu-log-factor",
        INT,
        Home::Number(
            |instance| i64::from(instance.eviction().lfu_log_factor()),
            |instance, factor| {
                instance.eviction().set_lfu_log_factor(small(factor));
                Ok(())
            },
        ),
    ),
    setting(
        "lfu-decay-time",
        INT,
        Home::Number(
            |instance| i64::from(instance.eviction().lfu_decay_min()),
            |instance, minutes| {
                instance.eviction().set_lfu_decay_min(small(minutes));
                Ok(())
            },
        ),
    ),
    always("maxmemory-clients", BYTES, "0"),
    // Large values are freed by housekeeping, whatever removes them; small ones at once, for that is cheaper.
    always("lazyfree-lazy-user-del", Kind::YesNo, "yes"),
    always("lazyfree-lazy-user-flush", Kind::YesNo, "yes"),
    always("lazyfree-lazy-server-del", Kind::YesNo, "yes"),
    always("lazyfree-lazy-expire", Kind::YesNo, "no"),
    always("lazyfree-lazy-eviction", Kind::YesNo, "no"),
    always("activedefrag", Kind::YesNo, "no"),
    setting(
        "notify-keyspace-events",
        Kind::Text,
        Home::Text(|instance| instance.notifications().into_bytes(), set_notifications),
    ),
    setting(
        "slowlog-log-slower-than",
        Kind::Integer(-1, i64::MAX),
        Home::Number(
            |instance| instance.settings.slowlog_slower_us.load(Ordering::Relaxed),
            |instance, us| {
                instance.settings.slowlog_slower_us.store(us, Ordering::Relaxed);
                Ok(())
            },
        ),
    ),
    setting(
        "slowlog-max-len",
        COUNT,
        Home::Number(
            |instance| shown(instance.settings.slowlog_len_max.load(Ordering::Relaxed)),
            |instance, len| store(&instance.settings.slowlog_len_max, len),
        ),
    ),
    setting(
        "latency-monitor-threshold",
        COUNT,
        Home::Number(
            |instance| shown(instance.settings.latency_threshold_ms.load(Ordering::Relaxed)),
            |instance, ms| store(&instance.settings.latency_threshold_ms, ms),
        ),
    ),
    setting(
        "latency-tracking",
        Kind::YesNo,
        Home::Number(
            |instance| i64::from(instance.settings.latency_tracking.load(Ordering::Relaxed)),
            |instance, yes| {
                instance.settings.latency_tracking.store(yes != 0, Ordering::Relaxed);
                Ok(())
            },
        ),
    ),
    setting(
        "latency-tracking-info-percentiles",
        Kind::Text,
        Home::Text(
            |instance| instance.settings.percentiles_text(),
            |instance, text| instance.settings.set_percentiles(text),
        ),
    ),
    setting(
        "busy-reply-threshold",
        COUNT,
        Home::Number(
            |instance| shown(instance.scripts.overseer.busy_after_ms()),
            |instance, ms| {
                instance.scripts.overseer.set_busy_after_ms(ms.unsigned_abs());
                Ok(())
            },
        ),
    )
    .once("lua-time-limit"),
    setting("requirepass", Kind::Text, Home::Text(password, set_password)),
    setting(
        "protected-mode",
        Kind::YesNo,
        Home::Number(
            |instance| i64::from(instance.network_settings().protected_mode),
            |instance, yes| set_network(instance, |network| network.protected_mode = yes != 0),
        ),
    ),
    setting(
        "maxclients",
        Kind::Integer(1, u32::MAX as i64),
        Home::Number(
            |instance| shown(instance.network_settings().clients_max),
            |instance, number| set_network(instance, |network| network.clients_max = number.unsigned_abs()),
        ),
    ),
    setting(
        "timeout",
        INT,
        Home::Number(
            |instance| shown(instance.network_settings().idle_timeout_s),
            |instance, number| set_network(instance, |network| network.idle_timeout_s = number.unsigned_abs()),
        ),
    ),
    setting(
        "tcp-keepalive",
        INT,
        Home::Number(
            |instance| shown(instance.network_settings().tcp_keepalive_s),
            |instance, number| set_network(instance, |network| network.tcp_keepalive_s = number.unsigned_abs()),
        ),
    ),
    setting(
        "proto-max-bulk-len",
        Kind::Bytes(BULK_BYTES_MIN, BULK_BYTES_MAX as i64),
        Home::Number(
            |instance| shown(instance.network_settings().bulk_bytes_max),
            |instance, number| set_network(instance, |network| network.bulk_bytes_max = number.unsigned_abs()),
        ),
    ),
    setting(
        "client-query-buffer-limit",
        Kind::Bytes(BULK_BYTES_MIN, i64::MAX),
        Home::Number(
            |instance| shown(instance.network_settings().query_buffer_bytes_max),
            |instance, number| set_network(instance, |network| network.query_buffer_bytes_max = number.unsigned_abs()),
        ),
    ),
    setting("client-output-buffer-limit", Kind::Text, Home::Text(output_limits, set_output_limits)),
    setting("save", Kind::Text, Home::Given(save_points)),
    setting("appendonly", Kind::YesNo, Home::Given(appendonly)),
    setting("appendfsync", Kind::Choice(&["everysec", "always", "no"]), Home::Number(appendfsync, set_appendfsync)),
    setting("auto-aof-rewrite-percentage", INT, Home::Given(rewrite_growth_percent)),
    setting("auto-aof-rewrite-min-size", BYTES, Home::Given(rewrite_bytes_min)),
    always("no-appendfsync-on-rewrite", Kind::YesNo, "no"),
    always("stop-writes-on-bgsave-error", Kind::YesNo, "yes"),
    always("rdbcompression", Kind::YesNo, "yes"),
    setting("rdbchecksum", Kind::YesNo, Home::Immutable(|_| b"yes".to_vec())),
    always("dbfilename", Kind::Text, "dump.rdb"),
    setting("appendfilename", Kind::Text, Home::Immutable(|_| b"appendonly.aof".to_vec())),
    setting("appenddirname", Kind::Text, Home::Immutable(|_| b"appendonlydir".to_vec())),
    setting("dir", Kind::Text, Home::Given(directory)),
    setting("port", Kind::Integer(0, 65_535), Home::Given(|instance| text(instance.host_facts().port))),
    setting("tls-port", Kind::Integer(0, 65_535), Home::Given(|instance| text(instance.host_facts().tls_port))),
    setting("bind", Kind::Text, Home::Given(|instance| instance.host_facts().bind.into_bytes())),
    setting("unixsocket", Kind::Text, Home::Immutable(|instance| instance.host_facts().unix_socket.into_bytes())),
    setting("databases", INT, Home::Immutable(|instance| text(instance.databases.count()))),
    setting("daemonize", Kind::YesNo, Home::Immutable(|_| b"no".to_vec())),
    setting("supervised", Kind::Text, Home::Immutable(|_| b"no".to_vec())),
    setting("cluster-enabled", Kind::YesNo, Home::Immutable(|_| b"no".to_vec())),
    setting("io-threads", INT, Home::Immutable(|_| b"1".to_vec())),
    setting("enable-debug-command", Kind::Text, Home::Immutable(|_| b"yes".to_vec())),
    setting("enable-module-command", Kind::Text, Home::Immutable(|_| b"no".to_vec())),
    setting("enable-protected-configs", Kind::Text, Home::Immutable(|_| b"no".to_vec())),
    setting("aclfile", Kind::Text, Home::Immutable(|_| Vec::new())),
    always("hz", Kind::Integer(1, INT_MAX), "10"),
    always("loglevel", Kind::Choice(&["debug", "verbose", "notice", "warning"]), "notice"),
    setting("logfile", Kind::Text, Home::Immutable(|_| Vec::new())),
    always("replicaof", Kind::Text, "").once("slaveof"),
    always("masterauth", Kind::Text, ""),
    always("masteruser", Kind::Text, ""),
    always("replica-read-only", Kind::YesNo, "yes").once("slave-read-only"),
    always("replica-serve-stale-data", Kind::YesNo, "yes").once("slave-serve-stale-data"),
    always("replica-priority", INT, "100").once("slave-priority"),
    always("min-replicas-to-write", INT, "0").once("min-slaves-to-write"),
    always("min-replicas-max-lag", INT, "10").once("min-slaves-max-lag"),
    always("repl-backlog-size", Kind::Bytes(1, i64::MAX), "1048576"),
    always("repl-timeout", Kind::Integer(1, INT_MAX), "60"),
];

fn text(number: impl ToString) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn path(path: &std::path::Path) -> Vec<u8> {
    path.as_os_str().as_encoded_bytes().to_vec()
}

fn memory_max(instance: &Instance) -> i64 {
    instance.databases.first().memory_bytes_max().map_or(0, shown)
}

fn set_memory_max(instance: &Instance, bytes: i64) -> Result<(), Refusal> {
    let bytes_max = (bytes > 0).then_some(bytes.unsigned_abs());
    instance.databases.first().set_memory_bytes_max(bytes_max);
    Ok(())
}

/// In the order in which Redis names them.
const POLICIES: &[&str] = &[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
];

fn policy(instance: &Instance) -> i64 {
    let name = instance.eviction().policy().name();
    POLICIES.iter().position(|known| *known == name).map_or(0, |position| position as i64)
}

fn set_policy(instance: &Instance, position: i64) -> Result<(), Refusal> {
    let name = usize::try_from(position).ok().and_then(|position| POLICIES.get(position));
    let policy = name.and_then(|name| EvictionPolicy::from_name(name)).ok_or("there is no such policy")?;
    instance.databases.first().set_eviction_policy(policy);
    Ok(())
}

/// A number that was found to be a positive one of 32 bits.
fn small(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn set_notifications(instance: &Instance, letters: &[u8]) -> Result<(), Refusal> {
    // No letter of another script means anything.
    Ok(instance.set_notifications(&String::from_utf8_lossy(letters))?)
}

fn password(instance: &Instance) -> Vec<u8> {
    instance.access.password().map(|password| password.reveal().to_vec()).unwrap_or_default()
}

fn set_password(instance: &Instance, password: &[u8]) -> Result<(), Refusal> {
    instance.access.set_password((!password.is_empty()).then(|| Secret::from(password)));
    Ok(())
}

/// What Redis has for replicas, of which there are none.
const REPLICA_LIMIT: OutputLimit = OutputLimit { hard_bytes: 256 << 20, soft_bytes: 64 << 20, soft_s: 60 };

fn save_points(instance: &Instance) -> Vec<u8> {
    let points = instance.keeper_figures().map_or_else(Vec::new, |figures| figures.save_points);
    let points: Vec<String> = points.iter().map(|(seconds, changes)| format!("{seconds} {changes}")).collect();
    points.join(" ").into_bytes()
}

/// The journal is what an append-only file is to Redis.
fn appendonly(instance: &Instance) -> Vec<u8> {
    if instance.ask_keeper(|_| ()).is_some() { b"yes".to_vec() } else { b"no".to_vec() }
}

/// The position of the word among the choices.
fn appendfsync(instance: &Instance) -> i64 {
    match instance.keeper_figures().map_or(SyncPolicy::EverySecond, |figures| figures.sync) {
        SyncPolicy::EverySecond => 0,
        SyncPolicy::Always => 1,
        SyncPolicy::No => 2,
    }
}

fn set_appendfsync(instance: &Instance, position: i64) -> Result<(), Refusal> {
    let sync = match position {
        0 => SyncPolicy::EverySecond,
        1 => SyncPolicy::Always,
        _ => SyncPolicy::No,
    };
    match instance.ask_keeper(|keeper| keeper.set_sync(sync)) {
        Some(outcome) => Ok(outcome?),
        // As it is without a journal.
        None if sync == SyncPolicy::EverySecond => Ok(()),
        None => Err(IMMUTABLE.into()),
    }
}

fn rewrite_growth_percent(instance: &Instance) -> Vec<u8> {
    text(instance.keeper_figures().map_or(100, |figures| figures.rewrite_growth_percent))
}

fn rewrite_bytes_min(instance: &Instance) -> Vec<u8> {
    text(instance.keeper_figures().map_or(64 << 20, |figures| figures.rewrite_bytes_min))
}

fn directory(instance: &Instance) -> Vec<u8> {
    match instance.keeper_figures() {
        Some(figures) => path(&figures.directory),
        None => path(&instance.host_facts().directory),
    }
}

fn output_limits(instance: &Instance) -> Vec<u8> {
    let OutputLimits { normal, pubsub } = instance.output_limits();
    let classes = [("normal", normal), ("slave", REPLICA_LIMIT), ("pubsub", pubsub)];
    let words = classes.map(|(class, limit)| {
        let OutputLimit { hard_bytes, soft_bytes, soft_s } = limit;
        format!("{class} {hard_bytes} {soft_bytes} {soft_s}")
    });
    words.join(" ").into_bytes()
}

fn set_output_limits(instance: &Instance, text: &[u8]) -> Result<(), Refusal> {
    let words: Vec<&[u8]> = text.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".into());
    }
    let mut limits = instance.output_limits();
    for words in words.chunks_exact(4) {
        let class = words[0].to_ascii_lowercase();
        let limit = match class.as_slice() {
            b"normal" | b"pubsub" | b"slave" | b"replica" => output_limit(&words[1..])?,
            _ => return Err("Invalid client class specified in buffer limit configuration.".into()),
        };
        match class.as_slice() {
            b"normal" => limits.normal = limit,
            b"pubsub" => limits.pubsub = limit,
            _ if limit == REPLICA_LIMIT => {}
            _ => return Err(IMMUTABLE.into()),
        }
    }
    instance.set_output_limits(limits);
    Ok(())
}

fn output_limit(words: &[&[u8]]) -> Result<OutputLimit, Refusal> {
    let read = || {
        let [hard, soft, seconds] = words else { return None };
        let soft_s = u64::try_from(acteon_resp::parse_i64(seconds)?).ok()?;
        Some(OutputLimit { hard_bytes: parse_bytes(hard)?, soft_bytes: parse_bytes(soft)?, soft_s })
    };
    read().ok_or(Cow::Borrowed("Error in hard, soft or soft_seconds setting in buffer limit configuration."))
}
