//! A TCP proxy that misbehaves on request.
//!
//! # Guarantees
//! Bytes that pass, pass unchanged and in order. A [`Fault`] applies to open and to new connections, from the next bytes on.
//! [`FaultProxy::cut`] ends all open connections and leaves the fault as it is; [`FaultProxy::reset`] ends them by an RST. Dropping the proxy ends everything.
//!
//! # Failure
//! When the upstream cannot be reached, the client's connection is closed: to the client that is a server that just died.
//!
//! # How it works
//! Two tasks per connection copy one direction each. Before it hands on what it read, a task looks at the fault in force; one that
//! holds bytes back waits for the next change of fault. So after a black hole the held bytes arrive, as TCP would resend them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

/// What a [`FaultProxy`] does with the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Everything passes.
    None,
    /// Each piece of data passes this much later, in both directions: a round trip takes at least twice as long.
    Delay(Duration),
    /// Nothing passes and nothing closes, in both directions, until the next fault is set. What was held back then arrives.
    Blackhole,
    /// Requests pass; after this many bytes of replies, counted over all connections, further replies are lost for good.
    /// The connection stays open: the operation happened and its caller never hears of it.
    LoseReplies {
        /// How many bytes of replies still pass.
        after_bytes: u64,
    },
    /// Requests pass; after this many bytes of replies, counted over all connections, a connection with more to say is closed.
    CutReplies {
        /// How many bytes of replies still pass.
        after_bytes: u64,
    },
    /// Requests pass; a connection with something to reply is closed in that direction instead, and in that one only: its client reads the end,
    /// and may go on sending.
    HalfClose,
    /// New connections are closed as soon as they are accepted. Open ones work.
    Refuse,
}

/// A proxy on a free port of 127.0.0.1 in front of one upstream.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    open: Arc<AtomicUsize>,
    acceptor: JoinHandle<()>,
}

/// The fault in force, seen by all tasks.
#[derive(Clone, Debug)]
struct State {
    fault: Fault,
    // Shared, so that the bytes of all connections count towards one limit; renewed with each fault.
    reply_bytes_passed: Arc<AtomicU64>,
    // Connections that began under an older number are to end.
    cuts: u64,
    // How, at the last time.
    is_reset: bool,
}

const PIECE_BYTES_MAX: usize = 16 * 1024; // pieces much below a socket buffer let a fault act in the middle of a large reply

impl FaultProxy {
    /// Starts a proxy in front of `upstream` that lets everything pass.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (state, watcher) = watch::channel(State::new(Fault::None, 0));
        let open = Arc::new(AtomicUsize::new(0));
        let acceptor = tokio::spawn(accept(listener, upstream, watcher, Arc::clone(&open)));
        Ok(Self { address, state, open, acceptor })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts `fault` in force, also for open connections, and starts its byte count anew.
    pub fn set(&self, fault: Fault) {
        self.state.send_modify(|state| *state = State::new(fault, state.cuts));
    }

    /// Closes all open connections, also those that are held back. New ones are accepted.
    pub fn cut(&self) {
        self.end_all(false);
    }

    /// Resets all open connections, in both directions (RST): what is under way in buffers is thrown away, and both ends read an error instead of an
    /// end. New ones are accepted.
    pub fn reset(&self) {
        self.end_all(true);
    }

    fn end_all(&self, is_reset: bool) {
        self.state.send_modify(|state| {
            state.cuts += 1;
            state.is_reset = is_reset;
        });
    }

    /// How many connections are open through the proxy. Closing is noticed a moment later.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.acceptor.abort(); // its connections are in a JoinSet of its own, which ends them
    }
}

impl State {
    fn new(fault: Fault, cuts: u64) -> Self {
        Self { fault, reply_bytes_passed: Arc::default(), cuts, is_reset: false }
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, state: watch::Receiver<State>, open: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // An error here concerns one client that went away while it was queued.
                let Ok((client, _)) = accepted else { continue };
                if state.borrow().fault != Fault::Refuse {
                    connections.spawn(connect(client, upstream, state.clone(), Counted::new(&open)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection until either side closes it or it is cut.
async fn connect(mut client: TcpStream, upstream: SocketAddr, mut state: watch::Receiver<State>, _counted: Counted) {
    let cuts = state.borrow_and_update().cuts;
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        return;
    };
    // Small requests must not wait for each other, or every test would measure Nagle's algorithm.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let requests = copy(client_read, server_write, Direction::Requests, state.clone());
    let replies = copy(server_read, client_write, Direction::Replies, state.clone());
    let is_reset = tokio::select! {
        () = requests => false,
        () = replies => false,
        cut = state.wait_for(|state| state.cuts > cuts) => cut.is_ok_and(|state| state.is_reset),
    };
    if is_reset {
        // Without lingering, closing throws away what was not sent and sends an RST. A connection that is already closed has nothing to reset.
        let _ = client.set_zero_linger();
        let _ = server.set_zero_linger();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Requests,
    Replies,
}

/// Copies one direction until its source ends, its target is gone, or the fault ends the connection.
async fn copy(
    mut source: ReadHalf<'_>,
    mut target: WriteHalf<'_>,
    direction: Direction,
    mut state: watch::Receiver<State>,
) {
    let mut piece = vec![0; PIECE_BYTES_MAX];
    while let Ok(length @ 1..) = source.read(&mut piece).await {
        let Some(passing) = admit(length, direction, &mut state).await else {
            return;
        };
        if target.write_all(&piece[..passing.bytes]).await.is_err() {
            return;
        }
        match passing.then {
            Then::GoOn => {}
            Then::Close => return,
            Then::HalfClose => {
                // What the server says from now on is read and thrown away, so that it never waits for us.
                if target.shutdown().await.is_err() {
                    return;
                }
                while let Ok(1..) = source.read(&mut piece).await {}
                return;
            }
        }
    }
}

/// How much of a piece passes.
struct Passing {
    bytes: usize,
    then: Then,
}

/// What becomes of the connection afterwards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    Close,
    HalfClose,
}

/// Applies the fault in force to a piece of `length` bytes, waiting as long as it says. `None` when the proxy is gone.
async fn admit(length: usize, direction: Direction, state: &mut watch::Receiver<State>) -> Option<Passing> {
    loop {
        let current = state.borrow_and_update().clone();
        match (current.fault, direction) {
            (Fault::Blackhole, _) => state.changed().await.ok()?,
            (Fault::Delay(delay), _) => {
                sleep(delay).await;
                return Some(Passing { bytes: length, then: Then::GoOn });
            }
            (Fault::LoseReplies { after_bytes }, Direction::Replies) => {
                let bytes = current.take_reply_bytes(length, after_bytes);
                return Some(Passing { bytes, then: Then::GoOn });
            }
            (Fault::CutReplies { after_bytes }, Direction::Replies) => {
                let bytes = current.take_reply_bytes(length, after_bytes);
                return Some(Passing { bytes, then: if bytes < length { Then::Close } else { Then::GoOn } });
            }
            (Fault::HalfClose, Direction::Replies) => return Some(Passing { bytes: 0, then: Then::HalfClose }),
            _ => {
                return Some(Passing { bytes: length, then: Then::GoOn });
            }
        }
    }
}

impl State {
    /// Counts a reply of `length` bytes and returns how many of them are within the limit.
    fn take_reply_bytes(&self, length: usize, limit: u64) -> usize {
        let before = self.reply_bytes_passed.fetch_add(length as u64, Ordering::Relaxed);
        usize::try_from(limit.saturating_sub(before)).map_or(length, |left| left.min(length))
    }
}

/// Counts an open connection for as long as it lives, also when its task is aborted.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, State};

    #[test]
    fn reply_bytes_of_all_connections_count_towards_one_limit() {
        let one = State::new(Fault::LoseReplies { after_bytes: 10 }, 0);
        let other = one.clone();
        assert_eq!(one.take_reply_bytes(6, 10), 6);
        assert_eq!(other.take_reply_bytes(6, 10), 4);
        assert_eq!(one.take_reply_bytes(6, 10), 0);
    }
}
