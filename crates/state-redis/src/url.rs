//! The URL grammar.
//!
//! ```text
//! redis://[[username]:password@]host[:port][/db]      also valkey://
//! rediss://[[username]:password@]host[:port][/db]     TLS; also valkeys://
//! unix:///path/to/redis.sock[?db=N]                   also redis+unix://
//! ```
//! Everything in a URL that would not be used is an error. Errors do not repeat the text: any piece of it may be a password
//! that should have been percent-encoded.

use std::path::PathBuf;

use acteon_state_core::{Error, Result};

use crate::config::Secret;

/// What a URL says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct UrlParts {
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) tls: Option<bool>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) db: Option<u32>,
}

/// Reads a URL.
///
/// # Errors
/// `Config`, saying what is wrong without repeating any of it but the scheme.
pub(crate) fn parse_url(url: &str) -> Result<UrlParts> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(Error::config("url: it has no scheme; write redis://host:6379"));
    };
    let tls = match scheme {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        "unix" | "redis+unix" | "valkey+unix" => return parse_unix(rest),
        _ => {
            return Err(Error::config(format!(
                "url: scheme {scheme:?} is not supported; there are redis, rediss, valkey, valkeys, unix and redis+unix"
            )));
        }
    };
    if rest.contains(['?', '#']) {
        return Err(Error::config("url: it has a query or fragment, which would not be used; use fields instead"));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, address) = match authority.rsplit_once('@') {
        Some((credentials, address)) => (Some(credentials), address),
        None => (None, authority),
    };
    let (username, password) = credentials.map(parse_credentials).transpose()?.unwrap_or_default();
    let (host, port) = parse_address(address)?;
    let db = if path.is_empty() { None } else { Some(parse_db(path)?) };
    Ok(UrlParts { host: Some(host), port, socket: None, tls: Some(tls), username, password, db })
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

fn parse_address(address: &str) -> Result<(String, Option<u16>)> {
    if address.contains(',') {
        return Err(Error::config("url: several hosts are not supported; give one"));
    }
    let (host, port) = match address.strip_prefix('[') {
        Some(bracketed) => {
            let Some((host, rest)) = bracketed.split_once(']') else {
                return Err(Error::config("url: the bracket of an IPv6 address is not closed"));
            };
            if host.parse::<std::net::Ipv6Addr>().is_err() || !(rest.is_empty() || rest.starts_with(':')) {
                return Err(Error::config("url: brackets must hold an IPv6 address, and a port may follow"));
            }
            (host, rest.strip_prefix(':'))
        }
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(Error::config("url: the host is missing"));
    }
    let port = match port {
        None => None,
        // The text may be a piece of a password that should have been percent-encoded, so it is not repeated.
        Some(port) => Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
            Error::config(
                "url: the port is not a number from 1 to 65535 (`:`, `@` and `/` in a password are %3A, %40 and %2F)",
            )
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

    use crate::config::{Endpoint, RedisConfig, Secret, Target};

    fn target(url: &str) -> Target {
        RedisConfig::from_url(url).unwrap_or_else(|error| panic!("{url}: {error}")).target().unwrap()
    }

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
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
            assert_eq!((target.endpoint, target.tls.is_some(), target.db), (endpoint, tls, db), "{url}");
        }
    }

    #[test]
    fn credentials_are_percent_decoded() {
        for (url, username, password) in [
            ("redis://:secret@h", None, Some("secret")),
            ("redis://ada:p%40ss%3Aw%2Frd%25@h:1/2", Some("ada"), Some("p@ss:w/rd%")),
            ("redis://ada:p@ss@h", Some("ada"), Some("p@ss")),
            ("redis://h", None, None),
        ] {
            let target = target(url);
            assert_eq!(target.username.as_deref(), username, "{url}");
            assert_eq!(target.password.as_ref().map(Secret::expose), password, "{url}");
        }
    }

    #[test]
    fn wrong_urls_are_refused_without_repeating_them() {
        for url in [
            "",
            "localhost:6379",
            "http://hunter2@h",
            "redis+sentinel://:hunter2@h",
            "redis-cluster://:hunter2@h",
            "redis://",
            "redis://:hunter2@",
            "redis://hunter2@h",
            "redis://:hunter2@h:port",
            "redis://:hunter2@h:0",
            "redis://:hunter2@h:65536",
            "redis://:hunter2/x@h:1",
            "redis://:hunter2@h1,h2",
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
            let error = RedisConfig::from_url(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
