//! A server for one test, and a client that speaks bytes.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
use acteon_engine_disk::Disk;
use acteon_engine_server::{Counters, EngineServer, ListenConfig, Stopper};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

/// What takes so long hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that runs until it is dropped.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) tls_address: Option<SocketAddr>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stopper: Stopper,
    pub(crate) serving: JoinHandle<()>,
}

impl TestServer {
    pub(crate) async fn start(change: impl FnOnce(&mut ListenConfig)) -> Self {
        Self::start_with(InstanceConfig::default(), change).await
    }

    pub(crate) async fn start_with(instance: InstanceConfig, change: impl FnOnce(&mut ListenConfig)) -> Self {
        Self::start_over(Engine::new(EngineConfig::default()), instance, None, change).await
    }

    pub(crate) async fn start_over(
        engine: Engine,
        instance: InstanceConfig,
        disk: Option<Arc<Disk>>,
        change: impl FnOnce(&mut ListenConfig),
    ) -> Self {
        let mut config = ListenConfig { tcp: vec!["127.0.0.1:0".to_owned()], ..ListenConfig::default() };
        change(&mut config);
        let (instance, clock) = (Instance::new(engine, instance), Arc::new(|| 1_000_000_000));
        let server = EngineServer::bind_with_disk(instance, config, clock, disk).await.expect("free");
        Self {
            address: server.addresses()[0],
            tls_address: server.tls_addresses().first().copied(),
            counters: server.counters(),
            stopper: server.stopper(),
            serving: tokio::spawn(server.serve()),
        }
    }

    pub(crate) async fn connect(&self) -> Connection<TcpStream> {
        Connection(TcpStream::connect(self.address).await.expect("listening"))
    }

    /// A client whose system keeps little for it, so that what it does not read stays with the server.
    pub(crate) async fn connect_narrowly(&self) -> Connection<TcpStream> {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(64 << 10).expect("a size");
        Connection(socket.connect(self.address).await.expect("listening"))
    }

    /// Stops it, and waits for its end.
    pub(crate) async fn stop(self) {
        self.stopper.stop();
        within(self.serving).await.expect("no panic");
    }
}

/// A client.
pub(crate) struct Connection<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.0.write_all(bytes.as_ref())).await.expect("writable");
        within(self.0.flush()).await.expect("writable");
    }

    /// The next bytes, as many as `expected` has, are these.
    pub(crate) async fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let seen = self.receive(expected.len()).await;
        assert_eq!(String::from_utf8_lossy(&seen), String::from_utf8_lossy(expected));
    }

    pub(crate) async fn receive(&mut self, count: usize) -> Vec<u8> {
        let mut seen = vec![0; count];
        within(self.0.read_exact(&mut seen)).await.expect("readable");
        seen
    }

    /// Everything up to the end of the connection, however it ends.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut seen = Vec::new();
        // A connection that was reset has ended as well.
        let _ = within(self.0.read_to_end(&mut seen)).await;
        seen
    }

    pub(crate) async fn call(&mut self, request: &str, reply: &str) {
        self.send(request).await;
        self.expect(reply).await;
    }
}

/// Fails the test when this takes too long.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it hangs")
}

/// Waits for a condition.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            yield_now().await;
        }
    })
    .await;
}
