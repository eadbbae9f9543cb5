//! Settings of the `redis` crate as settings of this driver, for an application that uses both on one server.
//!
//! Only settings are shared: the driver's connections are its own. What cannot be taken over is an error, never left out.

use acteon_state_core::{Error, Result};
use redis::{ConnectionAddr, ConnectionInfo};

use crate::config::{RedisConfig, Secret};

/// The server of a client of the `redis` crate, with its user, password and database.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use acteon_state_redis::RedisConfig;
///
/// let client = redis::Client::open("redis://ada:secret@cache.example.com:6380/2")?;
/// let config = RedisConfig { prefix: "shop".to_owned(), ..RedisConfig::try_from(client.get_connection_info())? };
/// assert_eq!((config.host.as_deref(), config.port, config.db), (Some("cache.example.com"), Some(6380), Some(2)));
/// # Ok(())
/// # }
/// ```
///
/// The version of the protocol is agreed upon with the server, whatever the client speaks; TCP settings and the library's name are the
/// driver's own.
///
/// # Errors
/// `Config` for certificates, which the `redis` crate does not give back, for a database number below 0, and for an address of
/// a kind that this driver does not know.
impl TryFrom<&ConnectionInfo> for RedisConfig {
    type Error = Error;

    fn try_from(info: &ConnectionInfo) -> Result<Self> {
        let settings = info.redis_settings();
        let db = u32::try_from(settings.db())
            .map_err(|_| Error::config(format!("db {} is out of range: a database is 0 or above", settings.db())))?;
        let config = Self {
            username: settings.username().map(str::to_owned),
            password: settings.password().map(Secret::from),
            db: Some(db),
            ..Self::default()
        };
        with_address(config, info.addr())
    }
}

fn with_address(config: RedisConfig, address: &ConnectionAddr) -> Result<RedisConfig> {
    let tcp = |host: &str, port| (Some(host.to_owned()), Some(port));
    match address {
        ConnectionAddr::Tcp(host, port) => {
            let (host, port) = tcp(host, *port);
            Ok(RedisConfig { host, port, tls: Some(false), ..config })
        }
        ConnectionAddr::TcpTls { tls_params: Some(_), .. } => Err(Error::config(
            "the client of the redis crate has certificates of its own, which it does not give back: set host, port, tls and \
             ca_file, cert_file and key_file of RedisConfig instead",
        )),
        ConnectionAddr::TcpTls { host, port, insecure, tls_params: None } => {
            let (host, port) = tcp(host, *port);
            Ok(RedisConfig { host, port, tls: Some(true), tls_verify: !insecure, ..config })
        }
        ConnectionAddr::Unix(path) => Ok(RedisConfig { socket: Some(path.clone()), ..config }),
        _ => Err(Error::config(format!("address {address} is neither TCP, TLS nor a unix socket"))),
    }
}

#[cfg(test)]
mod tests {
    use acteon_state_core::ErrorKind;
    use redis::{IntoConnectionInfo as _, RedisConnectionInfo};

    use super::RedisConfig;

    fn taken_over(url: &str) -> RedisConfig {
        RedisConfig::try_from(&url.into_connection_info().unwrap()).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn a_client_and_its_url_mean_the_same_server() {
        for url in [
            "redis://localhost",
            "redis://ada:p%40ss@h:7000/3",
            "redis://:secret@h",
            "redis://[::1]:1",
            "unix:///run/redis.sock",
        ] {
            let from_url = RedisConfig::from_url(url).unwrap().target().unwrap();
            assert_eq!(taken_over(url).target().unwrap(), from_url, "{url}");
        }
    }

    #[test]
    fn a_database_below_zero_is_refused() {
        let info =
            "redis://h".into_connection_info().unwrap().set_redis_settings(RedisConnectionInfo::default().set_db(-1));
        let error = RedisConfig::try_from(&info).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.message().contains("db -1"), "{error}");
    }

    #[test]
    fn tls_keeps_its_strictness() {
        let address =
            |insecure| redis::ConnectionAddr::TcpTls { host: "h".to_owned(), port: 6380, insecure, tls_params: None };
        let info = |insecure| "redis://h".into_connection_info().unwrap().set_addr(address(insecure));
        for insecure in [false, true] {
            let config = RedisConfig::try_from(&info(insecure)).unwrap();
            assert_eq!((config.tls, config.tls_verify), (Some(true), !insecure));
        }
    }
}
