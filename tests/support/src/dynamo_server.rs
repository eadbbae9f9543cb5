//! An emulator of DynamoDB on a port of its own, inside this process.
//!
//! # What it promises
//! Each one is empty and separate from all others, and answers as soon as [`start`](DynamoServer::start) has returned. Stopping it
//! breaks its connections off, as a crash would; what was stored survives that, and is gone when the value is dropped.
//!
//! # What it is not
//! It never throttles, never conflicts and never reads stale data. Tests of those put something of their own in between.
//!
//! # How it works
//! A thread with a runtime of its own, so that it answers whatever the test's runtime is doing, and ends when that does not.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::{self, JoinHandle};

use dynoxide::Database;
use dynoxide::server::serve_with_shutdown;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;

use crate::server_process::StartError;

/// An emulator. See the module.
pub struct DynamoServer {
    address: SocketAddr,
    database: Database,
    running: Option<Running>,
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Requests are short and take turns at the database: more threads would only wait for each other.
const THREADS: usize = 2;
/// Connections that may wait to be accepted: some tests open hundreds at once.
const CONNECTIONS_QUEUED: u32 = 1_024;

impl DynamoServer {
    /// Starts an empty one.
    ///
    /// # Errors
    /// No port could be bound, or no database be opened in memory.
    pub fn start() -> Result<Self, StartError> {
        let database = Database::memory().map_err(io::Error::other)?;
        let (address, running) = serve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), database.clone())?;
        Ok(Self { address, database, running: Some(running) })
    }

    /// What a client connects to: `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address of [`url`](Self::url), for a proxy or a raw client.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks all connections off and refuses new ones. Without effect on a stopped one.
    pub fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            // Neither fails while the thread lives; if it has panicked, it is stopped.
            let _ = stop.send(());
            let _ = thread.join();
        }
    }

    /// Starts again on the same port, with what was stored before. A running one is stopped first.
    ///
    /// # Errors
    /// The port is taken.
    pub fn restart(&mut self) -> Result<(), StartError> {
        self.stop();
        let (_, running) = serve(self.address, self.database.clone())?;
        self.running = Some(running);
        Ok(())
    }
}

impl Drop for DynamoServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(address: SocketAddr, database: Database) -> io::Result<(SocketAddr, Running)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    let listener = {
        let _inside = runtime.enter();
        let socket = TcpSocket::new_v4()?;
        // A restart need not wait for the connections of the one before.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(CONNECTIONS_QUEUED)?
    };
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel();
    let thread = thread::Builder::new().name("dynamodb".to_owned()).spawn(move || {
        runtime.block_on(answer(listener, database, stopped));
        // Requests under way are broken off.
        runtime.shutdown_background();
    })?;
    Ok((address, Running { stop, thread }))
}

async fn answer(listener: TcpListener, database: Database, stopped: oneshot::Receiver<()>) {
    tokio::select! {
        result = serve_with_shutdown(listener, database, std::future::pending()) => {
            if let Err(error) = result {
                eprintln!("the DynamoDB emulator ended: {error}");
            }
        }
        // Also when the value was lost without being dropped in order.
        _ = stopped => {}
    }
}
