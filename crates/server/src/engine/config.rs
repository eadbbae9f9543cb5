//! `[engine]`: where the engine of `backend = "memory"` keeps its data, where Redis clients reach it, and what they may cost.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use acteon_state::config::{ByteSize, ConfigError, HumanDuration, Origin, Secret};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Where `acteon-server engine` listens when nothing says where: beside a redis-server, not in its place.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:6380";

/// `[engine]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Addresses without encryption, each `host:port`; port 0 chooses a free one. None: nobody but this process uses the engine.
    #[serde(deserialize_with = "one_or_many")]
    pub listen: Vec<String>,
    /// The directory where the data are kept; none: they are in memory only.
    pub dir: Option<PathBuf>,
    /// Where `dir` was set: only a start finds whether it can be used.
    #[serde(skip)]
    pub dir_origin: Option<Origin>,
    /// When what was written has to be on the disk.
    pub fsync: EngineFsync,
    /// When a snapshot is written by itself.
    #[serde(deserialize_with = "save_points")]
    pub save: Vec<SaveConfig>,
    /// Growth of the journal over the data after which it is rewritten, in percent; 0: never.
    pub rewrite_growth_percent: u32,
    /// Below this size of both together it is not.
    pub rewrite_min: ByteSize,
    /// What may wait for the disk.
    pub disk_buffer_max: ByteSize,
    /// A socket in the file system.
    pub unix_socket: Option<PathBuf>,
    /// Its permissions in octal, such as `"770"`.
    pub unix_socket_mode: Option<String>,
    /// Addresses with encryption.
    #[serde(deserialize_with = "one_or_many")]
    pub tls_listen: Vec<String>,
    /// The certificate, with those above it.
    pub tls_cert_file: Option<PathBuf>,
    /// Its private key.
    pub tls_key_file: Option<PathBuf>,
    /// Who signs the certificates of clients; with it they need one.
    pub tls_client_ca_file: Option<PathBuf>,
    /// The password of clients that give no name.
    pub password: Option<Secret>,
    /// Names with their own passwords.
    pub users: Vec<UserConfig>,
    /// Without a password, only clients of this machine are let in.
    pub protected_mode: bool,
    /// Databases to `SELECT` from.
    pub databases: usize,
    /// Connections at a time.
    pub clients_max: usize,
    /// Time after which a silent client is disconnected.
    pub idle_timeout: Option<HumanDuration>,
    /// Silence after which TCP asks whether the other side is there; zero: never.
    pub tcp_keepalive: HumanDuration,
    /// Largest argument, and largest string that grows.
    pub bulk_max: ByteSize,
    /// Requests that wait on one connection.
    pub query_buffer_max: ByteSize,
    /// Replies that wait on one connection.
    pub output_max: ByteSize,
    /// Messages that wait for a subscriber.
    pub output_pubsub_max: ByteSize,
    /// Messages that may wait for a subscriber for some time only.
    pub output_pubsub_soft_max: ByteSize,
    /// That time.
    pub output_pubsub_soft_time: HumanDuration,
    /// Time for a TLS handshake.
    pub tls_handshake_timeout: HumanDuration,
    /// How long to wait for replies to be read when stopping.
    pub drain_timeout: HumanDuration,
}

/// When what was written has to be on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineFsync {
    /// Before it is acknowledged.
    #[serde(rename = "always")]
    Always,
    /// Once in a second.
    #[default]
    #[serde(rename = "everysec")]
    EverySecond,
    /// When the operating system likes.
    #[serde(rename = "no")]
    No,
}

/// `[[engine.save]]`: a snapshot is written if so much has changed in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an entry such as { after = \"1h\", changes = 1 }")]
pub struct SaveConfig {
    /// Time since the last one.
    pub after: HumanDuration,
    /// Commands, transactions and scripts since then that have changed something.
    pub changes: u64,
}

/// `[[engine.users]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an entry such as { name = \"ada\", password = \"..\" }")]
pub struct UserConfig {
    /// What `AUTH` is called with.
    pub name: String,
    /// The password.
    pub password: Secret,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            dir: None,
            dir_origin: None,
            fsync: EngineFsync::default(),
            save: Vec::new(),
            rewrite_growth_percent: 100,
            rewrite_min: ByteSize(64 << 20),
            disk_buffer_max: ByteSize(256 << 20),
            unix_socket: None,
            unix_socket_mode: None,
            tls_listen: Vec::new(),
            tls_cert_file: None,
            tls_key_file: None,
            tls_client_ca_file: None,
            password: None,
            users: Vec::new(),
            protected_mode: true,
            databases: 16,
            clients_max: 10_000,
            idle_timeout: None,
            tcp_keepalive: HumanDuration(Duration::from_secs(300)),
            bulk_max: ByteSize(512 << 20),
            query_buffer_max: ByteSize(1 << 30),
            output_max: ByteSize(1 << 30),
            output_pubsub_max: ByteSize(32 << 20),
            output_pubsub_soft_max: ByteSize(8 << 20),
            output_pubsub_soft_time: HumanDuration(Duration::from_secs(60)),
            tls_handshake_timeout: HumanDuration(Duration::from_secs(10)),
            drain_timeout: HumanDuration(Duration::from_secs(10)),
        }
    }
}

impl EngineConfig {
    /// Whether anybody outside of this process can reach the engine.
    #[must_use]
    pub fn is_published(&self) -> bool {
        !self.listen.is_empty() || !self.tls_listen.is_empty() || self.unix_socket.is_some()
    }

    /// All places where it listens, for people.
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        let tls = self.tls_listen.iter().map(|address| format!("{address} with TLS"));
        let unix = self.unix_socket.iter().map(|path| path.display().to_string());
        self.listen.iter().cloned().chain(tls).chain(unix).collect()
    }

    /// Checks what types cannot. Returns the key below `[engine]` that is wrong, and why.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.unix_socket_mode.is_some() && self.mode().is_none() {
            return Err(("unix_socket_mode", "is no octal number; write permissions such as \"770\"".to_owned()));
        }
        if self.unix_socket_mode.is_some() && self.unix_socket.is_none() {
            return Err(("unix_socket_mode", "there is no unix_socket".to_owned()));
        }
        if self.unix_socket.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err(("unix_socket", "is empty; write a path, or remove it".to_owned()));
        }
        self.check_directory()?;
        self.check_tls()?;
        self.check_users()?;
        self.check_seconds()?;
        if !(1..=DATABASES_CAP).contains(&self.databases) {
            return Err(("databases", format!("is {}; allowed: 1 to {DATABASES_CAP}", self.databases)));
        }
        if self.clients_max == 0 {
            return Err(("clients_max", "is 0; allowed: at least 1".to_owned()));
        }
        for (key, size, min, max) in self.sizes() {
            if !(min..=max).contains(&size.0) {
                return Err((key, format!("is {size}; allowed: {} to {}", ByteSize(min), ByteSize(max))));
            }
        }
        Ok(())
    }

    /// What is wrong with the directory, with the place where it was set.
    #[must_use]
    pub fn directory_error(&self, reason: &str) -> ConfigError {
        ConfigError::new(reason).at("engine.dir", self.dir_origin.as_ref())
    }

    /// The permissions of the unix socket.
    #[must_use]
    pub fn mode(&self) -> Option<u32> {
        let mode = u32::from_str_radix(self.unix_socket_mode.as_deref()?, 8).ok()?;
        (mode <= 0o777).then_some(mode)
    }

    fn check_directory(&self) -> Result<(), (&'static str, String)> {
        let default = Self::default();
        if self.dir.as_ref().is_some_and(|dir| dir.as_os_str().is_empty()) {
            return Err(("dir", "is empty; write a path, or remove it".to_owned()));
        }
        let needs_directory = [
            ("fsync", self.fsync != default.fsync),
            ("save", !self.save.is_empty()),
            ("rewrite_growth_percent", self.rewrite_growth_percent != default.rewrite_growth_percent),
            ("rewrite_min", self.rewrite_min != default.rewrite_min),
            ("disk_buffer_max", self.disk_buffer_max != default.disk_buffer_max),
        ];
        if let Some((key, _)) = needs_directory.iter().find(|(_, is_given)| *is_given && self.dir.is_none()) {
            return Err((key, "there is no dir, so that everything is in memory only".to_owned()));
        }
        if self.rewrite_growth_percent > GROWTH_PERCENT_CAP {
            let percent = self.rewrite_growth_percent;
            return Err(("rewrite_growth_percent", format!("is {percent}; allowed: 0 to {GROWTH_PERCENT_CAP}")));
        }
        let is_wrong = |save: &&SaveConfig| {
            save.changes == 0 || save.after.0 < Duration::from_secs(1) || save.after.0.subsec_nanos() > 0
        };
        if let Some(SaveConfig { after, changes }) = self.save.iter().find(is_wrong) {
            let message =
                format!("has after = {after}, changes = {changes}; allowed: whole seconds, and at least one change");
            return Err(("save", message));
        }
        Ok(())
    }

    fn check_tls(&self) -> Result<(), (&'static str, String)> {
        let files = [
            ("tls_cert_file", self.tls_cert_file.is_some()),
            ("tls_key_file", self.tls_key_file.is_some()),
            ("tls_client_ca_file", self.tls_client_ca_file.is_some()),
        ];
        for (key, is_given) in files {
            if self.tls_listen.is_empty() && is_given {
                return Err((key, "there is no tls_listen".to_owned()));
            }
            if !self.tls_listen.is_empty() && !is_given && key != "tls_client_ca_file" {
                return Err(("tls_listen", format!("needs {key}")));
            }
        }
        Ok(())
    }

    fn check_users(&self) -> Result<(), (&'static str, String)> {
        if self.password.as_ref().is_some_and(|password| password.expose().is_empty()) {
            return Err(("password", "is empty; write a password, or remove it".to_owned()));
        }
        // Whoever gives no name would be let in by his side, so that names protected nothing.
        if self.password.is_none() && !self.users.is_empty() {
            return Err(("users", "without engine.password nobody needs a name; write one as well".to_owned()));
        }
        for (at, user) in self.users.iter().enumerate() {
            let UserConfig { name, password } = user;
            let why = if name.is_empty() || password.expose().is_empty() {
                format!("the name or the password of entry {at} is empty")
            } else if name == DEFAULT_USER {
                format!("{name:?} is who gives no name; write engine.password instead")
            } else if self.users[..at].iter().any(|other| other.name == *name) {
                format!("{name:?} is there twice")
            } else {
                continue;
            };
            return Err(("users", why));
        }
        Ok(())
    }

    /// What is kept in seconds, since clients can read and change it in seconds.
    fn check_seconds(&self) -> Result<(), (&'static str, String)> {
        let times = [
            ("idle_timeout", self.idle_timeout),
            ("tcp_keepalive", Some(self.tcp_keepalive)),
            ("output_pubsub_soft_time", Some(self.output_pubsub_soft_time)),
        ];
        for (key, time) in times {
            if let Some(time) = time.filter(|time| time.0.subsec_nanos() > 0) {
                return Err((key, format!("is {time}; allowed: whole seconds")));
            }
        }
        Ok(())
    }

    /// Every size with its bounds.
    fn sizes(&self) -> [(&'static str, ByteSize, u64, u64); 6] {
        [
            ("disk_buffer_max", self.disk_buffer_max, 1 << 20, SIZE_CAP),
            // Below this not even the names of commands would fit; above, no offset of a string could reach the end.
            ("bulk_max", self.bulk_max, 1 << 20, 512 << 20),
            ("query_buffer_max", self.query_buffer_max, 1 << 20, SIZE_CAP),
            ("output_max", self.output_max, 1 << 20, SIZE_CAP),
            ("output_pubsub_max", self.output_pubsub_max, 1 << 10, SIZE_CAP),
            ("output_pubsub_soft_max", self.output_pubsub_soft_max, 1 << 10, SIZE_CAP),
        ]
    }
}

/// Who a client is that gives no name, as Redis calls it.
const DEFAULT_USER: &str = "default";
/// Most databases: each is an engine of its own.
const DATABASES_CAP: usize = 1_024;
/// Largest growth of the journal: a thousand times the data.
const GROWTH_PERCENT_CAP: u32 = 100_000;
/// Largest bound of a buffer.
const SIZE_CAP: u64 = 64 << 30;

/// Reads one text, in which commas separate several, or a list of texts.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct OneOrMany;

    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an address such as \"127.0.0.1:6380\", or a list of addresses")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<String>, E> {
            text.split(',').map(|address| checked(address.trim())).collect()
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<String>, A::Error> {
            let mut addresses = Vec::new();
            while let Some(address) = items.next_element::<String>()? {
                addresses.push(checked(&address)?);
            }
            Ok(addresses)
        }
    }

    deserializer.deserialize_any(OneOrMany)
}

/// Reads a list of save points, which Redis writes otherwise: a mistake is told with what to write here.
fn save_points<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SaveConfig>, D::Error> {
    struct SavePoints;

    impl<'de> Visitor<'de> for SavePoints {
        type Value = Vec<SaveConfig>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list such as [{ after = \"1h\", changes = 1 }]")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<SaveConfig>, A::Error> {
            let mut points = Vec::new();
            while let Some(point) = items.next_element()? {
                points.push(point);
            }
            Ok(points)
        }
    }

    deserializer.deserialize_seq(SavePoints)
}

/// The address, if it has a host and a port.
fn checked<E: Error>(address: &str) -> Result<String, E> {
    let is_address =
        address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if is_address {
        Ok(address.to_owned())
    } else {
        Err(E::custom(format!("{address:?} is no address; write host and port, such as \"127.0.0.1:6380\"")))
    }
}

#[cfg(test)]
mod tests {
    use acteon_state::config::Document;

    use super::EngineConfig;

    fn read(toml: &str) -> Result<EngineConfig, String> {
        let document = Document::parse("a.toml", &format!("[engine]\n{toml}")).expect("TOML");
        let config: EngineConfig =
            document.read_section("engine").map_err(|error| error.to_string())?.unwrap_or_default();
        config.check().map_err(|(key, why)| format!("{key}: {why}"))?;
        Ok(config)
    }

    #[test]
    fn one_address_or_several() {
        let listen = |toml| read(toml).map(|config| config.listen);
        assert_eq!(listen("listen = \"127.0.0.1:6380\""), Ok(vec!["127.0.0.1:6380".to_owned()]));
        let both = vec!["127.0.0.1:6380".to_owned(), "[::1]:0".to_owned()];
        assert_eq!(listen("listen = [\"127.0.0.1:6380\", \"[::1]:0\"]"), Ok(both.clone()));
        assert_eq!(listen("listen = \"127.0.0.1:6380, [::1]:0\""), Ok(both));
        assert!(!read("").expect("valid").is_published());
    }

    #[test]
    fn mistakes_are_named() {
        for (toml, said) in [
            ("listen = \"6380\"", "\"6380\" is no address"),
            ("listen = [\"localhost:none\"]", "\"localhost:none\" is no address"),
            ("tls_listen = \"[::]:6390\"", "tls_listen: needs tls_cert_file"),
            ("tls_cert_file = \"a.pem\"", "tls_cert_file: there is no tls_listen"),
            ("unix_socket_mode = \"770\"", "there is no unix_socket"),
            ("unix_socket = \"a\"\nunix_socket_mode = \"rwx\"", "is no octal number"),
            ("unix_socket = \"a\"\nunix_socket_mode = \"1777\"", "is no octal number"),
            ("databases = 0", "databases: is 0; allowed: 1 to 1024"),
            ("clients_max = 0", "clients_max: is 0"),
            ("dir = \"\"", "dir: is empty"),
            ("fsync = \"always\"", "fsync: there is no dir"),
            ("dir = \"d\"\nfsync = \"sometimes\"", "there are always, everysec, no"),
            ("dir = \"d\"\nsave = [{ after = \"1m\", changes = 0 }]", "save: has after = 1m, changes = 0"),
            ("dir = \"d\"\nsave = [\"3600 1\"]", "expected an entry such as { after = \"1h\", changes = 1 }"),
            ("dir = \"d\"\nsave = \"3600 1\"", "expected a list such as [{ after = \"1h\", changes = 1 }]"),
            (
                "dir = \"d\"\nsave = { after = \"1h\", changes = 1 }",
                "expected a list such as [{ after = \"1h\", changes = 1 }]",
            ),
            ("users = [\"ada\"]", "expected an entry such as { name = \"ada\", password = \"..\" }"),
            ("dir = \"d\"\nrewrite_growth_percent = 100001", "allowed: 0 to 100000"),
            ("dir = \"d\"\ndisk_buffer_max = \"1KiB\"", "disk_buffer_max: is 1KiB; allowed: 1MiB to 64GiB"),
            ("bulk_max = \"1GiB\"", "bulk_max: is 1GiB; allowed: 1MiB to 512MiB"),
            ("unix_socket = \"\"", "unix_socket: is empty"),
            ("password = \"\"", "password: is empty"),
            ("users = [{ name = \"ada\", password = \"b\" }]", "users: without engine.password"),
            (
                "password = \"a\"\nusers = [{ name = \"\", password = \"b\" }]",
                "users: the name or the password of entry 0",
            ),
            (
                "password = \"a\"\nusers = [{ name = \"ada\", password = \"\" }]",
                "users: the name or the password of entry 0",
            ),
            ("password = \"a\"\nusers = [{ name = \"default\", password = \"b\" }]", "write engine.password instead"),
            ("idle_timeout = \"1500ms\"", "idle_timeout: is 1s 500ms; allowed: whole seconds"),
            ("tcp_keepalive = \"1ms\"", "tcp_keepalive: is 1ms; allowed: whole seconds"),
            ("output_pubsub_soft_time = \"61001ms\"", "output_pubsub_soft_time: is 1m 1s 1ms"),
        ] {
            let error = read(toml).expect_err(toml);
            assert!(error.contains(said), "{said} is not in: {error}");
        }
    }

    #[test]
    fn a_name_may_be_there_once() {
        let user = |name: &str| format!("{{ name = {name:?}, password = \"b\" }}");
        let users = |second| format!("password = \"a\"\nusers = [{}, {}]", user("ada"), user(second));
        assert!(read(&users("Ada")).is_ok());
        assert_eq!(read(&users("ada")).expect_err("twice"), "users: \"ada\" is there twice");
    }

    #[test]
    fn passwords_are_not_shown() {
        let config =
            read("password = \"hunter2\"\nusers = [{ name = \"ada\", password = \"hunter3\" }]").expect("valid");
        let shown = format!("{config:?}{}", toml::to_string(&config).expect("TOML"));
        assert!(!shown.contains("hunter") && shown.contains("ada"), "{shown}");
    }
}
