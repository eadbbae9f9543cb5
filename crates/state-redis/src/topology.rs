//! Where servers are and how to get in, as the URL and the options say it together.
//!
//! One URL, or the same facts as fields, or a mixture; what both say must agree. The outcome is one typed [`Target`], so that
//! nothing behind it parses text.

use std::fmt;
use std::path::PathBuf;

use acteon_state_core::{Error, Result};

use crate::config::{RedisConfig, Secret, TopologyName};
use crate::url::{UrlParts, parse_hosts, parse_url};

/// The port of data nodes, where none is given.
pub(crate) const PORT: u16 = 6379;
/// The port of Sentinels, where none is given.
pub(crate) const SENTINEL_PORT: u16 = 26379;

/// Where servers are and how to get in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) topology: Topology,
    /// How to get into data nodes.
    pub(crate) login: Login,
    pub(crate) tls: Option<TlsOptions>,
    pub(crate) db: u32,
}

/// How the servers belong together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Topology {
    /// One server.
    Standalone(Endpoint),
    /// A primary with replicas, watched by Sentinels that say which one it is.
    Sentinel(SentinelTarget),
    /// A cluster, of which these nodes are known.
    Cluster { seeds: Vec<Endpoint> },
}

/// Where the Sentinels are and how to get into them, which is apart from the data nodes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SentinelTarget {
    pub(crate) sentinels: Vec<Endpoint>,
    /// The name under which they watch the primary.
    pub(crate) master: String,
    pub(crate) login: Login,
    pub(crate) tls: Option<TlsOptions>,
}

/// An address; shown in errors, so it never holds credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Endpoint {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// Credentials.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Login {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
}

/// How to encrypt, and whom to trust.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TlsOptions {
    /// What the names of these fields begin with, for messages.
    pub(crate) prefix: &'static str,
    pub(crate) verify: bool,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) server_name: Option<String>,
    /// Our own certificate and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

/// The options of TLS for one kind of server, and how their fields are called.
struct TlsFields<'a> {
    prefix: &'static str,
    verify: bool,
    ca_file: &'a Option<PathBuf>,
    server_name: &'a Option<String>,
    cert_file: &'a Option<PathBuf>,
    key_file: &'a Option<PathBuf>,
}

impl RedisConfig {
    /// Checks all options and says where the servers are.
    pub(crate) fn target(&self) -> Result<Target> {
        self.check_bounds()?;
        let url = self.url.as_ref().map(|url| parse_url(url.expose())).transpose()?.unwrap_or_default();
        let tls = agreed("tls", url.tls, self.tls)?.unwrap_or(false);
        let login = login(
            "",
            agreed("username", url.username.clone(), self.username.clone())?,
            agreed("password", url.password.clone(), self.password.clone())?,
        )?;
        let db = agreed("db", url.db, self.db)?.unwrap_or(0);
        let topology = self.topology_of(&url, tls)?;
        if matches!(topology, Topology::Cluster { .. }) && db != 0 {
            return Err(Error::config("db: a Cluster has database 0 only; remove it"));
        }
        let tls = TlsFields::of_data(self).options(tls)?;
        Ok(Target { topology, login, tls, db })
    }

    fn topology_of(&self, url: &UrlParts, tls: bool) -> Result<Topology> {
        let hosts = self.hosts(url)?;
        let socket = agreed("socket", url.socket.clone(), self.socket.clone())?;
        if let Some(path) = socket {
            return self.unix_socket(path, &hosts, tls);
        }
        let name = agreed("topology", url.topology, self.topology)?;
        let master = agreed("sentinel_master", url.sentinel_master.clone(), self.sentinel_master.clone())?;
        let name = name.unwrap_or(match &master {
            Some(_) => TopologyName::Sentinel,
            None if hosts.len() > 1 => TopologyName::Cluster,
            None => TopologyName::Standalone,
        });
        if name != TopologyName::Sentinel {
            self.refuse_sentinel_fields(url, name)?;
        }
        match name {
            TopologyName::Standalone => match <[_; 1]>::try_from(hosts) {
                Ok([(host, port)]) => Ok(Topology::Standalone(tcp(host, port, PORT))),
                Err(hosts) if hosts.is_empty() => {
                    Ok(Topology::Standalone(tcp("localhost".to_owned(), self.port, PORT)))
                }
                Err(_) => Err(Error::config(
                    "topology: a standalone server has one host; several are a Cluster, or Sentinels with sentinel_master",
                )),
            },
            TopologyName::Cluster => {
                if hosts.is_empty() {
                    return Err(Error::config("hosts: a Cluster needs the address of at least one of its nodes"));
                }
                let seeds = hosts.into_iter().map(|(host, port)| tcp(host, port, PORT)).collect();
                Ok(Topology::Cluster { seeds })
            }
            TopologyName::Sentinel => self.sentinels(url, hosts, master, tls),
        }
    }

    fn sentinels(
        &self,
        url: &UrlParts,
        hosts: Vec<(String, Option<u16>)>,
        master: Option<String>,
        tls: bool,
    ) -> Result<Topology> {
        let Some(master) = master.filter(|master| !master.is_empty()) else {
            return Err(Error::config(
                "sentinel_master: which primary do the Sentinels watch? Write ?sentinel_master=mymaster, or the field",
            ));
        };
        if hosts.is_empty() {
            return Err(Error::config("hosts: the address of at least one Sentinel is needed"));
        }
        let login = login(
            "sentinel_",
            agreed("sentinel_username", url.sentinel_username.clone(), self.sentinel_username.clone())?,
            agreed("sentinel_password", url.sentinel_password.clone(), self.sentinel_password.clone())?,
        )?;
        let tls = self.sentinel_tls_options(self.sentinel_tls.unwrap_or(tls))?;
        let sentinels = hosts.into_iter().map(|(host, port)| tcp(host, port, SENTINEL_PORT)).collect();
        Ok(Topology::Sentinel(SentinelTarget { sentinels, master, login, tls }))
    }

    /// Sentinels are trusted as data nodes are, unless a field of their own says how.
    fn sentinel_tls_options(&self, tls: bool) -> Result<Option<TlsOptions>> {
        let own = TlsFields::of_sentinels(self);
        if !tls || own.is_any_given() {
            return own.options(tls);
        }
        let data = TlsFields { server_name: &None, ..TlsFields::of_data(self) };
        data.options(tls)
    }

    /// The hosts that the URL or the fields list, each with its port if one is given.
    fn hosts(&self, url: &UrlParts) -> Result<Vec<(String, Option<u16>)>> {
        let mut fields: Vec<(String, Option<u16>)> = Vec::new();
        for text in &self.hosts {
            fields.extend(parse_hosts("hosts", text)?);
        }
        if let Some(host) = &self.host {
            if !fields.is_empty() {
                return Err(Error::config("host and hosts are both given; remove one"));
            }
            fields.push((host.clone(), self.port));
        } else if self.port.is_some() && !fields.is_empty() {
            return Err(Error::config("port: with hosts, write host:port for each"));
        }
        if url.hosts.is_empty() {
            return Ok(fields);
        }
        if let ([(host, port)], true) = (&url.hosts[..], self.hosts.is_empty()) {
            let host = agreed("host", Some(host.clone()), self.host.clone())?.unwrap_or_default();
            return Ok(vec![(host, agreed("port", *port, self.port)?)]);
        }
        if self.port.is_some() {
            return Err(Error::config("port: with several hosts, write host:port for each"));
        }
        let name = if self.host.is_some() { "host" } else { "hosts" };
        let given = (!fields.is_empty()).then_some(fields);
        Ok(agreed(name, Some(url.hosts.clone()), given)?.unwrap_or_default())
    }

    fn unix_socket(&self, path: PathBuf, hosts: &[(String, Option<u16>)], tls: bool) -> Result<Topology> {
        if !hosts.is_empty() {
            return Err(Error::config("host and socket are both given; remove one"));
        }
        if self.port.is_some() {
            return Err(Error::config("port has no meaning with a unix socket"));
        }
        if tls {
            return Err(Error::config("tls has no meaning with a unix socket"));
        }
        if self.topology.is_some_and(|name| name != TopologyName::Standalone) || self.sentinel_master.is_some() {
            return Err(Error::config("topology: a unix socket is a standalone server"));
        }
        Ok(Topology::Standalone(Endpoint::Unix(path)))
    }

    fn refuse_sentinel_fields(&self, url: &UrlParts, name: TopologyName) -> Result<()> {
        let given = [
            ("sentinel_master", url.sentinel_master.is_some() || self.sentinel_master.is_some()),
            ("sentinel_username", url.sentinel_username.is_some() || self.sentinel_username.is_some()),
            ("sentinel_password", url.sentinel_password.is_some() || self.sentinel_password.is_some()),
            ("sentinel_tls", self.sentinel_tls.is_some()),
            ("sentinel_tls_verify", !self.sentinel_tls_verify),
            ("sentinel_tls_server_name", self.sentinel_tls_server_name.is_some()),
            ("sentinel_ca_file", self.sentinel_ca_file.is_some()),
            ("sentinel_cert_file", self.sentinel_cert_file.is_some()),
            ("sentinel_key_file", self.sentinel_key_file.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((field, _)) => Err(Error::config(format!(
                "{field} has no meaning with a {name} server; remove it, or use redis+sentinel://"
            ))),
            None => Ok(()),
        }
    }
}

impl<'a> TlsFields<'a> {
    fn of_data(config: &'a RedisConfig) -> Self {
        Self {
            prefix: "",
            verify: config.tls_verify,
            ca_file: &config.ca_file,
            server_name: &config.tls_server_name,
            cert_file: &config.cert_file,
            key_file: &config.key_file,
        }
    }

    fn of_sentinels(config: &'a RedisConfig) -> Self {
        Self {
            prefix: "sentinel_",
            verify: config.sentinel_tls_verify,
            ca_file: &config.sentinel_ca_file,
            server_name: &config.sentinel_tls_server_name,
            cert_file: &config.sentinel_cert_file,
            key_file: &config.sentinel_key_file,
        }
    }

    /// The name of a field that asks for something.
    fn given(&self) -> Option<&'static str> {
        let fields = [
            ("ca_file", self.ca_file.is_some()),
            ("tls_server_name", self.server_name.is_some()),
            ("tls_verify", !self.verify),
            ("cert_file", self.cert_file.is_some()),
            ("key_file", self.key_file.is_some()),
        ];
        fields.into_iter().find(|(_, given)| *given).map(|(field, _)| field)
    }

    fn is_any_given(&self) -> bool {
        self.given().is_some()
    }

    fn options(&self, tls: bool) -> Result<Option<TlsOptions>> {
        let prefix = self.prefix;
        if !tls {
            return match self.given() {
                Some(field) => Err(Error::config(format!(
                    "{prefix}{field} has no meaning without TLS; use rediss:// or {prefix}tls = true"
                ))),
                None => Ok(None),
            };
        }
        if !self.verify && self.ca_file.is_some() {
            return Err(Error::config(format!(
                "{prefix}ca_file has no meaning with {prefix}tls_verify = false; remove one"
            )));
        }
        let identity = match (self.cert_file, self.key_file) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) => {
                return Err(Error::config(format!(
                    "{prefix}cert_file is given without {prefix}key_file; give both or none"
                )));
            }
            (None, Some(_)) => {
                return Err(Error::config(format!(
                    "{prefix}key_file is given without {prefix}cert_file; give both or none"
                )));
            }
        };
        Ok(Some(TlsOptions {
            prefix,
            verify: self.verify,
            ca_file: self.ca_file.clone(),
            server_name: self.server_name.clone(),
            identity,
        }))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |endpoints: &[Endpoint]| endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match self {
            Self::Standalone(endpoint) => endpoint.fmt(f),
            Self::Sentinel(target) => write!(f, "{} of the Sentinels {}", target.master, list(&target.sentinels)),
            Self::Cluster { seeds } => write!(f, "the Cluster of {}", list(seeds)),
        }
    }
}

fn tcp(host: String, port: Option<u16>, default: u16) -> Endpoint {
    Endpoint::Tcp { host, port: port.unwrap_or(default) }
}

fn login(prefix: &str, username: Option<String>, password: Option<Secret>) -> Result<Login> {
    if username.is_some() && password.is_none() {
        return Err(Error::config(format!("{prefix}username is given without {prefix}password")));
    }
    Ok(Login { username, password })
}

/// One fact that a URL and a field may both state.
fn agreed<T: PartialEq>(name: &str, url: Option<T>, field: Option<T>) -> Result<Option<T>> {
    match (url, field) {
        (Some(url), Some(field)) if url != field => {
            Err(Error::config(format!("{name}: the url and the field say different things; remove one")))
        }
        (url, field) => Ok(url.or(field)),
    }
}
