//! Accepts connections and serves HTTP/1.1 on them, within bounds and with a clean end.
//!
//! # What it promises
//! At most [`CONNECTIONS_MAX`] connections are open; more wait in the kernel's queue. A connection that does not send a complete request
//! head within [`HEAD_TIMEOUT`], or idles for so long between requests, is closed. Once `closing` is cancelled nothing is
//! accepted any more, idle connections close, and the others close after the answer to their current request.
//!
//! # Failure
//! Accepting can fail when the process runs out of file descriptors. That passes, so it is logged and tried again, with a pause that
//! keeps the log and the processor quiet.
//!
//! # How it works
//! `axum::serve` has neither the bounds nor the timeout, which is why this loop exists.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

/// Most connections at a time. Each takes a file descriptor and some 20 KiB; the usual limit is 1,024 descriptors soft, many more hard.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Time for the head of a request, and for idling between requests. Longer than load balancers keep idle connections (60 s), which would
/// otherwise now and then use one that is just being closed.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// After an accept that failed for lack of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `closing` is cancelled and every connection has ended. Dropping the future leaves connections to themselves.
pub async fn serve(listener: TcpListener, router: Router, closing: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Some((stream, peer, place)) = closing.run_until_cancelled(next(&listener, &connections)).await {
        let router = router.clone();
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            let answering = router.clone().oneshot(request.map(Body::new));
            async move { Ok::<_, Infallible>(answering.await.unwrap_or_else(|never| match never {})) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Callers that hang up, and bytes that are no HTTP: their affair.
                debug!(%error, "a connection broke");
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// The next connection, with its place among those that are open. Dropping the future loses no connection.
async fn next(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small and complete; holding them back for more would only add latency.
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "Nagle's algorithm stays on for a connection");
                }
                return (stream, peer, place);
            }
            Err(error) if is_callers(&error) => {}
            Err(error) => {
                warn!(%error, "connections cannot be accepted at the moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The caller hung up before it was accepted.
fn is_callers(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    use super::{HEAD_TIMEOUT, serve};

    // Time is virtual: it jumps ahead whenever everything waits.
    #[tokio::test(start_paused = true)]
    async fn a_head_that_never_ends_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        let router = Router::new().route("/", get(|| async { "hello" }));
        tokio::spawn(serve(listener, router, CancellationToken::new()));

        let started = Instant::now();
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("closed");
        assert!(started.elapsed() >= HEAD_TIMEOUT, "closed after {:?}", started.elapsed());
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
}
