//! Where to listen, and every limit with its default.
//!
//! How much may wait for a client that reads slowly is a setting of the instance, since clients can change it
//! ([`OutputLimits`](acteon_engine::OutputLimits)); it is kept here all the same.

use std::path::PathBuf;
use std::time::Duration;

/// Connections at a time, as Redis has.
const CLIENTS_MAX_DEFAULT: usize = 10_000;
/// Silence on an idle TCP connection before the kernel asks whether the other side is still there, as Redis has.
const TCP_KEEPALIVE_DEFAULT: Duration = Duration::from_secs(300);
/// Bytes of one argument, and of a string that grows, as Redis has.
const BULK_BYTES_MAX_DEFAULT: usize = 512 << 20;
/// Bytes of requests that wait on one connection, as Redis has: two of the largest arguments.
const QUERY_BUFFER_BYTES_MAX_DEFAULT: usize = 1 << 30;
/// Time for what was answered to reach its reader when the server or a connection ends.
const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Where a server listens, and what its connections may cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenConfig {
    /// Addresses for plain TCP, each `host:port`; port 0 chooses a free one.
    pub tcp: Vec<String>,
    /// A listener with encryption.
    pub tls: Option<TlsConfig>,
    /// A socket in the file system.
    pub unix: Option<UnixConfig>,
    /// Take connections of other machines although no password is set. Clients can change it by `CONFIG SET protected-mode`.
    pub is_open_to_all: bool,
    /// What connections may cost.
    pub limits: Limits,
}

/// A listener with encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Addresses, each `host:port`; port 0 chooses a free one.
    pub listen: Vec<String>,
    /// The certificate of the server with those above it, PEM.
    pub certificate_file: PathBuf,
    /// Its private key, PEM.
    pub key_file: PathBuf,
    /// Certificates that sign those of clients, PEM. With it, a client without such a certificate is not let in.
    pub client_ca_file: Option<PathBuf>,
}

/// A socket in the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixConfig {
    /// Its path. A socket that was left behind there is replaced.
    pub path: PathBuf,
    /// Its permissions, such as `0o770`; otherwise those that the process gives to new files.
    pub mode: Option<u32>,
}

/// What connections may cost. Clients can change the first five by `CONFIG SET`, in whole seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; more are refused. Default 10,000.
    pub clients_max: usize,
    /// A client that neither sends nor reads for so long is disconnected, unless it waits or is subscribed. Default: never.
    pub idle_timeout: Option<Duration>,
    /// Silence after which the kernel asks whether the other side is still there. `None`: it never asks. Default 5 minutes.
    pub tcp_keepalive: Option<Duration>,
    /// Bytes of one argument, and of a string that grows. Default 512 MiB, which is the most: a larger number counts as that.
    pub bulk_bytes_max: usize,
    /// Bytes of requests that wait on one connection: a longer request ends it, and beyond that no more is read for now.
    /// Default 1 GiB.
    pub query_buffer_bytes_max: usize,
    /// Time for what was answered to reach its reader when the server or a connection ends. Default 10 seconds.
    pub drain_timeout: Duration,
    /// Time for a TLS handshake. Default 10 seconds.
    pub handshake_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients_max: CLIENTS_MAX_DEFAULT,
            idle_timeout: None,
            tcp_keepalive: Some(TCP_KEEPALIVE_DEFAULT),
            bulk_bytes_max: BULK_BYTES_MAX_DEFAULT,
            query_buffer_bytes_max: QUERY_BUFFER_BYTES_MAX_DEFAULT,
            drain_timeout: DRAIN_TIMEOUT_DEFAULT,
            handshake_timeout: HANDSHAKE_TIMEOUT_DEFAULT,
        }
    }
}
