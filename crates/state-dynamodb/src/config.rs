//! The driver's options.
//!
//! # Secrets
//! There are none here. Access keys come from where every AWS client takes them: the environment, the shared configuration
//! files, a web identity, the container or the machine; `profile` and `role_arn` choose among them. A URL that holds a
//! password is refused without being repeated.

use std::net::IpAddr;
use std::time::Duration;

use acteon_state_core::key::{Keyspace, Scope};
use acteon_state_core::{Error, Result, TTL_MAX};
use serde::Deserialize;

/// The longest timeout: longer is as good as none.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// A bound that is looser makes every takeover wait for it.
const SKEW_MAX_MAX: Duration = Duration::from_secs(60);
/// A listing asks every shard, so more of them make each page dearer.
const SHARDS_MAX: u8 = 64;
/// Most requests at once: each takes a connection, and a process may have 1,024 open files in many places.
const IN_FLIGHT_MAX: usize = 8_192;
/// The largest value. An item may have 400 KB (409,600 bytes) in all: this leaves 20 KiB for its key, of at most 2 KiB for
/// `pk` and 1 KiB for `sk`, for the names and numbers beside the value, and for the items of a lock or a queue.
const VALUE_BYTES_MAX: u64 = 380 << 10;
/// How long a table's name may be, by the service.
const TABLE_NAME_CHARS: std::ops::RangeInclusive<usize> = 3..=255;

/// What to do about the table at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrateMode {
    /// Create it and what it lacks; any number of nodes may do so at once. A role that may not create or describe tables
    /// works with one that is there.
    #[default]
    Auto,
    /// Refuse to start unless it is there as it must be.
    Check,
    /// Leave it alone, and do not ask for it: for a look at the service itself. Calls that need it fail. It cannot be
    /// written into a configuration.
    #[serde(skip)]
    Ignore,
}

/// How to reach the service and how to use it. `Default` reaches AWS, in the region that the AWS configuration names.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DynamoConfig {
    /// The region, such as `eu-central-1`; unless given, that of the AWS configuration (`AWS_REGION`, the profile, the
    /// machine). For a `url` on this machine it is `us-east-1` where nothing says otherwise.
    pub region: Option<String>,
    /// The table: 3 to 255 characters out of `A-Z a-z 0-9 _ . -`.
    pub table_name: String,
    /// Another endpoint than the region's: `https://host[:port]`, or `http://host[:port]` on this machine, such as that of
    /// DynamoDB Local. See [`allow_http`](Self::allow_http).
    ///
    /// At an endpoint on this machine the keys `acteon` and `acteon` are used when neither the environment nor a profile has
    /// any, since its emulators want some and check none.
    pub url: Option<String>,
    /// Whether `url` may say `http://` for another machine, such as a container beside this one. Requests are signed, so nobody
    /// on the way can change them; everybody on the way can read the values and forge the answers.
    pub allow_http: bool,
    /// What all keys begin with: 1 to 64 characters out of `A-Z a-z 0-9 _ . -`. Deployments with different prefixes share a
    /// table without seeing each other.
    pub prefix: String,
    /// The profile of the shared AWS configuration to use, instead of the one in `AWS_PROFILE`.
    pub profile: Option<String>,
    /// The ARN of a role to assume, with the credentials found.
    pub role_arn: Option<String>,
    /// Whether to use the region's endpoint with cryptography validated by FIPS 140.
    pub fips: bool,
    /// Whether to use the region's endpoint that also has IPv6 addresses.
    pub dual_stack: bool,

    /// How long opening a connection may take: resolving, TCP and TLS together. Not longer than `attempt_timeout`.
    pub connect_timeout: Duration,
    /// How long a request may wait for its answer, with the time to connect where no connection was free. Not longer than
    /// `operation_timeout`.
    pub attempt_timeout: Duration,
    /// How long one call may take, with all of its requests. The wait for a lock is apart from it.
    pub operation_timeout: Duration,
    /// How many requests may be under way: 1 to 8,192. Further ones wait, within their timeout. Each takes a connection.
    pub in_flight_max: usize,

    /// Over how many partitions the keys of a listable kind are spread: 1 to 64. One takes about 1,000 writes per second, and a
    /// listing asks each of them.
    ///
    /// It is written into the table when that is first used with a prefix, and must stay the same from then on.
    pub shards: u8,
    /// Over how many partitions the items of a queue are spread: 1 to 64. It must stay the same, like `shards`.
    pub due_shards: u8,
    /// Kinds that are never listed: each of their keys has a partition for itself, so that they take any number of writes. A
    /// scan of them is refused. It must stay the same for a kind that has been used: its keys would not be found.
    pub point_kinds: Vec<String>,
    /// Whether reads see every write that was answered before. Without, they cost half and may be some moments late. Locks
    /// always read consistently.
    pub consistent_reads: bool,
    /// How far the calibrated clocks of two nodes may be apart: the bound that taking over an ended lease relies on. Up to 60 s.
    pub skew_max: Duration,
    /// For how long an expired item is kept before the service may remove it: more than the clocks of nodes are wrong by.
    pub ttl_grace: Duration,

    /// `auto` creates the table and its index at start, `check` refuses to start unless they are there.
    pub migrate: MigrateMode,
    /// The largest value in bytes, up to 380 KiB: an item with all that belongs to it may have 400 KB.
    pub value_bytes_max: u64,
}

impl Default for DynamoConfig {
    fn default() -> Self {
        Self {
            region: None,
            table_name: "acteon".to_owned(),
            url: None,
            allow_http: false,
            prefix: "acteon".to_owned(),
            profile: None,
            role_arn: None,
            fips: false,
            dual_stack: false,
            connect_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(2),
            operation_timeout: Duration::from_secs(5),
            in_flight_max: 256,
            shards: 4,
            due_shards: 4,
            point_kinds: Vec::new(),
            consistent_reads: true,
            skew_max: Duration::from_secs(1),
            ttl_grace: Duration::from_secs(60 * 60),
            migrate: MigrateMode::Auto,
            value_bytes_max: VALUE_BYTES_MAX,
        }
    }
}

impl DynamoConfig {
    /// The default options with this endpoint.
    ///
    /// # Errors
    /// `Config` for a URL that is none, or is not allowed.
    pub fn from_url(url: &str) -> Result<Self> {
        let config = Self { url: Some(url.to_owned()), ..Self::default() };
        config.check_url()?;
        Ok(config)
    }

    /// Checks all options without connecting or reading files.
    ///
    /// # Errors
    /// `Config`, with a message that begins with the option's name.
    pub fn check(&self) -> Result<()> {
        self.keyspace()?;
        self.check_url()?;
        self.check_names()?;
        self.check_timeouts()?;
        self.check_bounds()
    }

    /// The keyspace of `prefix`.
    pub(crate) fn keyspace(&self) -> Result<Keyspace> {
        Keyspace::new(&self.prefix).map_err(|error| Error::config(format!("prefix: {}", error.message())))
    }

    /// Whether the endpoint is on this machine, as that of an emulator.
    pub(crate) fn is_loopback(&self) -> bool {
        self.url.as_deref().and_then(host_of).is_some_and(is_loopback)
    }

    fn check_url(&self) -> Result<()> {
        let Some(url) = self.url.as_deref() else {
            return match self.allow_http {
                true => Err(Error::config("allow_http: it has no meaning without url; remove it")),
                false => Ok(()),
            };
        };
        // Not repeated: it may hold what somebody took for a place for a password.
        if url.contains(['@', '?', '#']) {
            return Err(Error::config(
                "url: it must be of the form https://host[:port] without user, password or parameters; access keys come from \
                 the environment or a profile",
            ));
        }
        if host_of(url).is_none() {
            return Err(Error::config(format!("url: {url:?} is not of the form https://host[:port]")));
        }
        if self.fips || self.dual_stack {
            return Err(Error::config("url: fips and dual_stack choose an endpoint of the region; remove them or url"));
        }
        if url.starts_with("http://") && !self.allow_http && !self.is_loopback() {
            return Err(Error::config(format!(
                "url: {url:?} would carry values across a network in plain text; use https, or set allow_http = true where \
                 the way is trusted"
            )));
        }
        Ok(())
    }

    fn check_names(&self) -> Result<()> {
        let name = &self.table_name;
        let known = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
        if !TABLE_NAME_CHARS.contains(&name.len()) || !name.bytes().all(known) {
            return Err(Error::config(format!(
                "table_name: {name:?} is not 3 to 255 characters out of A-Z, a-z, 0-9, _, . and -"
            )));
        }
        for (option, text) in [("region", &self.region), ("profile", &self.profile), ("role_arn", &self.role_arn)] {
            if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
                return Err(Error::config(format!("{option}: it is empty; remove it to use the default")));
            }
        }
        // It becomes part of a host name, to which requests and their signatures are sent.
        let is_label = |region: &String| region.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        if let Some(region) = self.region.as_ref().filter(|region| !is_label(region)) {
            return Err(Error::config(format!("region: {region:?} is none, such as eu-central-1")));
        }
        if let Some(arn) = self.role_arn.as_ref().filter(|arn| !arn.starts_with("arn:") || !arn.contains(":role/")) {
            return Err(Error::config(format!(
                "role_arn: {arn:?} is not of the form arn:aws:iam::123456789012:role/name"
            )));
        }
        for kind in &self.point_kinds {
            Scope::new("any", "any", kind)
                .map_err(|error| Error::config(format!("point_kinds: {kind:?} is not a kind: {}", error.message())))?;
        }
        Ok(())
    }

    fn check_timeouts(&self) -> Result<()> {
        let chain = [
            ("connect_timeout", self.connect_timeout),
            ("attempt_timeout", self.attempt_timeout),
            ("operation_timeout", self.operation_timeout),
        ];
        for (name, duration) in chain {
            in_range(name, duration, Duration::from_millis(1), TIMEOUT_MAX)?;
        }
        for [(inner, shorter), (outer, longer)] in [[chain[0], chain[1]], [chain[1], chain[2]]] {
            if shorter > longer {
                return Err(Error::config(format!(
                    "{inner}: {shorter:?} is longer than {outer}, which ends it after {longer:?}"
                )));
            }
        }
        Ok(())
    }

    fn check_bounds(&self) -> Result<()> {
        in_range("skew_max", self.skew_max, Duration::from_millis(1), SKEW_MAX_MAX)?;
        in_range("ttl_grace", self.ttl_grace, Duration::ZERO, TTL_MAX)?;
        for (name, number, max) in [
            ("in_flight_max", self.in_flight_max, IN_FLIGHT_MAX),
            ("shards", usize::from(self.shards), usize::from(SHARDS_MAX)),
            ("due_shards", usize::from(self.due_shards), usize::from(SHARDS_MAX)),
        ] {
            if number == 0 || number > max {
                return Err(Error::config(format!("{name}: {number} is out of range: allowed are 1 to {max}")));
            }
        }
        if self.value_bytes_max == 0 || self.value_bytes_max > VALUE_BYTES_MAX {
            let given = self.value_bytes_max;
            let message = format!("value_bytes_max: {given} is out of range: allowed are 1 to {VALUE_BYTES_MAX}");
            return Err(Error::config(message));
        }
        Ok(())
    }
}

fn in_range(name: &str, duration: Duration, min: Duration, max: Duration) -> Result<()> {
    if duration < min || duration > max {
        return Err(Error::config(format!("{name}: {duration:?} is out of range: allowed are {min:?} to {max:?}")));
    }
    Ok(())
}

/// The host of `http[s]://host[:port][/]`, an IPv6 address without its brackets.
fn host_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, behind) = bracketed.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, behind.is_empty().then_some(None).or_else(|| behind.strip_prefix(':').map(Some))?)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let is_name = |c: u8| c.is_ascii_alphanumeric() || b"-._:".contains(&c);
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    (!host.is_empty() && host.bytes().all(is_name) && is_port).then_some(host)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_state_core::ErrorKind;

    use super::{DynamoConfig, host_of};

    #[test]
    fn the_default_is_valid_and_means_aws() {
        let config = DynamoConfig::default();
        config.check().unwrap();
        assert!(!config.is_loopback());
    }

    #[test]
    fn a_wrong_option_is_refused_by_its_name() {
        let ok = DynamoConfig::default;
        for (config, option) in [
            (DynamoConfig { prefix: "a:b".into(), ..ok() }, "prefix"),
            (DynamoConfig { table_name: "ab".into(), ..ok() }, "table_name"),
            (DynamoConfig { table_name: "a b c".into(), ..ok() }, "table_name"),
            (DynamoConfig { region: Some(" ".into()), ..ok() }, "region"),
            (DynamoConfig { region: Some("evil.example/".into()), ..ok() }, "region"),
            (DynamoConfig { profile: Some(String::new()), ..ok() }, "profile"),
            (DynamoConfig { role_arn: Some("admin".into()), ..ok() }, "role_arn"),
            (DynamoConfig { allow_http: true, ..ok() }, "allow_http"),
            (DynamoConfig { url: Some("https://h".into()), fips: true, ..ok() }, "url"),
            (DynamoConfig { url: Some("https://h".into()), dual_stack: true, ..ok() }, "url"),
            (DynamoConfig { point_kinds: vec![String::new()], ..ok() }, "point_kinds"),
            (DynamoConfig { connect_timeout: Duration::ZERO, ..ok() }, "connect_timeout"),
            (DynamoConfig { connect_timeout: Duration::from_secs(3), ..ok() }, "connect_timeout"),
            (DynamoConfig { attempt_timeout: Duration::from_secs(6), ..ok() }, "attempt_timeout"),
            (DynamoConfig { operation_timeout: Duration::from_secs(100_000), ..ok() }, "operation_timeout"),
            (DynamoConfig { skew_max: Duration::ZERO, ..ok() }, "skew_max"),
            (DynamoConfig { ttl_grace: Duration::MAX, ..ok() }, "ttl_grace"),
            (DynamoConfig { in_flight_max: 0, ..ok() }, "in_flight_max"),
            (DynamoConfig { shards: 0, ..ok() }, "shards"),
            (DynamoConfig { due_shards: 65, ..ok() }, "due_shards"),
            (DynamoConfig { value_bytes_max: 0, ..ok() }, "value_bytes_max"),
            (DynamoConfig { value_bytes_max: 400 << 10, ..ok() }, "value_bytes_max"),
        ] {
            let error = config.check().expect_err(option);
            assert!(error.kind() == ErrorKind::Config && error.message().starts_with(option), "{option}: {error}");
        }
    }

    #[test]
    fn plain_text_stays_on_this_machine_unless_allowed() {
        for url in ["http://localhost:8000", "http://127.0.0.1:8000/", "http://[::1]:8000", "https://vpce.example"] {
            DynamoConfig::from_url(url).expect(url);
        }
        let elsewhere = DynamoConfig::from_url("http://dynamodb:8000").unwrap_err();
        assert!(elsewhere.message().contains("allow_http = true"), "{elsewhere}");
        let allowed =
            DynamoConfig { url: Some("http://dynamodb:8000".into()), allow_http: true, ..DynamoConfig::default() };
        allowed.check().unwrap();
        assert!(!allowed.is_loopback());
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_repeated() {
        let error = DynamoConfig::from_url("https://ada:hunter2@h").unwrap_err();
        assert!(error.message().contains("url") && !error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn urls_are_a_scheme_and_a_host() {
        for (url, host) in [("https://h", "h"), ("http://a.b-c:1", "a.b-c"), ("https://[::1]:1/", "::1")] {
            assert_eq!(host_of(url), Some(host), "{url}");
        }
        for url in
            ["", "h", "ftp://h", "https://", "https://h:", "https://h:0", "https://h:x", "https://h/p", "https://[x]"]
        {
            assert_eq!(host_of(url), None, "{url}");
        }
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error = serde_json::from_str::<DynamoConfig>(r#"{"tabel_name": "x"}"#).unwrap_err();
        assert!(error.to_string().contains("`tabel_name`"), "{error}");
        let config: DynamoConfig = serde_json::from_str(r#"{"region": "eu-west-1", "table_name": "x-y"}"#).unwrap();
        assert_eq!((config.region.as_deref(), config.table_name.as_str()), (Some("eu-west-1"), "x-y"));
    }
}
