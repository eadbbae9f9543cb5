//! The engine in this process, behind the bytes of the protocol.
//!
//! Everything happens on the calling thread: a request is carried out when its bytes are sent. A connection that waits for data goes
//! on when it is read from; if then nothing can end its wait any more, that is an error instead of a wait.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use acteon_engine::{Client, ClientOptions, Engine, EngineConfig, Flow, Instance, InstanceConfig};
use acteon_resp::{Arguments, Protocol, ReplyWriter, RequestDecoder, RequestLimits};

use crate::endpoint::{Connection, Endpoint, REPLY_TIMEOUT};

/// An engine with its own keyspace.
pub struct EmbeddedEngine {
    instance: Arc<Instance>,
}

impl EmbeddedEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::of(Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default()))
    }

    /// An engine that others use as well.
    pub fn of(instance: Arc<Instance>) -> Self {
        Self { instance }
    }
}

impl Default for EmbeddedEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl Endpoint for EmbeddedEngine {
    fn connect(&mut self) -> io::Result<Box<dyn Connection>> {
        /// More keys than any sequence lets expire.
        const EXPIRED_MAX: u32 = 10_000;
        self.instance.housekeeping(now_us(), EXPIRED_MAX);
        Ok(Box::new(EmbeddedConnection {
            client: Client::connect(&self.instance, ClientOptions::default()),
            decoder: RequestDecoder::new(),
            arguments: Arguments::default(),
            input: Vec::new(),
            output: Vec::new(),
            waits: None,
            is_closed: false,
        }))
    }

    fn renew(&mut self) -> bool {
        *self = Self::new();
        true
    }
}

struct EmbeddedConnection {
    client: Client,
    decoder: RequestDecoder,
    arguments: Arguments,
    /// Bytes that were sent and not yet carried out.
    input: Vec<u8>,
    output: Vec<u8>,
    /// The current command waits for data, until the time inside.
    waits: Option<Option<u64>>,
    is_closed: bool,
}

/// How long to wait before trying again what others or the clock hold up.
const PAUSE: Duration = Duration::from_millis(1);

impl EmbeddedConnection {
    /// Carries out what was sent, up to a command that waits.
    fn advance(&mut self) {
        let mut position = 0;
        while self.waits.is_none() && !self.is_closed {
            let input = &self.input[position..];
            match self.decoder.decode(input, &RequestLimits::default(), &mut self.arguments) {
                Ok(Some(consumed)) => {
                    let arguments: Vec<&[u8]> = self.arguments.iter(input).collect();
                    let flow = execute(&mut self.client, &arguments, &mut self.output);
                    position += consumed;
                    self.note(flow);
                }
                Ok(None) => break,
                Err(error) => {
                    error.write_reply(&mut ReplyWriter::new(&mut self.output, Protocol::Resp2));
                    self.is_closed = true;
                }
            }
        }
        self.input.drain(..position);
    }

    fn note(&mut self, flow: Flow) {
        match flow {
            Flow::Done | Flow::Retry => self.waits = None,
            Flow::Blocked { until_us } => self.waits = Some(until_us),
            Flow::Close => self.is_closed = true,
        }
    }
}

impl Connection for EmbeddedConnection {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.input.extend_from_slice(bytes);
        self.advance();
        Ok(())
    }

    fn receive(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let begin = Instant::now();
        loop {
            let flow = self.client.resume(now_us(), &mut self.output);
            self.note(flow);
            self.advance();
            if !self.output.is_empty() {
                bytes.append(&mut self.output);
                return Ok(());
            }
            if self.is_closed {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Only this thread could send the data that a wait without an end needs.
            if !matches!(self.waits, Some(Some(_))) || begin.elapsed() > REPLY_TIMEOUT {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(PAUSE);
        }
    }
}

fn execute(client: &mut Client, arguments: &[&[u8]], output: &mut Vec<u8>) -> Flow {
    loop {
        match client.execute(arguments, now_us(), output) {
            Flow::Retry => thread::sleep(PAUSE),
            flow => return flow,
        }
    }
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}
