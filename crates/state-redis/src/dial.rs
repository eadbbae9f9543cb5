//! Opens a stream to a server and logs in: resolve, TCP or unix socket, TLS, authentication.
//!
//! # Failure
//! Each step has its own message, with the address and without credentials. The caller bounds the time.
//!
//! # How it works
//! Nagle is off. The first requests over the new connection log in, all of them in one round trip.

use std::io;
use std::time::Duration;

use acteon_state_core::{Error, ErrorKind, Result};
use futures_util::future::join_all;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Protocol, RedisConfig};
use crate::error::{BACKEND, from_server};
use crate::silence::{Silence, Timeouts};
use crate::tls;
use crate::topology::{Endpoint, Login, TlsOptions};
use crate::wire::{Cmd, Failure, Farewell, OnPush, Request, ServerError, Value, Wire};

/// Where a name of the user is not given.
const USER_DEFAULT: &str = "default";

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
    pub(crate) wire: Wire,
    /// Moves bytes; ends when the connection does.
    pub(crate) driver: AbortOnDropHandle<()>,
}

/// Of the protocol.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Resp2,
    Resp3,
}

/// A step of the login.
#[derive(Clone, Copy)]
enum Step {
    Hello,
    Auth,
    Select,
    Info,
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
            Protocol::Resp2 => self.dial_with(endpoint, on_push, Version::Resp2).await,
            Protocol::Resp3 => self.dial_with(endpoint, on_push, Version::Resp3).await,
            Protocol::Auto => match self.dial_with(endpoint, on_push.clone(), Version::Resp3).await {
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    self.dial_with(endpoint, on_push, Version::Resp2).await
                }
                dialed => dialed,
            },
        }
    }

    async fn dial_with(&self, endpoint: &Endpoint, on_push: OnPush, version: Version) -> Result<Dialed> {
        let stream = Silence::new(self.stream(endpoint).await?, self.timeouts);
        let (wire, pump) = Wire::new(stream, on_push, version == Version::Resp3);
        let driver = AbortOnDropHandle::new(tokio::spawn(pump));
        let steps = self.login(version);
        // Each is a call of its own: a server that does not want us answers the first, and hangs up. They leave together all the same.
        let answers = join_all(steps.iter().map(|(_, cmd)| wire.call(Request::One(cmd), None))).await;
        let mut said = None;
        for ((step, _), answer) in steps.iter().zip(answers) {
            match answer {
                Ok(Value::ServerError(error)) => {
                    step.refused(endpoint, &error)?;
                    said = said.or(Some(error));
                }
                Ok(_) => {}
                Err(failure) => return Err(self.hung_up(endpoint, failure, said.as_ref())),
            }
        }
        Ok(Dialed { wire, driver })
    }

    /// What is sent first.
    fn login(&self, version: Version) -> Vec<(Step, Cmd)> {
        let user = self.login.username.as_deref();
        let mut steps = Vec::new();
        if version == Version::Resp3 {
            let mut hello = Cmd::new("HELLO");
            hello.arg("3");
            if let Some(password) = &self.login.password {
                hello.arg("AUTH").arg(user.unwrap_or(USER_DEFAULT)).arg(password.expose());
            }
            steps.push((Step::Hello, hello));
        } else if let Some(password) = &self.login.password {
            let mut auth = Cmd::new("AUTH");
            if let Some(user) = user {
                auth.arg(user);
            }
            auth.arg(password.expose());
            steps.push((Step::Auth, auth));
        }
        if self.db != 0 {
            let mut select = Cmd::new("SELECT");
            select.number(self.db);
            steps.push((Step::Select, select));
        }
        for (name, value) in [("LIB-NAME", env!("CARGO_PKG_NAME")), ("LIB-VER", env!("CARGO_PKG_VERSION"))] {
            let mut info = Cmd::new("CLIENT");
            info.arg("SETINFO").arg(name).arg(value);
            steps.push((Step::Info, info));
        }
        steps
    }

    /// What it means that the server hung up during the login, and may have `said` why.
    fn hung_up(&self, endpoint: &Endpoint, failure: Failure, said: Option<&ServerError>) -> Error {
        let (Failure::Lost(source) | Failure::NotSent(Some(source))) = &failure else {
            return refused_login(endpoint, failure);
        };
        if let Some(what) = tls::refusal_of_identity(self.prefix, source) {
            return failed(endpoint, ErrorKind::Config, what).with_source(source.clone());
        }
        let Some(said) = said.or_else(|| Farewell::of(source)) else { return refused_login(endpoint, failure) };
        let server = from_server(said);
        // Words that say nothing to us are no reason to do anything else than to try again.
        let kind = match server.kind() {
            ErrorKind::Internal | ErrorKind::Unsupported => ErrorKind::Unavailable,
            kind => kind,
        };
        failed(endpoint, kind, server.message()).with_source(source.clone())
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

/// The server hung up before the connection was of use.
pub(crate) fn refused_login(endpoint: &Endpoint, failure: Failure) -> Error {
    let what = "the server hung up during login; does it speak TLS there?";
    let error = failed(endpoint, ErrorKind::Unavailable, what);
    match failure {
        Failure::Lost(source) | Failure::NotSent(Some(source)) => error.with_source(source),
        Failure::TimedOut | Failure::NotSent(None) => error,
    }
}

impl Step {
    /// What it means that the server refuses a step of the login.
    fn refused(self, endpoint: &Endpoint, error: &ServerError) -> Result<()> {
        let server = from_server(error);
        let (kind, what) = match self {
            // Servers before 7.2 do not know it, and nothing depends on it.
            Self::Info => return Ok(()),
            Self::Hello if matches!(error.code(), "NOPROTO") || server.kind() == ErrorKind::Unsupported => {
                let what = format!("it does not speak RESP3, which is asked for: {}", server.message());
                (ErrorKind::Unsupported, what)
            }
            Self::Hello => (server.kind(), server.message().to_owned()),
            // The texts differ between versions; whoever logs in with RESP3 is told them by a code.
            Self::Auth if server.kind() == ErrorKind::Internal => {
                (ErrorKind::Denied, "authentication failed".to_owned())
            }
            Self::Auth => (server.kind(), server.message().to_owned()),
            Self::Select => (ErrorKind::Config, format!("the server refused: {}", error.details())),
        };
        Err(failed(endpoint, kind, what))
    }
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
