//! The URL grammar.
//!
//! ```text
//! redis://[[username]:password@]host[:port][/db]                         also valkey://
//! rediss://[[username]:password@]host[:port][/db]                        TLS; also valkeys://
//! unix:///path/to/redis.sock[?db=N]                                      also redis+unix://
//! redis+sentinel://[[username]:password@]host[:port][,…][/db]?sentinel_master=NAME[&sentinel_username=…][&sentinel_password=…]
//! redis+cluster://[[username]:password@]host[:port][,…]                  or several hosts after redis://
//! ```
//! Everything in a URL that would not be used is an error. Errors do not repeat the text: any piece of it may be a password
//! that should have been percent-encoded.

use std::path::PathBuf;

use acteon_state_core::{Error, Result};

use crate::config::{Secret, TopologyName};

/// A host, and the port if one is given.
pub(crate) type Host = (String, Option<u16>);

/// What a URL says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct UrlParts {
    pub(crate) topology: Option<TopologyName>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) tls: Option<bool>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) db: Option<u32>,
    pub(crate) sentinel_master: Option<String>,
    pub(crate) sentinel_username: Option<String>,
    pub(crate) sentinel_password: Option<Secret>,
}

/// Reads a URL.
///
/// # Errors
/// `Config`, saying what is wrong without repeating any of it but the scheme.
pub(crate) fn parse_url(url: &str) -> Result<UrlParts> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(Error::config("url: it has no scheme; write redis://host:6379"));
    };
    let Some((tls, topology)) = parse_scheme(scheme) else {
        if matches!(scheme, "unix" | "redis+unix" | "valkey+unix") {
            return parse_unix(rest);
        }
        return Err(Error::config(format!(
            "url: scheme {scheme:?} is not supported; there are redis, rediss, valkey and valkeys, each also with +sentinel or \
             +cluster, and unix"
        )));
    };
    if rest.contains('#') {
        return Err(Error::config("url: it has a fragment (after #), which would not be used"));
    }
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, addresses) = match authority.rsplit_once('@') {
        Some((credentials, addresses)) => (Some(credentials), addresses),
        None => (None, authority),
    };
    let (username, password) = credentials.map(parse_credentials).transpose()?.unwrap_or_default();
    let mut parts = UrlParts {
        topology,
        hosts: parse_hosts("url", addresses)?,
        tls: Some(tls),
        username,
        password,
        db: if path.is_empty() { None } else { Some(parse_db(path)?) },
        ..UrlParts::default()
    };
    if let Some(query) = query {
        parse_query(query, &mut parts)?;
    }
    Ok(parts)
}

/// Whether a scheme asks for TLS, and what it says of the topology; `None` for others.
fn parse_scheme(scheme: &str) -> Option<(bool, Option<TopologyName>)> {
    let (base, topology) = match scheme.split_once('+') {
        None => (scheme, None),
        Some((base, "sentinel")) => (base, Some(TopologyName::Sentinel)),
        Some((base, "cluster")) => (base, Some(TopologyName::Cluster)),
        Some(_) => return None,
    };
    match base {
        "redis" | "valkey" => Some((false, topology)),
        "rediss" | "valkeys" => Some((true, topology)),
        _ => None,
    }
}

/// Reads `host[:port][,host[:port]]…`; `name` says where it stands, for errors.
///
/// # Errors
/// `Config`, without repeating the text.
pub(crate) fn parse_hosts(name: &str, text: &str) -> Result<Vec<Host>> {
    text.split(',').map(|address| parse_address(name, address)).collect()
}

fn parse_query(query: &str, parts: &mut UrlParts) -> Result<()> {
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let given_twice = match key {
            "sentinel_master" => parts.sentinel_master.replace(percent_decode(key, value)?).is_some(),
            "sentinel_username" => parts.sentinel_username.replace(percent_decode(key, value)?).is_some(),
            "sentinel_password" => parts.sentinel_password.replace(Secret::from(percent_decode(key, value)?)).is_some(),
            _ => {
                return Err(Error::config(
                    "url: of a query only sentinel_master, sentinel_username and sentinel_password are used; use fields \
                     for anything else (`?` in a password is %3F)",
                ));
            }
        };
        if given_twice || value.is_empty() {
            return Err(Error::config(format!("url: {key} needs one value")));
        }
    }
    Ok(())
}

fn parse_unix(rest: &str) -> Result<UrlParts> {
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    if !path.starts_with('/') || path == "/" {
        return Err(Error::config("url: a unix socket needs an absolute path: unix:///path/to/redis.sock"));
    }
    let db = match query {
        None => None,
        Some(query) => match query.strip_prefix("db=") {
            Some(db) => Some(parse_db(db)?),
            None => return Err(Error::config("url: of a query only ?db=N is used; use fields instead")),
        },
    };
    let socket = PathBuf::from(percent_decode("path", path)?);
    Ok(UrlParts { socket: Some(socket), db, ..UrlParts::default() })
}

fn parse_credentials(text: &str) -> Result<(Option<String>, Option<Secret>)> {
    let Some((username, password)) = text.split_once(':') else {
        return Err(Error::config("url: a username without password; write username:password@ or :password@"));
    };
    let username = (!username.is_empty()).then(|| percent_decode("username", username)).transpose()?;
    let password = (!password.is_empty()).then(|| percent_decode("password", password)).transpose()?;
    Ok((username, password.map(Secret::from)))
}

fn parse_address(name: &str, address: &str) -> Result<Host> {
    let (host, port) = match address.strip_prefix('[') {
        Some(bracketed) => {
            let Some((host, rest)) = bracketed.split_once(']') else {
                return Err(Error::config(format!("{name}: the bracket of an IPv6 address is not closed")));
            };
            if host.parse::<std::net::Ipv6Addr>().is_err() || !(rest.is_empty() || rest.starts_with(':')) {
                return Err(Error::config(format!(
                    "{name}: brackets must hold an IPv6 address, and a port may follow"
                )));
            }
            (host, rest.strip_prefix(':'))
        }
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/' || c == '@') {
        return Err(Error::config(format!("{name}: a host is missing or no host name")));
    }
    let port = match port {
        None => None,
        // The text may be a piece of a password that should have been percent-encoded, so it is not repeated.
        Some(port) => Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
            Error::config(format!(
                "{name}: a port is not a number from 1 to 65535 (`:`, `@`, `/` and `,` in a password are %3A, %40, %2F and \
                 %2C; an IPv6 address stands in brackets)"
            ))
        })?),
    };
    Ok((host.to_owned(), port))
}

fn parse_db(text: &str) -> Result<u32> {
    text.parse().map_err(|_| Error::config("url: what follows the address must be a database number, such as /0"))
}

fn percent_decode(name: &str, text: &str) -> Result<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => decoded.push(u8::try_from(high * 16 + low).unwrap_or(u8::MAX)),
            _ => return Err(Error::config(format!("url: the {name} has a % without two hexadecimal digits"))),
        }
    }
    String::from_utf8(decoded).map_err(|_| Error::config(format!("url: the {name} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use acteon_state_core::ErrorKind;

    use crate::config::{RedisConfig, Secret};
    use crate::topology::{Endpoint, SentinelTarget, Target, Topology};

    fn target(url: &str) -> Target {
        RedisConfig::from_url(url).and_then(|config| config.target()).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    fn sentinels(url: &str) -> (Target, SentinelTarget) {
        let target = target(url);
        match target.topology.clone() {
            Topology::Sentinel(sentinels) => (target, sentinels),
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn urls_say_where_the_server_is() {
        for (url, endpoint, tls, db) in [
            ("redis://localhost", tcp("localhost", 6379), false, 0),
            ("redis://localhost/", tcp("localhost", 6379), false, 0),
            ("redis://localhost:7000/3", tcp("localhost", 7000), false, 3),
            ("valkey://10.0.0.1:1", tcp("10.0.0.1", 1), false, 0),
            ("rediss://cache.example.com", tcp("cache.example.com", 6379), true, 0),
            ("valkeys://cache.example.com:6380/15", tcp("cache.example.com", 6380), true, 15),
            ("redis://[::1]", tcp("::1", 6379), false, 0),
            ("redis://[2001:db8::1]:7000/1", tcp("2001:db8::1", 7000), false, 1),
            ("unix:///run/redis.sock", Endpoint::Unix("/run/redis.sock".into()), false, 0),
            ("redis+unix:///run/a%20b.sock?db=4", Endpoint::Unix("/run/a b.sock".into()), false, 4),
        ] {
            let target = target(url);
            let expected = (Topology::Standalone(endpoint), tls, db);
            assert_eq!((target.topology, target.tls.is_some(), target.db), expected, "{url}");
        }
    }

    #[test]
    fn urls_of_sentinels_name_the_primary() {
        for (url, hosts, db, tls) in [
            ("redis+sentinel://a?sentinel_master=m", vec![tcp("a", 26379)], 0, false),
            (
                "redis+sentinel://a:1,b,[::1]:3/2?sentinel_master=m",
                vec![tcp("a", 1), tcp("b", 26379), tcp("::1", 3)],
                2,
                false,
            ),
            ("rediss+sentinel://a,b?sentinel_master=m", vec![tcp("a", 26379), tcp("b", 26379)], 0, true),
            ("valkeys+sentinel://a/1?sentinel_master=m", vec![tcp("a", 26379)], 1, true),
            ("redis://a,b?sentinel_master=m", vec![tcp("a", 26379), tcp("b", 26379)], 0, false),
        ] {
            let (target, sentinels) = sentinels(url);
            assert_eq!((sentinels.sentinels, sentinels.master.as_str(), target.db), (hosts, "m", db), "{url}");
            assert_eq!((target.tls.is_some(), sentinels.tls.is_some()), (tls, tls), "{url}");
        }
    }

    #[test]
    fn credentials_of_sentinels_are_apart() {
        let (target, sentinels) = sentinels(
            "redis+sentinel://ada:p%2C1@a,b?sentinel_master=my%26master&sentinel_username=watch&sentinel_password=p%262",
        );
        assert_eq!(target.login.password.as_ref().map(Secret::expose), Some("p,1"));
        assert_eq!(sentinels.master, "my&master");
        assert_eq!(sentinels.login.username.as_deref(), Some("watch"));
        assert_eq!(sentinels.login.password.as_ref().map(Secret::expose), Some("p&2"));
        let (_, without) = self::sentinels("redis+sentinel://:secret@a?sentinel_master=m");
        assert_eq!(without.login.password, None, "those of data nodes are not shown to Sentinels");
    }

    #[test]
    fn several_hosts_are_a_cluster() {
        for (url, seeds, tls) in [
            ("redis+cluster://a", vec![tcp("a", 6379)], false),
            ("redis+cluster://a,b:7001,[::1]:7002", vec![tcp("a", 6379), tcp("b", 7001), tcp("::1", 7002)], false),
            ("redis://a,b", vec![tcp("a", 6379), tcp("b", 6379)], false),
            ("rediss+cluster://:secret@a,b/0", vec![tcp("a", 6379), tcp("b", 6379)], true),
            ("valkey+cluster://a", vec![tcp("a", 6379)], false),
        ] {
            let target = target(url);
            assert_eq!((target.topology, target.tls.is_some()), (Topology::Cluster { seeds }, tls), "{url}");
        }
    }

    #[test]
    fn credentials_are_percent_decoded() {
        for (url, username, password) in [
            ("redis://:secret@h", None, Some("secret")),
            ("redis://ada:p%40ss%3Aw%2Frd%25@h:1/2", Some("ada"), Some("p@ss:w/rd%")),
            ("redis://ada:p@ss@h", Some("ada"), Some("p@ss")),
            ("redis+cluster://ada:p%3Fss@h,i", Some("ada"), Some("p?ss")),
            ("redis://h", None, None),
        ] {
            let login = target(url).login;
            assert_eq!(login.username.as_deref(), username, "{url}");
            assert_eq!(login.password.as_ref().map(Secret::expose), password, "{url}");
        }
    }

    #[test]
    fn wrong_urls_are_refused_without_repeating_them() {
        for url in [
            "",
            "localhost:6379",
            "http://hunter2@h",
            "redis-cluster://:hunter2@h",
            "redis+proxy://:hunter2@h",
            "redis+sentinel+cluster://:hunter2@h",
            "redis+sentinel://:hunter2@h",
            "redis+sentinel://:hunter2@h?sentinel_master=",
            "redis+sentinel://:hunter2@?sentinel_master=m",
            "redis+sentinel://:hunter2@h?sentinel_master=m&sentinel_master=hunter2",
            "redis+sentinel://h?sentinel_master=m&sentinel_username=hunter2",
            "redis+sentinel://h?sentinel_master=m&password=hunter2",
            "redis+cluster://:hunter2@h?sentinel_master=m",
            "redis+cluster://:hunter2@h/1",
            "redis+cluster://:hunter2@",
            "redis+cluster://:hunter2@a,,b",
            "redis://a,b/1",
            "redis://",
            "redis://:hunter2@",
            "redis://hunter2@h",
            "redis://:hunter2@h:port",
            "redis://:hunter2@h:0",
            "redis://:hunter2@h:65536",
            "redis://:hunter2/x@h:1",
            "redis://:hunter2@h/zero",
            "redis://:hunter2@h/0/1",
            "redis://:hunter2@h?protocol=resp3",
            "redis://:hunter2@h#insecure",
            "redis://:hunter2%4@h",
            "redis://:hunter2%ff@h",
            "redis://[::1",
            "redis://[::1]x",
            "redis://[localhost]",
            "unix://",
            "unix://relative.sock",
            "unix:///s?user=hunter2",
        ] {
            let error = RedisConfig::from_url(url).and_then(|config| config.target()).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
