//! Opens a stream to a server and logs in: resolve, TCP or unix socket, TLS, authentication.
//!
//! # Failure
//! Each step has its own message, with the address and without credentials. The caller bounds the time.
//!
//! # How it works
//! We open the stream ourselves and hand it to the redis crate's multiplexer, instead of letting the crate do both: that way
//! Nagle is off, a failure tells at which step it happened, and we see the moment when the multiplexer ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use acteon_state_core::{Error, ErrorKind, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, ServerError};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Protocol, RedisConfig};
use crate::error::{BACKEND, from_server};
use crate::gather::Gather;
use crate::silence::{Silence, Timeouts};
use crate::tls;
use crate::topology::{Endpoint, Login, TlsOptions};

/// Requests that wait to be written together. The library's own 50 would cut what many tasks send at once into pieces.
const REQUESTS_QUEUED: usize = 512;

/// Receives what the server sends without being asked. Must not block.
pub(crate) type OnPush = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// How to get into servers of one kind: data nodes, or Sentinels.
pub(crate) struct Dialer {
    tls: Option<TlsConnector>,
    /// What the names of its options of TLS begin with.
    prefix: &'static str,
    /// The name that certificates must carry, where it is not the host.
    server_name: Option<String>,
    login: Login,
    db: u32,
    protocol: Protocol,
    keepalive: Duration,
    timeouts: Timeouts,
}

/// A connection whose server let us in.
pub(crate) struct Dialed {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) health: Health,
    /// Moves bytes; ends when the connection does.
    pub(crate) driver: AbortOnDropHandle<()>,
}

/// Whether a connection has failed somebody. Known to callers at once, before anyone gets to replace it: what is sent into
/// a connection that is known to be broken would count as of unknown effect.
#[derive(Clone, Default)]
pub(crate) struct Health {
    broken: Arc<AtomicBool>,
}

impl Health {
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    pub(crate) fn set_broken(&self) {
        self.broken.store(true, Ordering::Release);
    }
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Dialer {
    /// Reads the certificates that the options name.
    ///
    /// # Errors
    /// `Config` for files, or a name in certificates, that cannot be used.
    pub(crate) fn new(config: &RedisConfig, login: Login, tls: Option<&TlsOptions>, db: u32) -> Result<Self> {
        if let Some(TlsOptions { prefix, server_name: Some(name), .. }) = tls {
            ServerName::try_from(name.as_str()).map_err(|error| {
                Error::config(format!("{prefix}tls_server_name {name:?} is no host name")).with_source(error)
            })?;
        }
        Ok(Self {
            server_name: tls.and_then(|options| options.server_name.clone()),
            tls: tls.map(tls::connector).transpose()?,
            prefix: tls.map_or("", |options| options.prefix),
            login,
            db,
            protocol: config.protocol,
            keepalive: config.keepalive,
            timeouts: Timeouts { read: config.read_timeout, write: config.write_timeout },
        })
    }

    /// Opens a connection and logs in.
    pub(crate) async fn dial(&self, endpoint: &Endpoint, on_push: OnPush) -> Result<Dialed> {
        match self.protocol {
            Protocol::Resp2 => self.dial_with(endpoint, on_push, ProtocolVersion::RESP2).await,
            Protocol::Resp3 => self.dial_with(endpoint, on_push, ProtocolVersion::RESP3).await,
            Protocol::Auto => match self.dial_with(endpoint, on_push.clone(), ProtocolVersion::RESP3).await {
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    self.dial_with(endpoint, on_push, ProtocolVersion::RESP2).await
                }
                dialed => dialed,
            },
        }
    }

    async fn dial_with(&self, endpoint: &Endpoint, on_push: OnPush, protocol: ProtocolVersion) -> Result<Dialed> {
        let stream = Gather::new(Silence::new(self.stream(endpoint).await?, self.timeouts));
        let health = Health::default();
        let ending = health.clone();
        let mut config = AsyncConnectionConfig::new()
            // Each call has its own deadline, which also covers the wait for a free place.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(REQUESTS_QUEUED);
        if protocol == ProtocolVersion::RESP3 {
            config = config.set_push_sender(move |push: PushInfo| {
                // The multiplexer's own word for the end of the connection, before it fails what is in flight.
                if push.kind == PushKind::Disconnection {
                    ending.set_broken();
                }
                on_push(push);
                Ok::<(), ()>(())
            });
        }
        let (connection, driver) = MultiplexedConnection::new_with_config(&self.login(protocol), stream, config)
            .await
            .map_err(|error| match tls::refusal_of_identity(self.prefix, &error) {
                Some(what) => failed(endpoint, ErrorKind::Config, what).with_source(error),
                None => refused_login(endpoint, error),
            })?;
        Ok(Dialed { connection, health, driver: AbortOnDropHandle::new(tokio::spawn(driver)) })
    }

    fn login(&self, protocol: ProtocolVersion) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default()
            .set_protocol(protocol)
            .set_db(i64::from(self.db))
            .set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        if let Some(username) = &self.login.username {
            info = info.set_username(username);
        }
        if let Some(password) = &self.login.password {
            info = info.set_password(password.expose());
        }
        info
    }

    async fn stream(&self, endpoint: &Endpoint) -> Result<Box<dyn Stream>> {
        let unreachable = |error| unreachable(endpoint, error);
        let (host, port) = match endpoint {
            Endpoint::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await.map_err(unreachable)?)),
            Endpoint::Tcp { host, port } => (host.as_str(), *port),
        };
        let stream = self.tcp(endpoint, host, port).await?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = self.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name)
            .map_err(|error| Error::config("tls: the host is no valid server name").with_source(error))?;
        let stream = tls.connect(name, stream).await.map_err(|error| self.refused_tls(endpoint, error))?;
        Ok(Box::new(stream))
    }

    async fn tcp(&self, endpoint: &Endpoint, host: &str, port: u16) -> Result<TcpStream> {
        let unreachable = |error| unreachable(endpoint, error);
        let addresses: Vec<_> = match tokio::net::lookup_host((host, port)).await {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                let message = "the host name cannot be resolved";
                return Err(failed(endpoint, ErrorKind::Unavailable, message).with_source(error));
            }
        };
        let stream = TcpStream::connect(&*addresses).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let keepalive = TcpKeepalive::new().with_time(self.keepalive).with_interval(self.keepalive);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(unreachable)?;
        Ok(stream)
    }
    /// What to add to the message about a server that says nothing.
    pub(crate) fn hint_on_silence(&self) -> &'static str {
        // A server that waits for the end of what it takes for a request.
        if self.tls.is_some() { "; does it speak TLS there?" } else { "" }
    }

    fn refused_tls(&self, endpoint: &Endpoint, error: io::Error) -> Error {
        if let Some(what) = tls::refusal_of_identity(self.prefix, &error) {
            return failed(endpoint, ErrorKind::Config, what).with_source(error);
        }
        // rustls reports what is wrong with a certificate as InvalidData; trying again would not help.
        let (kind, what) = match error.kind() {
            io::ErrorKind::InvalidData => (ErrorKind::Config, format!("TLS failed: {error}")),
            io::ErrorKind::UnexpectedEof => {
                (ErrorKind::Unavailable, "TLS failed: the server hung up; does it speak TLS there?".to_owned())
            }
            _ => (ErrorKind::Unavailable, "TLS failed".to_owned()),
        };
        failed(endpoint, kind, what).with_source(error)
    }
}

/// An error of connecting to this server.
pub(crate) fn failed(endpoint: &Endpoint, kind: ErrorKind, what: impl AsRef<str>) -> Error {
    Error::new(kind, format!("cannot connect to {endpoint}: {}", what.as_ref())).on_backend(BACKEND)
}

/// The server refused, or hung up, before the connection was of use.
pub(crate) fn refused_login(endpoint: &Endpoint, error: RedisError) -> Error {
    if let Ok(server) = ServerError::try_from(error.clone()) {
        let error = from_server(&server);
        return failed(endpoint, error.kind(), error.message());
    }
    let (kind, what) = match error.kind() {
        redis::ErrorKind::AuthenticationFailed => (ErrorKind::Denied, "authentication failed".to_owned()),
        redis::ErrorKind::RESP3NotSupported => {
            (ErrorKind::Unsupported, "it does not speak RESP3, which protocol = \"resp3\" asks for".to_owned())
        }
        // The crate wraps a refused SELECT like this.
        redis::ErrorKind::Server(_) => {
            (ErrorKind::Config, format!("the server refused: {}", error.detail().unwrap_or("no reason given")))
        }
        _ => (ErrorKind::Unavailable, "the server hung up during login; does it speak TLS there?".to_owned()),
    };
    failed(endpoint, kind, what).with_source(error)
}

fn unreachable(endpoint: &Endpoint, error: io::Error) -> Error {
    let message = match error.kind() {
        io::ErrorKind::ConnectionRefused => "the connection was refused: nothing listens there".to_owned(),
        io::ErrorKind::NotFound => "there is no such socket".to_owned(),
        io::ErrorKind::PermissionDenied => "this process has no right to connect".to_owned(),
        kind => format!("it cannot be reached: {kind}"),
    };
    failed(endpoint, ErrorKind::Unavailable, message).with_source(error)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use socket2::SockRef;
    use tokio::net::TcpListener;

    use super::Dialer;
    use crate::config::RedisConfig;
    use crate::topology::{Endpoint, Login};

    #[tokio::test]
    async fn a_stream_keeps_alive_as_it_is_told_and_never_waits_for_more_to_send() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = RedisConfig { keepalive: Duration::from_secs(77), ..RedisConfig::default() };
        let dialer = Dialer::new(&config, Login::default(), None, 0).unwrap();
        let endpoint = Endpoint::Tcp { host: address.ip().to_string(), port: address.port() };
        let stream = dialer.tcp(&endpoint, &address.ip().to_string(), address.port()).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), config.keepalive);
    }
}
