//! A Sentinel that says what a test tells it to say: the truth, something old, a lie, or nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// It takes connections and stays silent.
    Nothing,
    /// Every answer is an error.
    Error,
    /// The primary is on this port since this epoch. `SENTINEL MASTER` gives another address if there is one.
    Primary { port: u16, epoch: u64, in_master: Option<u16> },
}

/// Runs until it is dropped.
pub(super) struct FakeSentinel {
    port: u16,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    says: watch::Sender<Says>,
    subscriptions: AtomicUsize,
    questions: AtomicUsize,
}

impl FakeSentinel {
    pub(super) async fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let says = watch::Sender::new(says);
        let shared = Arc::new(Shared { says, subscriptions: AtomicUsize::new(0), questions: AtomicUsize::new(0) });
        let mut tasks = JoinSet::new();
        let served = shared.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, served.clone()));
            }
        });
        Self { port, shared, _tasks: tasks }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Says something else from now on, and tells its subscribers that there is another primary.
    pub(super) fn say(&self, says: Says) {
        self.shared.says.send_replace(says);
    }

    /// How often somebody has subscribed.
    pub(super) fn subscriptions(&self) -> usize {
        self.shared.subscriptions.load(Ordering::Relaxed)
    }

    /// How often it was asked for the primary.
    pub(super) fn questions(&self) -> usize {
        self.shared.questions.load(Ordering::Relaxed)
    }
}

/// Answers one connection, until it ends.
async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut says = shared.says.subscribe();
    let port = stream.local_addr().unwrap().port();
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut subscribed = false;
    loop {
        let reply = tokio::select! {
            command = command(&mut reader) => match command {
                Some(command) => {
                    if command.starts_with("subscribe") {
                        subscribed = true;
                        shared.subscriptions.fetch_add(1, Ordering::Relaxed);
                    }
                    if command.starts_with("sentinel get-master-addr") {
                        shared.questions.fetch_add(1, Ordering::Relaxed);
                    }
                    let says = *says.borrow_and_update();
                    reply(&command, says, port)
                }
                None => return,
            },
            Ok(()) = says.changed(), if subscribed => switched(),
        };
        if writer.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The next command in lower case, its words apart by spaces; `None` at the end of the connection.
async fn command(reader: &mut (impl AsyncBufReadExt + Unpin)) -> Option<String> {
    let mut words = Vec::new();
    for _ in 0..number(reader, '*').await? {
        let mut word = vec![0; number(reader, '$').await? + b"\r\n".len()];
        reader.read_exact(&mut word).await.ok()?;
        words.push(String::from_utf8_lossy(&word).trim_end().to_lowercase());
    }
    Some(words.join(" "))
}

async fn number(reader: &mut (impl AsyncBufReadExt + Unpin), sign: char) -> Option<usize> {
    let mut line = String::new();
    reader.read_line(&mut line).await.ok()?;
    line.trim_end().strip_prefix(sign)?.parse().ok()
}

fn reply(command: &str, says: Says, port_of_sentinel: u16) -> String {
    let (port, epoch, in_master) = match says {
        Says::Nothing => return String::new(),
        Says::Error => return "-ERR this is no time for questions\r\n".to_owned(),
        Says::Primary { port, epoch, in_master } => (port, epoch, in_master.unwrap_or(port)),
    };
    let mut words = command.split(' ');
    match (words.next(), words.next()) {
        (Some("hello"), _) => format!("%1\r\n{}{}", bulk("server"), bulk("redis")),
        (Some("subscribe"), _) => {
            let channels = command.split(' ').skip(1).zip(1..);
            channels.map(|(name, count)| format!(">3\r\n{}{}:{count}\r\n", bulk("subscribe"), bulk(name))).collect()
        }
        (Some("sentinel"), Some("master")) => {
            let fields = [("ip", "127.0.0.1"), ("port", &in_master.to_string()), ("config-epoch", &epoch.to_string())]
                .map(|(name, value)| bulk(name) + &bulk(value));
            format!("%{}\r\n{}", fields.len(), fields.concat())
        }
        (Some("sentinel"), Some("get-master-addr-by-name")) => {
            format!("*2\r\n{}{}", bulk("127.0.0.1"), bulk(&port.to_string()))
        }
        (Some("sentinel"), Some("myid")) => bulk(&port_of_sentinel.to_string()),
        (Some("sentinel"), _) => "*0\r\n".to_owned(),
        _ => "+OK\r\n".to_owned(),
    }
}

/// What a Sentinel publishes once there is another primary.
fn switched() -> String {
    let text = "mymaster 127.0.0.1 1 127.0.0.1 2";
    format!(">3\r\n{}{}{}", bulk("message"), bulk("+switch-master"), bulk(text))
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}
