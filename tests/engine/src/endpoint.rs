//! Servers to talk to, by bytes, and a client for them.
//!
//! # Failure
//! A server that closes the connection, answers with garbage or stays silent for [`REPLY_TIMEOUT`] is an `io::Error`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use acteon_test_support::{RedisOptions, RedisServer};

use crate::command::Command;
use crate::reply::Reply;

/// A server that is silent for so long hangs. Long, since test machines stall.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// A way to talk to a server: bytes in, bytes out.
pub trait Connection {
    /// Hands the server bytes of requests, all of them.
    ///
    /// # Errors
    /// The connection is gone.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Appends what the server has to say, waiting for at least one byte.
    ///
    /// # Errors
    /// The connection is gone, or nothing comes: `UnexpectedEof` if the server has closed it.
    fn receive(&mut self, bytes: &mut Vec<u8>) -> io::Result<()>;
}

/// A server under comparison.
pub trait Endpoint {
    /// Opens a connection.
    ///
    /// # Errors
    /// The server does not take it.
    fn connect(&mut self) -> io::Result<Box<dyn Connection>>;

    /// Starts anew with an empty server, where that is cheap; says whether it did. Otherwise commands have to empty it.
    fn renew(&mut self) -> bool {
        false
    }
}

/// A server that listens on TCP, by address.
#[derive(Debug)]
pub struct TcpEndpoint {
    address: SocketAddr,
}

impl TcpEndpoint {
    /// The server of a URL such as `redis://127.0.0.1:6380`.
    ///
    /// # Errors
    /// The URL names no address.
    pub fn new(url: &str) -> io::Result<Self> {
        let address = url.strip_prefix("redis://").unwrap_or(url).trim_end_matches('/');
        let address = address.to_socket_addrs()?.next();
        Ok(Self { address: address.ok_or(io::ErrorKind::AddrNotAvailable)? })
    }
}

impl Endpoint for TcpEndpoint {
    fn connect(&mut self) -> io::Result<Box<dyn Connection>> {
        let stream = TcpStream::connect_timeout(&self.address, REPLY_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Box::new(stream))
    }
}

/// A redis-server of this process alone, which ends with it.
#[derive(Debug)]
pub struct RealRedis {
    endpoint: TcpEndpoint,
    _server: RedisServer,
}

impl RealRedis {
    /// Starts a server on a free port.
    ///
    /// # Errors
    /// There is no program, or it does not come up.
    pub fn start() -> io::Result<Self> {
        // Blocked clients whose time is over are looked for this often: commands that wait should not cost a tenth of a second.
        const HZ: &str = "hz 500";
        let settings = ["enable-debug-command yes", HZ].map(str::to_owned).into();
        let server =
            RedisServer::start(RedisOptions { settings, ..RedisOptions::default() }).map_err(io::Error::other)?;
        Ok(Self { endpoint: TcpEndpoint { address: server.address() }, _server: server })
    }
}

impl Endpoint for RealRedis {
    fn connect(&mut self) -> io::Result<Box<dyn Connection>> {
        self.endpoint.connect()
    }
}

impl Connection for TcpStream {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn receive(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        match self.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                bytes.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }
}

/// A connection that sends commands and reads whole replies.
pub struct Client {
    connection: Box<dyn Connection>,
    received: Vec<u8>,
    /// How much of `received` has been read.
    position: usize,
}

impl Client {
    /// Connects to a server.
    ///
    /// # Errors
    /// The server does not take the connection.
    pub fn connect(endpoint: &mut dyn Endpoint) -> io::Result<Self> {
        Ok(Self { connection: endpoint.connect()?, received: Vec::new(), position: 0 })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.connection.send(bytes)
    }

    /// Sends commands in one piece, without waiting for replies.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send_commands(&mut self, commands: &[Command]) -> io::Result<()> {
        let mut bytes = Vec::new();
        commands.iter().for_each(|command| command.encode(&mut bytes));
        self.send(&bytes)
    }

    /// Reads the next reply or push.
    ///
    /// # Errors
    /// It does not come, or is none.
    pub fn receive(&mut self) -> io::Result<Reply> {
        loop {
            if let Some((reply, length)) = Reply::decode(&self.received[self.position..])? {
                self.position += length;
                return Ok(reply);
            }
            self.received.drain(..self.position);
            self.position = 0;
            self.connection.receive(&mut self.received)?;
        }
    }

    /// Sends a command and reads one reply.
    ///
    /// # Errors
    /// As for [`receive`](Self::receive).
    pub fn call(&mut self, command: &Command) -> io::Result<Reply> {
        self.send_commands(std::slice::from_ref(command))?;
        self.receive()
    }
}
