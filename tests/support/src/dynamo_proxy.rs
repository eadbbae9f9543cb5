//! A proxy in front of DynamoDB that misbehaves request by request.
//!
//! # What it promises
//! Every request is counted and meets one [`DynamoFault`], which the rule in force names for its operation. What is forwarded
//! arrives unchanged, also when its client has hung up meanwhile: what was sent cannot be taken back. A fault ends only
//! the connection of its own request.
//!
//! # Failure
//! When the upstream cannot be reached, the connection is closed without an answer.
//!
//! # How it works
//! Requests are understood as HTTP, since what has been applied must be known before its answer is lost. Each is forwarded
//! over a connection of its own.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, client, server};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DynamoFault {
    /// It passes.
    None,
    /// It reaches the server this much later.
    DelayRequest(Duration),
    /// It reaches the server at once; its answer arrives this much later.
    DelayReply(Duration),
    /// It is carried out; then the connection is closed without an answer.
    LoseReply,
    /// The connection is closed before the request reaches the server.
    LoseRequest,
    /// It does not reach the server, and gets this answer.
    Refuse(DynamoError),
    /// It is carried out, and gets this answer all the same, as from a service that failed after its work.
    ApplyThenFail(DynamoError),
}

/// An answer that is an error of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamoError {
    /// The HTTP status.
    pub status: u16,
    /// The code, such as `ThrottlingException`.
    pub code: &'static str,
}

/// A proxy on a free port of 127.0.0.1 in front of one DynamoDB that is reached without TLS.
pub struct DynamoProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

type Rule = Arc<dyn Fn(&str) -> DynamoFault + Send + Sync>;

struct Shared {
    upstream: SocketAddr,
    rule: watch::Sender<Rule>,
    received: AtomicU64,
    /// How many of them have met their fault to its end.
    settled: AtomicU64,
}

/// The connection ends here, without an answer.
#[derive(Debug)]
struct HungUp;

impl DynamoProxy {
    /// Starts a proxy in front of `upstream` that lets everything pass.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (rule, _) = watch::channel::<Rule>(Arc::new(|_| DynamoFault::None));
        let shared = Arc::new(Shared { upstream, rule, received: AtomicU64::new(0), settled: AtomicU64::new(0) });
        let acceptor = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared, acceptor })
    }

    /// What a client connects to: `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts a rule in force. It is asked once per request with the name of the operation, such as `PutItem`.
    pub fn rule(&self, rule: impl Fn(&str) -> DynamoFault + Send + Sync + 'static) {
        self.shared.rule.send_replace(Arc::new(rule));
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.rule(|_| DynamoFault::None);
    }

    /// How many requests have arrived here.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// How many requests are delayed here, or at the server, at the moment. Their clients may be gone.
    pub fn under_way(&self) -> u64 {
        // In this order: what settles in between counts as under way, and the difference is never negative.
        let settled = self.shared.settled.load(Ordering::Acquire);
        self.shared.received.load(Ordering::Relaxed) - settled
    }
}

impl Drop for DynamoProxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

impl fmt::Debug for DynamoProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoProxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Display for HungUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the proxy closes this connection")
    }
}

impl std::error::Error for HungUp {}

/// Serves connections until it is aborted, which ends them as well.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                // Of no consequence where it fails: answers come a little later.
                let _ = stream.set_nodelay(true);
                connections.spawn(serve(stream, shared.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| answer(shared.clone(), request));
    // An error is a client that hung up, or a fault that hung up on it.
    let _ = server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, HungUp> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| HungUp)?.to_bytes();
    shared.received.fetch_add(1, Ordering::Relaxed);
    let rule = shared.rule.borrow().clone();
    let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let fault = rule(target.rsplit('.').next().unwrap_or_default());
    let request = Request::from_parts(parts, Full::new(body));
    // A task of its own, which goes on when the client hangs up and this future is dropped.
    let meeting = async move {
        let outcome = meet(fault, shared.upstream, request).await;
        shared.settled.fetch_add(1, Ordering::Release);
        outcome
    };
    tokio::spawn(meeting).await.unwrap_or(Err(HungUp))
}

/// What becomes of a request under a fault.
async fn meet(
    fault: DynamoFault,
    upstream: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<Response<Full<Bytes>>, HungUp> {
    match fault {
        DynamoFault::None => forward(upstream, request).await,
        DynamoFault::DelayRequest(delay) => {
            sleep(delay).await;
            forward(upstream, request).await
        }
        DynamoFault::DelayReply(delay) => {
            let answer = forward(upstream, request).await;
            sleep(delay).await;
            answer
        }
        DynamoFault::LoseReply => forward(upstream, request).await.and(Err(HungUp)),
        DynamoFault::LoseRequest => Err(HungUp),
        DynamoFault::Refuse(error) => Ok(error.into_response()),
        DynamoFault::ApplyThenFail(error) => forward(upstream, request).await.map(|_| error.into_response()),
    }
}

async fn forward(upstream: SocketAddr, request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, HungUp> {
    let stream = TcpStream::connect(upstream).await.map_err(|_| HungUp)?;
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| HungUp)?;
    let exchange = async move {
        let (parts, body) = sender.send_request(request).await.map_err(|_| HungUp)?.into_parts();
        let body = body.collect().await.map_err(|_| HungUp)?.to_bytes();
        Ok(Response::from_parts(parts, Full::new(body)))
    };
    // Without the connection being driven nothing moves. It ends when the sender is gone.
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}

impl DynamoError {
    fn into_response(self) -> Response<Full<Bytes>> {
        let Self { status, code } = self;
        let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"injected by a test"}}"#);
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::{DynamoError, DynamoFault, DynamoProxy};

    /// A server that counts requests and answers each with `done`.
    async fn upstream() -> (SocketAddr, Arc<AtomicU64>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 1_024]).await.unwrap() > 0);
                counted.fetch_add(1, Ordering::Relaxed);
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndone")
                    .await
                    .unwrap();
            }
        });
        (address, count)
    }

    /// All that comes back until the connection is closed.
    async fn ask(proxy: &DynamoProxy) -> String {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let request = "POST / HTTP/1.1\r\nhost: x\r\nx-amz-target: DynamoDB_20120810.PutItem\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn each_fault_does_what_it_says_to_the_server_and_to_the_client() {
        let (address, applied) = upstream().await;
        let proxy = DynamoProxy::start(address).await.unwrap();
        let error = DynamoError { status: 503, code: "ServiceUnavailable" };
        let soon = Duration::from_millis(1);
        for (fault, reaches_server, answer) in [
            (DynamoFault::None, 1, "done"),
            (DynamoFault::DelayRequest(soon), 1, "done"),
            (DynamoFault::DelayReply(soon), 1, "done"),
            (DynamoFault::LoseReply, 1, ""),
            (DynamoFault::LoseRequest, 0, ""),
            (DynamoFault::Refuse(error), 0, "v20120810#ServiceUnavailable\""),
            (DynamoFault::ApplyThenFail(error), 1, "v20120810#ServiceUnavailable\""),
        ] {
            let before = applied.load(Ordering::Relaxed);
            proxy.rule(move |operation| if operation == "PutItem" { fault } else { DynamoFault::None });
            let text = ask(&proxy).await;
            assert_eq!(text.is_empty(), answer.is_empty(), "{fault:?}: {text}");
            assert!(text.contains(answer), "{fault:?}: {text}");
            assert_eq!(applied.load(Ordering::Relaxed) - before, reaches_server, "{fault:?}");
        }
        assert_eq!((proxy.received(), proxy.under_way()), (7, 0));
    }
}
