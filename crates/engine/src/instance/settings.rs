//! Settings, by the names of Redis's configuration: how each is read and changed.
//!
//! # Guarantees
//! `CONFIG SET` of several settings changes all or none. A setting that is accepted has its effect from the next command on: nothing is
//! accepted and ignored. What this server does in one way only can be set to that way, and to no other.
//!
//! # How it works
//! The table in `settings/table.rs` has a row for each setting: its kind says which texts are values, its home where the value lies.
//! What commands ask for on their way are atomics; thresholds of encodings are copied by sessions when the version of the settings rises.
//!
//! See <https://redis.io/docs/latest/operate/oss_and_stack/management/config/>.

mod table;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::Instance;
use super::measure::step_length_ns;
use crate::algorithm::glob::{Case, matches};

/// The most that `proto-max-bulk-len` can be: what Redis promises of strings, and what a key may have here in any case.
const BULK_BYTES_MAX: u64 = 512 << 20;

/// What the network layer takes for its connections; it looks here whenever it needs one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkSettings {
    /// `maxclients`: connections at a time.
    pub clients_max: u64,
    /// `timeout`: seconds after which a silent client is disconnected; 0: never.
    pub idle_timeout_s: u64,
    /// `tcp-keepalive`: seconds of silence after which the kernel asks whether the other side is still there; 0: it never asks.
    pub tcp_keepalive_s: u64,
    /// `proto-max-bulk-len`: bytes of one argument, and of a string that grows. More than 512 MiB counts as 512 MiB.
    pub bulk_bytes_max: u64,
    /// `client-query-buffer-limit`: bytes of requests that wait on one connection.
    pub query_buffer_bytes_max: u64,
    /// `protected-mode`: while no password is set, only clients of this machine are let in.
    pub protected_mode: bool,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            clients_max: 10_000,
            idle_timeout_s: 0,
            tcp_keepalive_s: 300,
            bulk_bytes_max: BULK_BYTES_MAX,
            query_buffer_bytes_max: 1 << 30,
            protected_mode: true,
        }
    }
}

/// Settings that have no other place.
pub(crate) struct Settings {
    /// Commands that take longer are kept in the slow log; -1: none.
    pub(crate) slowlog_slower_us: AtomicI64,
    pub(crate) slowlog_len_max: AtomicU64,
    /// Events that take so long are kept; 0: none.
    pub(crate) latency_threshold_ms: AtomicU64,
    /// Whether the durations of commands are counted.
    pub(crate) latency_tracking: AtomicBool,
    /// What INFO shows of the durations.
    pub(crate) latency_percentiles: RwLock<Vec<f64>>,
    /// Whether expired keys are removed before somebody asks for them.
    pub(crate) expires_actively: AtomicBool,
    /// A reply beyond this will not be sent, so it need not be written to its end.
    pub(crate) reply_bytes_max: AtomicUsize,
    /// `proto-max-bulk-len`, at hand for commands that make strings grow.
    bulk_bytes_max: AtomicU64,
    /// How exact the clock is that is looked at after brief commands.
    pub(crate) step_length_ns: u64,
    network: RwLock<NetworkSettings>,
    /// Rises after each change of these.
    network_version: AtomicU64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            slowlog_slower_us: AtomicI64::new(10_000),
            slowlog_len_max: AtomicU64::new(128),
            latency_threshold_ms: AtomicU64::new(0),
            latency_tracking: AtomicBool::new(true),
            latency_percentiles: RwLock::new(vec![50.0, 99.0, 99.9]),
            expires_actively: AtomicBool::new(true),
            reply_bytes_max: AtomicUsize::new(usize::MAX),
            bulk_bytes_max: AtomicU64::new(BULK_BYTES_MAX),
            step_length_ns: step_length_ns(),
            network: RwLock::default(),
            network_version: AtomicU64::new(0),
        }
    }
}

/// One setting.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    /// A name that it had in the past, or none.
    alias: &'static str,
    kind: Kind,
    home: Home,
}

/// Which texts are values.
#[derive(Clone, Copy)]
enum Kind {
    Integer(i64, i64),
    /// A number of bytes, with or without a unit.
    Bytes(i64, i64),
    YesNo,
    Choice(&'static [&'static str]),
    Text,
}

/// Where the value lies.
#[derive(Clone, Copy)]
enum Home {
    Number(fn(&Instance) -> i64, fn(&Instance, i64) -> Result<(), Refusal>),
    Text(fn(&Instance) -> Vec<u8>, fn(&Instance, &[u8]) -> Result<(), Refusal>),
    /// Redis could change it; here it is so, and not otherwise.
    Always(&'static str),
    /// The same with a value that is known at run time.
    Given(fn(&Instance) -> Vec<u8>),
    /// Redis cannot change it at run time either.
    Immutable(fn(&Instance) -> Vec<u8>),
}

type Refusal = Cow<'static, str>;

/// Why `CONFIG SET` was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SettingError {
    Unknown(Vec<u8>),
    Refused { name: Vec<u8>, why: Refusal },
}

const IMMUTABLE: &str = "can't set immutable config";

impl Settings {
    /// How long a command takes that is noted by itself.
    #[inline]
    pub(crate) fn hears_of_ns(&self) -> u64 {
        let slower_us = u64::try_from(self.slowlog_slower_us.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
        // 0 is none, and so becomes the largest.
        let latency_ms = self.latency_threshold_ms.load(Ordering::Relaxed).wrapping_sub(1);
        slower_us.saturating_mul(1_000).min(latency_ms.saturating_mul(1_000_000))
    }
}

impl Instance {
    /// What the network layer has to go by, as it is set now.
    #[must_use]
    pub fn network_settings(&self) -> NetworkSettings {
        *self.settings.network.read()
    }

    /// Another number whenever they have changed: who keeps a copy of them asks for this first, which takes no lock. To be read before the
    /// settings that belong to it.
    #[must_use]
    pub fn network_version(&self) -> u64 {
        self.settings.network_version.load(Ordering::Acquire)
    }

    /// Sets what the network layer goes by.
    pub fn set_network_settings(&self, settings: NetworkSettings) {
        self.change_network(|network| *network = settings);
    }

    fn change_network(&self, change: impl FnOnce(&mut NetworkSettings)) {
        let mut network = self.settings.network.write();
        change(&mut network);
        network.bulk_bytes_max = network.bulk_bytes_max.min(BULK_BYTES_MAX);
        self.settings.bulk_bytes_max.store(network.bulk_bytes_max, Ordering::Relaxed);
        self.settings.network_version.fetch_add(1, Ordering::Release);
    }

    /// `proto-max-bulk-len`: how long commands may make a string.
    pub(crate) fn bulk_bytes_max(&self) -> u64 {
        self.settings.bulk_bytes_max.load(Ordering::Relaxed)
    }

    /// The settings that match one of `patterns`, by the name that was asked for, with their values.
    pub(crate) fn settings_like(&self, patterns: &[&[u8]]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for pattern in patterns {
            if !is_pattern(pattern) {
                let is_new = !found.iter().any(|(name, _)| name.eq_ignore_ascii_case(pattern));
                found.extend(find(pattern).filter(|_| is_new).map(|setting| (pattern.to_vec(), setting.read(self))));
                continue;
            }
            for (name, setting) in names() {
                let is_new = !found.iter().any(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()));
                if is_new && matches(pattern, name.as_bytes(), Case::Ignored) {
                    found.push((name.as_bytes().to_vec(), setting.read(self)));
                }
            }
        }
        found
    }

    /// Changes settings, all or none.
    pub(crate) fn set_settings(&self, pairs: &[(&[u8], &[u8])]) -> Result<(), SettingError> {
        let mut chosen: Vec<(&str, &'static Setting, &[u8])> = Vec::new();
        for (name, value) in pairs {
            let Some((known, setting)) = names().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)) else {
                return Err(SettingError::Unknown(name.to_vec()));
            };
            let refused = |why: &'static str| SettingError::Refused { name: name.to_vec(), why: why.into() };
            if matches!(setting.home, Home::Immutable(_)) {
                return Err(refused(IMMUTABLE));
            }
            if chosen.iter().any(|(other, ..)| *other == known) {
                return Err(refused("duplicate parameter"));
            }
            chosen.push((known, setting, value));
        }
        let before: Vec<Vec<u8>> = chosen.iter().map(|(_, setting, _)| setting.read(self)).collect();
        for (at, (name, setting, value)) in chosen.iter().enumerate() {
            let Err(why) = setting.write(self, value) else { continue };
            for ((_, setting, _), value) in chosen[..at].iter().zip(&before).rev() {
                // It held this value a moment ago.
                let _ = setting.write(self, value);
            }
            return Err(SettingError::Refused { name: name.as_bytes().to_vec(), why });
        }
        Ok(())
    }
}

impl Setting {
    fn read(&self, instance: &Instance) -> Vec<u8> {
        match self.home {
            Home::Number(read, _) => self.kind.show(read(instance)),
            Home::Text(read, _) | Home::Given(read) | Home::Immutable(read) => read(instance),
            Home::Always(value) => value.as_bytes().to_vec(),
        }
    }

    fn write(&self, instance: &Instance, value: &[u8]) -> Result<(), Refusal> {
        let number = self.kind.check(value)?;
        match self.home {
            Home::Number(_, write) => write(instance, number),
            Home::Text(_, write) => write(instance, value),
            Home::Always(_) | Home::Given(_) | Home::Immutable(_) => {
                let is_same = match self.kind {
                    Kind::Text => self.read(instance) == value,
                    Kind::Choice(_) | Kind::YesNo => self.read(instance).eq_ignore_ascii_case(value),
                    Kind::Integer(..) | Kind::Bytes(..) => self.read(instance) == self.kind.show(number),
                };
                if is_same { Ok(()) } else { Err(IMMUTABLE.into()) }
            }
        }
    }
}

impl Kind {
    /// What number `value` is, if it is a value: that of a choice is its position.
    fn check(self, value: &[u8]) -> Result<i64, Refusal> {
        match self {
            Self::Integer(min, max) => {
                let number = acteon_resp::parse_i64(value).ok_or("argument couldn't be parsed into an integer")?;
                within(number, min, max)
            }
            Self::Bytes(min, max) => {
                let bytes = parse_bytes(value).ok_or("argument must be a memory value")?;
                within(i64::try_from(bytes).unwrap_or(i64::MAX), min, max)
            }
            Self::YesNo if value.eq_ignore_ascii_case(b"yes") => Ok(1),
            Self::YesNo if value.eq_ignore_ascii_case(b"no") => Ok(0),
            Self::YesNo => Err("argument must be 'yes' or 'no'".into()),
            Self::Choice(choices) => {
                match choices.iter().position(|choice| value.eq_ignore_ascii_case(choice.as_bytes())) {
                    Some(position) => Ok(position as i64),
                    None => Err(format!("argument(s) must be one of the following: {}", choices.join(", ")).into()),
                }
            }
            Self::Text => Ok(0),
        }
    }

    fn show(self, number: i64) -> Vec<u8> {
        match self {
            Self::YesNo => if number != 0 { "yes" } else { "no" }.into(),
            Self::Choice(choices) => {
                let choice = usize::try_from(number).ok().and_then(|position| choices.get(position));
                choice.copied().unwrap_or_default().into()
            }
            _ => number.to_string().into_bytes(),
        }
    }
}

fn within(number: i64, min: i64, max: i64) -> Result<i64, Refusal> {
    if (min..=max).contains(&number) {
        return Ok(number);
    }
    Err(format!("argument must be between {min} and {max} inclusive").into())
}

/// A number of bytes: `100`, `1k` (1000), `1kb` (1024), and so on to `gb`.
pub(crate) fn parse_bytes(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number: u64 = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    let factor = match text[digits..].to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1_000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// All names, those of the past included.
fn names() -> impl Iterator<Item = (&'static str, &'static Setting)> {
    table::SETTINGS.iter().flat_map(|setting| {
        [setting.name, setting.alias].into_iter().filter(|name| !name.is_empty()).map(move |name| (name, setting))
    })
}

/// Whether Redis would compare it with all names.
fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| b"[*?".contains(byte))
}

fn find(name: &[u8]) -> Option<&'static Setting> {
    names().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(_, setting)| setting)
}

/// Thresholds that a session keeps a copy of.
fn set_limit(instance: &Instance, change: impl FnOnce(&mut crate::value::Limits)) -> Result<(), Refusal> {
    instance.set_limits(change);
    Ok(())
}

/// Something of the network layer, which has any value that its kind allows.
fn set_network(instance: &Instance, change: impl FnOnce(&mut NetworkSettings)) -> Result<(), Refusal> {
    instance.change_network(change);
    Ok(())
}

/// A number that may be larger than any that is shown.
fn shown(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn store(to: &AtomicU64, number: i64) -> Result<(), Refusal> {
    to.store(number.unsigned_abs(), Ordering::Relaxed);
    Ok(())
}

impl Settings {
    fn set_percentiles(&self, text: &[u8]) -> Result<(), Refusal> {
        const INVALID: &str = "Invalid latency-tracking-info-percentiles parameters";
        const OUTSIDE: &str = "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]";
        let mut percentiles = Vec::new();
        for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            let percentile = acteon_resp::parse_f64(word).ok_or(INVALID)?;
            if !(0.0..=100.0).contains(&percentile) {
                return Err(OUTSIDE.into());
            }
            percentiles.push(percentile);
        }
        *self.latency_percentiles.write() = percentiles;
        Ok(())
    }

    fn percentiles_text(&self) -> Vec<u8> {
        let words: Vec<String> = self.latency_percentiles.read().iter().map(f64::to_string).collect();
        words.join(" ").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{NetworkSettings, SettingError, find, names, parse_bytes};
    use crate::{Engine, EngineConfig, Instance, InstanceConfig};

    fn instance() -> Arc<Instance> {
        let config = EngineConfig { segments: 4, ..EngineConfig::default() };
        Instance::new(Engine::new(config), InstanceConfig::default())
    }

    fn refusal(error: SettingError) -> String {
        match error {
            SettingError::Refused { why, .. } => why.into_owned(),
            SettingError::Unknown(name) => format!("unknown {}", String::from_utf8_lossy(&name)),
        }
    }

    #[test]
    fn no_name_is_given_twice() {
        let mut all: Vec<_> = names().map(|(name, _)| name).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn every_setting_is_in_the_documentation() {
        let page = include_str!("../../../../docs/engine-compatibility.md");
        for setting in super::table::SETTINGS {
            assert!(page.contains(&format!("`{}`", setting.name)), "{}", setting.name);
        }
    }

    #[test]
    fn every_setting_can_be_set_to_what_it_is() {
        let instance = instance();
        for (name, setting) in names() {
            let value = setting.read(&instance);
            assert_eq!(setting.write(&instance, &value), Ok(()), "{name}");
            assert_eq!(setting.read(&instance), value, "{name}");
        }
    }

    #[test]
    fn refused_setting_takes_those_before_it_back() {
        let instance = instance();
        let set = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            instance.set_settings(&pairs).map_err(refusal)
        };
        let slowlog_len = || find(b"slowlog-max-len").map(|setting| setting.read(&instance));
        assert_eq!(set(&[("slowlog-max-len", "5"), ("appendonly", "yes")]), Err("can't set immutable config".into()));
        assert_eq!(slowlog_len(), Some(b"128".to_vec()));
        assert_eq!(set(&[("slowlog-max-len", "5"), ("appendonly", "no")]), Ok(()));
        assert_eq!(slowlog_len(), Some(b"5".to_vec()));
        assert_eq!(set(&[("timeout", "1"), ("TIMEOUT", "2")]), Err("duplicate parameter".into()));
        assert_eq!(set(&[("timeout", "1"), ("nosuch", "2")]), Err("unknown nosuch".into()));
    }

    #[test]
    fn old_and_new_name_are_one_setting() {
        let instance = instance();
        instance.set_settings(&[(b"hash-max-ziplist-entries", b"7")]).expect("known");
        let found = instance.settings_like(&[b"hash-max-listpack-e*", b"HASH-MAX-ZIPLIST-ENTRIES", b"nosuch"]);
        let expected = [("hash-max-listpack-entries", "7"), ("HASH-MAX-ZIPLIST-ENTRIES", "7")];
        assert_eq!(found, expected.map(|(name, value)| (name.into(), value.into())));
    }

    #[test]
    fn what_the_network_layer_goes_by_is_set_by_name() {
        let instance = instance();
        let pairs: [(&[u8], &[u8]); 6] = [
            (b"maxclients", b"1"),
            (b"timeout", b"2"),
            (b"tcp-keepalive", b"3"),
            (b"proto-max-bulk-len", b"4mb"),
            (b"client-query-buffer-limit", b"5mb"),
            (b"protected-mode", b"no"),
        ];
        instance.set_settings(&pairs).expect("allowed");
        let expected = NetworkSettings {
            clients_max: 1,
            idle_timeout_s: 2,
            tcp_keepalive_s: 3,
            bulk_bytes_max: 4 << 20,
            query_buffer_bytes_max: 5 << 20,
            protected_mode: false,
        };
        assert_eq!(instance.network_settings(), expected);
    }

    #[test]
    fn arguments_are_not_allowed_to_be_longer_than_keys_and_strings() {
        let instance = instance();
        let set = |bytes: &str| instance.set_settings(&[(b"proto-max-bulk-len", bytes.as_bytes())]).map_err(refusal);
        let refused = Err("argument must be between 1048576 and 536870912 inclusive".to_owned());
        assert_eq!(set("513mb"), refused);
        assert_eq!(set("1gb"), refused);
        assert_eq!(set("1023kb"), refused);
        assert_eq!(set("1mb"), Ok(()));
        assert_eq!(set("512mb"), Ok(()));
        instance.set_network_settings(NetworkSettings { bulk_bytes_max: 1 << 30, ..NetworkSettings::default() });
        assert_eq!((instance.network_settings().bulk_bytes_max, instance.bulk_bytes_max()), (512 << 20, 512 << 20));
    }

    #[test]
    fn bytes_have_units_of_thousands_and_of_1024() {
        for (text, bytes) in
            [("0", 0), ("12b", 12), ("1k", 1_000), ("1KB", 1_024), ("3mb", 3 << 20), ("2G", 2_000_000_000)]
        {
            assert_eq!(parse_bytes(text.as_bytes()), Some(bytes), "{text}");
        }
        for text in ["", "kb", "-1", "1kb2", "1 kb", "99999999999999999999", "18446744073709551615gb"] {
            assert_eq!(parse_bytes(text.as_bytes()), None, "{text}");
        }
    }
}
