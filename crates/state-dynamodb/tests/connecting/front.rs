//! Stands before the emulator, which knows no rights: refuses some actions as AWS does, and counts connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// See the module.
pub(crate) struct Front {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _acceptor: AbortOnDropHandle<()>,
}

/// A request or an answer, as it came.
struct Message {
    bytes: Vec<u8>,
    /// Such as `PutItem`.
    action: Option<String>,
}

impl Front {
    pub(crate) async fn refusing(upstream: SocketAddr, actions: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = accepted.clone();
        let acceptor = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(pass(client, upstream, actions));
            }
        });
        Self { address, accepted, _acceptor: AbortOnDropHandle::new(acceptor) }
    }

    /// How many connections were opened so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Answers one connection's requests, until either side ends.
async fn pass(client: TcpStream, upstream: SocketAddr, refused: &[&str]) -> io::Result<()> {
    let mut client = BufReader::new(client);
    let mut server = BufReader::new(TcpStream::connect(upstream).await?);
    loop {
        let request = read(&mut client).await?;
        let answer = match request.action {
            Some(action) if refused.contains(&action.as_str()) => refusal(&action),
            _ => {
                server.get_mut().write_all(&request.bytes).await?;
                read(&mut server).await?.bytes
            }
        };
        client.get_mut().write_all(&answer).await?;
    }
}

fn refusal(action: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"User: arn:aws:iam::1:user/ada is not authorized to perform: dynamodb:{action}"}}"#
    );
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/x-amz-json-1.0\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Reads a head and the body whose length it names: neither side of this test sends anything else.
async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Message> {
    let (mut bytes, mut action, mut length) = (Vec::new(), None, 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(line.as_bytes());
        if line == "\r\n" {
            break;
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
            "x-amz-target" => action = value.trim().split('.').next_back().map(str::to_owned),
            _ => {}
        }
    }
    let head = bytes.len();
    bytes.resize(head + length, 0);
    stream.read_exact(&mut bytes[head..]).await?;
    Ok(Message { bytes, action })
}
