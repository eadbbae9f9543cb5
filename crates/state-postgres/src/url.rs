//! The URL grammar.
//!
//! ```text
//! postgres://[user[:password]@][host[:port][,host[:port]…]][/database][?key=value[&…]]     also postgresql://
//! ```
//! Everything in a URL that would not be used is an error. Errors repeat no text but the names of keys: any other piece may
//! be part of a password that should have been percent-encoded.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use acteon_state_core::{Error, Result};
use percent_encoding::percent_decode_str;

use crate::config::{Secret, SslMode};

/// Keys of the query that are understood.
const KEYS: [&str; 9] = [
    "application_name",
    "connect_timeout",
    "host",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
];
/// Values of `target_session_attrs` that do not exclude the writable server.
const SESSION_ATTRS: [&str; 3] = ["read-write", "primary", "any"];
/// The longest key that is repeated in an error: longer than any that PostgreSQL knows.
const KEY_CHARS_MAX: usize = 32;

/// What a URL says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct UrlParts {
    pub(crate) hosts: Vec<(String, Option<u16>)>,
    pub(crate) port: Option<u16>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: Option<String>,
    pub(crate) sslmode: Option<SslMode>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) client_cert_file: Option<PathBuf>,
    pub(crate) client_key_file: Option<PathBuf>,
    pub(crate) application_name: Option<String>,
    pub(crate) connect_timeout: Option<Duration>,
}

/// Reads a URL.
///
/// # Errors
/// `Config`, saying what is wrong without repeating any of it but the scheme and the names of keys.
pub(crate) fn parse_url(url: &str) -> Result<UrlParts> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(wrong("it has no scheme; write postgres://host:5432/database"));
    };
    if !["postgres", "postgresql"].contains(&scheme) {
        return Err(wrong(&format!("scheme {scheme:?} is not supported; there are postgres and postgresql")));
    }
    if rest.contains('#') {
        return Err(wrong("it has a fragment, which would not be used (`#` in a password is %23)"));
    }
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, addresses) = match authority.rsplit_once('@') {
        Some((credentials, addresses)) => (credentials, addresses),
        None => ("", authority),
    };
    let mut parts = UrlParts::default();
    parse_credentials(credentials, &mut parts)?;
    if !addresses.is_empty() {
        parts.hosts = parse_hosts("url", addresses)?;
    }
    if path.contains('/') {
        return Err(wrong("what follows the host must be one database name (`/` in it, or in a password, is %2F)"));
    }
    if !path.is_empty() {
        parts.database = Some(percent_decode("database", path)?);
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        parse_pair(pair, &mut parts)?;
    }
    Ok(parts)
}

/// Reads `host`, `host:port` or `[::1]:port`, several separated by commas. `option` names the place in errors.
pub(crate) fn parse_hosts(option: &str, text: &str) -> Result<Vec<(String, Option<u16>)>> {
    text.split(',').map(|address| parse_address(option, address)).collect()
}

fn parse_address(option: &str, address: &str) -> Result<(String, Option<u16>)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(bracketed) => {
            let Some((host, rest)) = bracketed.split_once(']') else {
                return Err(Error::config(format!("{option}: the bracket of an IPv6 address is not closed")));
            };
            if host.parse::<Ipv6Addr>().is_err() || !(rest.is_empty() || rest.starts_with(':')) {
                let message = format!("{option}: brackets must hold an IPv6 address, and a port may follow");
                return Err(Error::config(message));
            }
            (host, rest.strip_prefix(':'))
        }
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err(Error::config(format!("{option}: a host is missing")));
    }
    let known = |c: char| c.is_alphanumeric() || "-_.:".contains(c);
    if !host.chars().all(known) {
        let message = format!(
            "{option}: a host holds a character that no host has; a socket's directory goes into `socket` or ?host="
        );
        return Err(Error::config(message));
    }
    Ok((host.to_owned(), port.map(|port| parse_port(option, port)).transpose()?))
}

fn parse_port(option: &str, port: &str) -> Result<u16> {
    port.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
        Error::config(format!(
            "{option}: a port is not a number from 1 to 65535 (`:`, `@` and `/` in a password are %3A, %40 and %2F)"
        ))
    })
}

fn parse_credentials(text: &str, parts: &mut UrlParts) -> Result<()> {
    let (username, password) = text.split_once(':').unwrap_or((text, ""));
    if username.is_empty() && !password.is_empty() {
        return Err(wrong("a password without a user; write user:password@"));
    }
    if !username.is_empty() {
        parts.username = Some(percent_decode("user", username)?);
    }
    if !password.is_empty() {
        parts.password = Some(percent_decode("password", password)?.into());
    }
    Ok(())
}

fn parse_pair(pair: &str, parts: &mut UrlParts) -> Result<()> {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    if !KEYS.contains(&key) {
        let known = KEYS.join(", ");
        // Only what looks like a key is repeated: after a `?` in a password that was not encoded, it would be its rest.
        let plain =
            key != pair && key.len() <= KEY_CHARS_MAX && key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
        let name = if plain { format!("key {key:?}") } else { "a key".to_owned() };
        return Err(wrong(&format!(
            "its query has {name} that is not known; there are {known} (`?` in a password is %3F)"
        )));
    }
    let value = percent_decode(key, value)?;
    if value.is_empty() {
        return Err(wrong(&format!("{key} has no value")));
    }
    match key {
        "application_name" => once(key, &mut parts.application_name, value),
        "connect_timeout" => once(key, &mut parts.connect_timeout, parse_seconds(&value)?),
        "host" if value.starts_with('/') => once(key, &mut parts.socket, value.into()),
        "host" => {
            Err(wrong("host must be the absolute path of a socket's directory; other hosts go before the database"))
        }
        "port" => once(key, &mut parts.port, parse_port("url", &value)?),
        "sslcert" => once(key, &mut parts.client_cert_file, value.into()),
        "sslkey" => once(key, &mut parts.client_key_file, value.into()),
        "sslmode" => once(key, &mut parts.sslmode, parse_sslmode(&value)?),
        // libpq's word for the authorities of the system, which are trusted in any case.
        "sslrootcert" if value == "system" => Ok(()),
        "sslrootcert" => once(key, &mut parts.ca_file, value.into()),
        _ if SESSION_ATTRS.contains(&value.as_str()) => Ok(()),
        _ => Err(wrong("target_session_attrs must be read-write, primary or any: only a writable server is of use")),
    }
}

fn once<T>(key: &str, place: &mut Option<T>, value: T) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(wrong(&format!("{key} is given twice"))),
    }
}

fn parse_seconds(text: &str) -> Result<Duration> {
    match text.parse::<u32>() {
        Ok(0) | Err(_) => Err(wrong("connect_timeout must be a number of seconds above 0")),
        Ok(seconds) => Ok(Duration::from_secs(seconds.into())),
    }
}

fn parse_sslmode(text: &str) -> Result<SslMode> {
    SslMode::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| {
        let known = SslMode::ALL.map(SslMode::as_str).join(", ");
        wrong(&format!("sslmode is not known; there are {known}"))
    })
}

fn percent_decode(name: &str, text: &str) -> Result<String> {
    let mut after_signs = text.split('%').skip(1);
    if !after_signs.all(|rest| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2) {
        return Err(wrong(&format!("the {name} has a % without two hexadecimal digits (`%` itself is %25)")));
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| wrong(&format!("the {name} is not UTF-8")))
}

fn wrong(what: &str) -> Error {
    Error::config(format!("url: {what}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use acteon_state_core::ErrorKind;

    use super::{UrlParts, parse_url};
    use crate::config::{Secret, SslMode};

    fn parse(url: &str) -> UrlParts {
        parse_url(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn urls_say_where_the_server_is() {
        for (url, hosts, database) in [
            ("postgres://", &[][..], None),
            ("postgres:///state", &[], Some("state")),
            ("postgresql://localhost", &[("localhost", None)], None),
            ("postgres://localhost/", &[("localhost", None)], None),
            ("postgres://db.example.com:6000/state", &[("db.example.com", Some(6000))], Some("state")),
            ("postgres://[::1]", &[("::1", None)], None),
            ("postgres://a:1,b,[2001:db8::1]:3/d", &[("a", Some(1)), ("b", None), ("2001:db8::1", Some(3))], Some("d")),
            ("postgres://h/my%20db?", &[("h", None)], Some("my db")),
        ] {
            let parts = parse(url);
            let found: Vec<_> = parts.hosts.iter().map(|(host, port)| (host.as_str(), *port)).collect();
            assert_eq!((found.as_slice(), parts.database.as_deref()), (hosts, database), "{url}");
        }
    }

    #[test]
    fn credentials_are_percent_decoded() {
        for (url, username, password) in [
            ("postgres://h", None, None),
            ("postgres://ada@h", Some("ada"), None),
            ("postgres://ada:@h", Some("ada"), None),
            ("postgres://ada:p%40ss%3Aw%2Frd%25@h:1/2", Some("ada"), Some("p@ss:w/rd%")),
            ("postgres://a%C3%A9:p@ss:w@h", Some("aé"), Some("p@ss:w")),
        ] {
            let parts = parse(url);
            assert_eq!(parts.username.as_deref(), username, "{url}");
            assert_eq!(parts.password.as_ref().map(Secret::expose), password, "{url}");
        }
    }

    #[test]
    fn every_key_is_used() {
        let parts = parse(
            "postgres:///d?host=%2Frun/pg&port=7&sslmode=verify-full&sslrootcert=/ca&sslcert=/c&sslkey=/k\
             &application_name=a%20b&connect_timeout=9&target_session_attrs=read-write",
        );
        assert_eq!(parts.socket.as_deref(), Some(Path::new("/run/pg")));
        assert_eq!((parts.port, parts.sslmode), (Some(7), Some(SslMode::VerifyFull)));
        assert_eq!(parts.ca_file.as_deref(), Some(Path::new("/ca")));
        assert_eq!(parts.client_cert_file.as_deref(), Some(Path::new("/c")));
        assert_eq!(parts.client_key_file.as_deref(), Some(Path::new("/k")));
        assert_eq!(parts.application_name.as_deref(), Some("a b"));
        assert_eq!(parts.connect_timeout, Some(Duration::from_secs(9)));
        assert_eq!(parse("postgres://h?sslrootcert=system").ca_file, None);
        for mode in SslMode::ALL {
            assert_eq!(parse(&format!("postgres://h?sslmode={}", mode.as_str())).sslmode, Some(mode));
        }
    }

    #[test]
    fn wrong_urls_are_refused_without_repeating_them() {
        for (url, reason) in [
            ("", "no scheme"),
            ("localhost:5432", "no scheme"),
            ("mysql://ada:hunter2@h", "scheme \"mysql\""),
            ("postgres://:hunter2@h", "without a user"),
            ("postgres://ada:hunter2@h:port", "port"),
            ("postgres://ada:hunter2@h:0", "port"),
            ("postgres://ada:hunter2@h:65536", "port"),
            ("postgres://ada:hunter2@h,", "host is missing"),
            ("postgres://ada:hunter2@a,,b", "host is missing"),
            ("postgres://ada:hunter2@/run/pg:5432/db", "one database name"),
            ("postgres://ada:hunter2@%2Frun%2Fpg/db", "?host="),
            ("postgres://ada:hunter2/x@h:1", "port"),
            ("postgres://ada:hunter2?x@h:1", "port"),
            ("postgres://ada:1?hunter2@h", "a key that is not known"),
            ("postgres://ada:1?hunter2=2@h", "a key that is not known"),
            ("postgres://ada:hunter2#x@h:1", "fragment"),
            ("postgres://ada:hunter2@h/a/b", "one database name"),
            ("postgres://ada:hunter2%4@h", "hexadecimal"),
            ("postgres://ada:hunter2%ff@h", "UTF-8"),
            ("postgres://[::1", "bracket"),
            ("postgres://[::1]x", "brackets"),
            ("postgres://[localhost]", "brackets"),
            ("postgres://h?ssl_mode=require", "key \"ssl_mode\" that is not known; there are application_name"),
            ("postgres://h?sslmode=on", "there are disable, allow"),
            ("postgres://h?sslmode=", "sslmode has no value"),
            ("postgres://h?sslmode", "sslmode has no value"),
            ("postgres://h?sslmode=require&sslmode=require", "given twice"),
            ("postgres://h?connect_timeout=0", "seconds above 0"),
            ("postgres://h?connect_timeout=5s", "seconds above 0"),
            ("postgres://h?host=other", "absolute path"),
            ("postgres://h?port=0", "port"),
            ("postgres://h?target_session_attrs=standby", "only a writable server"),
        ] {
            let error = parse_url(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(error.message().starts_with("url: ") && error.message().contains(reason), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
