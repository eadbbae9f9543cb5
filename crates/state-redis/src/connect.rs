//! Opens one connection: resolve, TCP or unix socket, TLS, authenticate, ask the server what it is, load the scripts.
//!
//! # Failure
//! Each step has its own message, without credentials. All of them together are bounded by `connect_timeout`.
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
use redis::{
    AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, ServerError, Value,
};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Endpoint, RedisConfig, Target};
use crate::error::{BACKEND, from_server};
use crate::gather::Gather;
use crate::script;
use crate::server::{Facts, QUESTIONS, questions};
use crate::tls;

/// Requests that wait to be written together. The library's own 50 would cut what many tasks send at once into pieces.
const REQUESTS_QUEUED: usize = 512;

/// Receives what the server sends without being asked. Must not block.
pub(crate) type OnPush = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// Opens connections to one server.
pub(crate) struct Connector {
    target: Target,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    connect_timeout: Duration,
    keepalive: Duration,
    on_push: OnPush,
}

/// A connection as callers share it.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) health: Health,
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

/// An open connection.
pub(crate) struct Opened {
    pub(crate) live: Live,
    /// Moves bytes; ends when the connection does.
    pub(crate) driver: AbortOnDropHandle<()>,
    pub(crate) facts: Facts,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Connector {
    /// Checks the configuration, and reads the certificates that it names.
    pub(crate) fn new(config: &RedisConfig, on_push: OnPush) -> Result<Self> {
        let target = config.target()?;
        let tls = match (&target.tls, &target.endpoint) {
            (Some(options), Endpoint::Tcp { host, .. }) => {
                let name = options.server_name.clone().unwrap_or_else(|| host.clone());
                let name = ServerName::try_from(name)
                    .map_err(|error| Error::config("tls: the host is no valid server name").with_source(error))?;
                Some((tls::connector(options)?, name))
            }
            _ => None,
        };
        let (connect_timeout, keepalive) = (config.connect_timeout, config.keepalive);
        Ok(Self { target, tls, connect_timeout, keepalive, on_push })
    }

    /// Opens a connection, ready for use.
    pub(crate) async fn open(&self) -> Result<Opened> {
        let opened = tokio::time::timeout(self.connect_timeout, self.open_unbounded()).await;
        opened.unwrap_or_else(|_| {
            Err(self.failed(ErrorKind::Unavailable, format!("there was no answer within {:?}", self.connect_timeout)))
        })
    }

    /// The address, for messages.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.target.endpoint
    }

    async fn open_unbounded(&self) -> Result<Opened> {
        let stream = Gather::new(self.stream().await?);
        let on_push = self.on_push.clone();
        let health = Health::default();
        let ending = health.clone();
        let config = AsyncConnectionConfig::new()
            // Each call has its own deadline, which also covers the wait for a free place.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(REQUESTS_QUEUED)
            .set_push_sender(move |push: PushInfo| {
                // The multiplexer's own word for the end of the connection, before it fails what is in flight.
                if push.kind == PushKind::Disconnection {
                    ending.set_broken();
                }
                on_push(push);
                Ok::<(), ()>(())
            });
        let (mut connection, driver) = MultiplexedConnection::new_with_config(&self.login(), stream, config)
            .await
            .map_err(|error| self.refused_login(error))?;
        let driver = AbortOnDropHandle::new(tokio::spawn(driver));
        let facts = self.prepare(&mut connection).await?;
        Ok(Opened { live: Live { connection, health }, driver, facts })
    }

    fn login(&self) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(i64::from(self.target.db))
            .set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        if let Some(username) = &self.target.username {
            info = info.set_username(username);
        }
        if let Some(password) = &self.target.password {
            info = info.set_password(password.expose());
        }
        info
    }

    async fn stream(&self) -> Result<Box<dyn Stream>> {
        let (host, port) = match &self.target.endpoint {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                return Ok(Box::new(stream.map_err(|error| self.unreachable(error))?));
            }
            Endpoint::Tcp { host, port } => (host.as_str(), *port),
        };
        let addresses: Vec<_> = match tokio::net::lookup_host((host, port)).await {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                let message = "the host name cannot be resolved".to_owned();
                return Err(self.failed(ErrorKind::Unavailable, message).with_source(error));
            }
        };
        let stream = TcpStream::connect(&*addresses).await.map_err(|error| self.unreachable(error))?;
        stream.set_nodelay(true).map_err(|error| self.unreachable(error))?;
        let keepalive = TcpKeepalive::new().with_time(self.keepalive).with_interval(self.keepalive);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(|error| self.unreachable(error))?;
        let Some((tls, name)) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let stream = tls.connect(name.clone(), stream).await.map_err(|error| self.refused_tls(error))?;
        Ok(Box::new(stream))
    }

    /// One round trip: the server's facts and all scripts.
    async fn prepare(&self, connection: &mut MultiplexedConnection) -> Result<Facts> {
        let mut pipeline = redis::Pipeline::with_capacity(QUESTIONS + script::ALL.len());
        for cmd in questions().into_iter().chain(script::ALL.iter().map(|script| script.load_command())) {
            pipeline.add_command(cmd);
        }
        let sent = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await;
        let answers = sent.map_err(|error| self.refused_login(error))?;
        let facts = Facts::read(&answers);
        facts.check()?;
        for answer in answers.iter().skip(QUESTIONS) {
            if let Value::ServerError(error) = answer {
                refused_script(error)?;
            }
        }
        Ok(facts)
    }

    fn unreachable(&self, error: io::Error) -> Error {
        let message = match error.kind() {
            io::ErrorKind::ConnectionRefused => "the connection was refused: nothing listens there".to_owned(),
            io::ErrorKind::NotFound => "there is no such socket".to_owned(),
            io::ErrorKind::PermissionDenied => "this process has no right to connect".to_owned(),
            kind => format!("it cannot be reached: {kind}"),
        };
        self.failed(ErrorKind::Unavailable, message).with_source(error)
    }

    fn refused_tls(&self, error: io::Error) -> Error {
        // rustls reports what is wrong with a certificate as InvalidData; trying again would not help.
        let (kind, what) = match error.kind() {
            io::ErrorKind::InvalidData => (ErrorKind::Config, format!("TLS failed: {error}")),
            io::ErrorKind::UnexpectedEof => {
                (ErrorKind::Unavailable, "TLS failed: the server hung up; does it speak TLS there?".to_owned())
            }
            _ => (ErrorKind::Unavailable, "TLS failed".to_owned()),
        };
        self.failed(kind, what).with_source(error)
    }

    fn refused_login(&self, error: RedisError) -> Error {
        if let Ok(server) = ServerError::try_from(error.clone()) {
            let error = from_server(&server);
            return self.failed(error.kind(), error.message().to_owned());
        }
        let (kind, what) = match error.kind() {
            redis::ErrorKind::AuthenticationFailed => (ErrorKind::Denied, "authentication failed".to_owned()),
            redis::ErrorKind::RESP3NotSupported => {
                (ErrorKind::Config, "the server is older than Redis 6; needed is 7.0 or newer, or Valkey".to_owned())
            }
            // The crate wraps a refused SELECT like this.
            redis::ErrorKind::Server(_) => {
                (ErrorKind::Config, format!("the server refused: {}", error.detail().unwrap_or("no reason given")))
            }
            _ => (ErrorKind::Unavailable, "the server hung up during login; does it speak TLS there?".to_owned()),
        };
        self.failed(kind, what).with_source(error)
    }

    fn failed(&self, kind: ErrorKind, what: String) -> Error {
        Error::new(kind, format!("cannot connect to {}: {what}", self.target.endpoint)).on_backend(BACKEND)
    }
}

/// A user without the right to load scripts may still run them by source; anything else is final.
fn refused_script(error: &ServerError) -> Result<()> {
    if error.code() == "NOPERM" { Ok(()) } else { Err(from_server(error)) }
}
