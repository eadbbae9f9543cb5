//! Sockets that listen, and the connections they bring.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, lookup_host};
use tokio_rustls::TlsAcceptor;

use crate::config::UnixConfig;

/// Connections that the kernel keeps until they are accepted, as Redis has.
const BACKLOG: i32 = 511;
/// How often the kernel asks a silent peer before it gives it up, as Redis has.
const KEEPALIVE_ASKS: u32 = 3;

/// A socket that listens.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, TlsAcceptor),
    Unix(UnixListener, SocketFile),
}

/// A connection that has just come.
pub(crate) enum Incoming {
    Tcp(TcpStream, Origin),
    Tls(TcpStream, TlsAcceptor, Origin),
    Unix(UnixStream, Origin),
}

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// As CLIENT LIST shows it.
    pub(crate) peer_address: String,
    pub(crate) local_address: String,
    /// From this machine.
    pub(crate) is_local: bool,
    pub(crate) is_unix: bool,
    /// The number of its file descriptor.
    pub(crate) descriptor: i64,
}

/// The path of a unix socket, which is removed with its listener.
pub(crate) struct SocketFile(PathBuf);

impl Listener {
    pub(crate) async fn accept(&self) -> io::Result<Incoming> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let origin = Origin::of_tcp(&stream, peer)?;
                Ok(Incoming::Tcp(stream, origin))
            }
            Self::Tls(listener, acceptor) => {
                let (stream, peer) = listener.accept().await?;
                let origin = Origin::of_tcp(&stream, peer)?;
                Ok(Incoming::Tls(stream, acceptor.clone(), origin))
            }
            Self::Unix(listener, file) => {
                let (stream, _) = listener.accept().await?;
                let address = format!("{}:0", file.0.display());
                let origin = Origin {
                    peer_address: address.clone(),
                    local_address: address,
                    is_local: true,
                    is_unix: true,
                    descriptor: i64::from(stream.as_raw_fd()),
                };
                Ok(Incoming::Unix(stream, origin))
            }
        }
    }
}

impl Incoming {
    pub(crate) fn origin(&self) -> &Origin {
        match self {
            Self::Tcp(_, origin) | Self::Tls(.., origin) | Self::Unix(_, origin) => origin,
        }
    }

    /// Says why it is not taken, as far as that can be said at once: the socket is new, so there is room.
    pub(crate) fn refuse(self, text: &str) {
        // Nothing can be done about a reader that is not there, and before a handshake nothing can be said.
        let _ = match self {
            Self::Tcp(stream, _) => stream.try_write(text.as_bytes()),
            Self::Unix(stream, _) => stream.try_write(text.as_bytes()),
            Self::Tls(..) => Ok(0),
        };
    }
}

impl Origin {
    fn of_tcp(stream: &TcpStream, peer: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            peer_address: peer.to_string(),
            local_address: stream.local_addr()?.to_string(),
            is_local: peer.ip().to_canonical().is_loopback(),
            is_unix: false,
            descriptor: i64::from(stream.as_raw_fd()),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // If somebody has removed it already, all the better.
        let _ = fs::remove_file(&self.0);
    }
}

/// Listens on the first address of `host:port` that can be had.
pub(crate) async fn bind_tcp(address: &str) -> io::Result<TcpListener> {
    let mut last_error = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for address in lookup_host(address).await? {
        match bind_address(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn bind_address(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // So that `0.0.0.0` and `::` can be listed beside each other.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Listens on a path.
pub(crate) fn bind_unix(config: &UnixConfig) -> io::Result<(UnixListener, SocketFile)> {
    remove_abandoned(&config.path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&config.path)?)?;
    let file = SocketFile(config.path.clone());
    // Before anybody can connect.
    if let Some(mode) = config.mode {
        fs::set_permissions(&config.path, Permissions::from_mode(mode))?;
    }
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((UnixListener::from_std(socket.into())?, file))
}

/// Removes a socket that nobody listens to any more; anything else in its place stays.
fn remove_abandoned(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Who listens but does not accept must not keep us waiting.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(()) | Err(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
    }
}

/// Sends replies at once, and lets the kernel find out about peers that are gone.
pub(crate) fn tune(stream: &TcpStream, keepalive: Option<Duration>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if let Some(idle) = keepalive {
        let between = (idle / KEEPALIVE_ASKS).max(Duration::from_secs(1));
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval(between).with_retries(KEEPALIVE_ASKS);
        SockRef::from(stream).set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}
