//! Any bytes at all, into the decoders and into sessions: for the tests of this package and for the targets in `fuzz/`.
//!
//! # What it promises
//! Each function takes bytes and panics if something that holds for all bytes does not hold for these:
//! - [`request`]: however requests are cut into pieces, they read the same, and so does the error that ends them;
//! - [`token`]: what is read of a reply lies within the input, and a reply is not there before its last byte;
//! - [`file()`]: a file is taken over up to where it makes no sense, and what was taken over is written and read again unchanged;
//! - [`session`] and [`Sessions`]: whatever connections send, what they get is replies of the protocol, one after the other.
//!
//! # Bounds
//! The engine has a memory bound, requests are small, replies are thrown away. Commands that ask for much at little cost (a string of
//! half a gigabyte, a million random members, a script that never ends) do as they are told, which shows nothing here: they are left
//! out, see `is_costly`.
//!
//! # How it works
//! Everything happens on the calling thread, and time is a number, so that equal bytes do the same each time.

use std::ops::ControlFlow;
use std::sync::Arc;

use acteon_engine::import::{ImportOptions, Importer};
use acteon_engine::rdb::{FileFacts, Unsupported, write_file};
use acteon_engine::{Client, ClientOptions, Engine, EngineConfig, EvictionConfig, Flow, Instance, InstanceConfig};
use acteon_resp::{
    Arguments, Protocol, ReplyWriter, RequestDecoder, RequestError, RequestLimits, TokenLimits, frame,
    token as read_token,
};

use crate::families::SCRIPTS;
use crate::pools::THROUGH;
use crate::reply::Reply;

/// Connections of [`session`].
pub const CONNECTIONS: usize = 3;

/// Small enough that a few bytes reach them.
const LIMITS: RequestLimits =
    RequestLimits { args_max: 1_024, bulk_bytes_max: 64 << 10, inline_bytes_max: 4 << 10, is_authenticated: true };

/// The engine's own bound. A command that would exceed it is refused.
const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// With enough segments for keys to lie apart.
const SMALL: EngineConfig = EngineConfig {
    segments: 4,
    memory_bytes_max: Some(MEMORY_BYTES_MAX),
    eviction: EvictionConfig::DEFAULT,
    hash_seed: Some(0),
};

/// A request that has not ended by then is given up, with its connection.
const PENDING_BYTES_MAX: usize = 1 << 20;

/// Reads `data` as requests, whole and in pieces.
///
/// # Panics
/// The pieces read otherwise than the whole.
pub fn request(data: &[u8]) {
    for limits in [LIMITS, RequestLimits { is_authenticated: false, ..LIMITS }] {
        let whole = requests(&[data], &limits);
        // Lengths that the bytes themselves choose, so that every cut can come up.
        let lengths = data.iter().map(|byte| usize::from(*byte) % 7 + 1);
        assert_eq!(requests(&cut(data, lengths), &limits), whole);
        if data.len() <= 512 {
            assert_eq!(requests(&cut(data, std::iter::repeat(1)), &limits), whole);
        }
    }
}

/// Reads `data` as replies.
///
/// # Panics
/// More is read than there is, or a reply is there before its end.
pub fn token(data: &[u8]) {
    let limits = TokenLimits { bulk_bytes_max: 64 << 10, line_bytes_max: 4 << 10, items_max: 1_024, depth_max: 16 };
    let mut rest = data;
    while let Ok(Some((_, length))) = read_token(rest, &limits) {
        assert!(length > 0);
        rest = &rest[length..];
    }
    rest = data;
    while let Ok(Some((_, length))) = frame(rest, &limits) {
        assert!(matches!(frame(&rest[..length - 1], &limits), Ok(None)), "a reply before its end");
        rest = &rest[length..];
    }
}

/// Sends `data` to a new server on several connections: a byte says to which one and how much, as many bytes follow.
///
/// # Panics
/// The server panics, or says what is no reply.
pub fn session(data: &[u8]) {
    let mut sessions = Sessions::new();
    let mut rest = data;
    while let Some((control, after)) = rest.split_first() {
        let (connection, length) =
            (usize::from(control % CONNECTIONS as u8), 1 + usize::from(control / CONNECTIONS as u8));
        let (bytes, after) = after.split_at(length.min(after.len()));
        sessions.send(connection, bytes);
        rest = after;
    }
}

/// Takes `data` over as an append-only file, and as what follows the header of an RDB file of the newest version.
///
/// # Panics
/// What was taken over does not come back from a file that is written here.
pub fn file(data: &[u8]) {
    let dump = [b"REDIS0011", data].concat();
    for data in [&dump, data] {
        let engine = Engine::new(SMALL);
        let instance = Instance::new(engine.clone(), InstanceConfig::default());
        let options = ImportOptions { unsupported: Unsupported::Skip, now_ms: 0 };
        // Most end with an error; what came before it has to be whole.
        _ = Importer::new(&instance, options).append_only_file("fuzzed", data);

        let mut written = Vec::new();
        let snapshot = engine.cut(0, || ()).expect("no other snapshot runs");
        write_file(&FileFacts::default(), snapshot, &mut written).expect("memory takes everything");
        let again = Engine::new(SMALL);
        let instance = Instance::new(again.clone(), InstanceConfig::default());
        let mut importer = Importer::new(&instance, options);
        importer.rdb("written", &*written).expect("what is written here is right");
        assert_eq!(again.digest(0), engine.digest(0), "it came back otherwise");
    }
}

/// A server with some connections.
#[derive(Debug)]
pub struct Sessions {
    instance: Arc<Instance>,
    connections: Vec<Connection>,
    now_us: u64,
}

impl Sessions {
    /// A new, empty server.
    pub fn new() -> Self {
        let instance = Instance::new(Engine::new(SMALL), InstanceConfig::default());
        let connections = (0..CONNECTIONS).map(|_| Connection::open(&instance)).collect();
        Self { instance, connections, now_us: 1_700_000_000_000_000 }
    }

    /// Sends bytes on a connection, of which there are [`CONNECTIONS`]. One that was closed is opened anew; so is one that waits
    /// for what nobody will do.
    ///
    /// # Panics
    /// The server panics, or says what is no reply.
    pub fn send(&mut self, connection: usize, bytes: &[u8]) {
        /// Keys that housekeeping visits: all.
        const BUDGET: u32 = 10_000;
        let connection = &mut self.connections[connection];
        connection.input.extend_from_slice(bytes);
        if connection.advance(&mut self.now_us).is_break() {
            *connection = Connection::open(&self.instance);
        }
        self.instance.housekeeping(self.now_us, BUDGET);
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug)]
struct Connection {
    client: Client,
    decoder: RequestDecoder,
    arguments: Arguments,
    input: Vec<u8>,
    output: Vec<u8>,
    waits: Option<Option<u64>>,
}

impl Connection {
    fn open(instance: &Arc<Instance>) -> Self {
        Self {
            client: Client::connect(instance, ClientOptions::default()),
            decoder: RequestDecoder::new(),
            arguments: Arguments::default(),
            input: Vec::new(),
            output: Vec::new(),
            waits: None,
        }
    }

    /// Carries out what was sent, up to a command that waits. Breaks if the connection has come to its end.
    fn advance(&mut self, now_us: &mut u64) -> ControlFlow<()> {
        self.resume(now_us)?;
        let mut position = 0;
        while self.waits.is_none() {
            let input = &self.input[position..];
            match self.decoder.decode(input, &LIMITS, &mut self.arguments) {
                Ok(Some(consumed)) => {
                    let arguments: Vec<&[u8]> = self.arguments.iter(input).collect();
                    if !is_costly(&arguments) {
                        self.waits = execute(&mut self.client, &arguments, now_us, &mut self.output)?;
                    }
                    position += consumed;
                    self.check_output();
                }
                Ok(None) => break,
                Err(error) => {
                    error.write_reply(&mut ReplyWriter::new(&mut self.output, Protocol::Resp2));
                    self.check_output();
                    return ControlFlow::Break(());
                }
            }
        }
        self.input.drain(..position);
        if self.input.len() > PENDING_BYTES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Ends a wait: by what others have done meanwhile, or by letting its time pass.
    fn resume(&mut self, now_us: &mut u64) -> ControlFlow<()> {
        /// A day. Whoever waits for longer waits in vain: clocks end somewhere.
        const WAIT_US_MAX: u64 = 24 * 3_600 * 1_000_000;
        let mut flow = self.client.resume(*now_us, &mut self.output);
        if let Flow::Blocked { until_us: Some(until_us) } = flow
            && until_us <= *now_us + WAIT_US_MAX
        {
            *now_us = until_us.max(*now_us);
            flow = self.client.resume(*now_us, &mut self.output);
        }
        self.check_output();
        self.waits = None;
        if flow == Flow::Done { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// Whatever was written is a number of whole replies.
    fn check_output(&mut self) {
        let mut rest = &*self.output;
        while !rest.is_empty() {
            match Reply::decode(rest) {
                Ok(Some((_, length))) => rest = &rest[length..],
                other => panic!("no reply: {} ({other:?})", rest.escape_ascii()),
            }
        }
        self.output.clear();
    }
}

/// Carries out one command; until when it waits, if it does. Breaks if the connection is to be closed.
fn execute(
    client: &mut Client,
    arguments: &[&[u8]],
    now_us: &mut u64,
    output: &mut Vec<u8>,
) -> ControlFlow<(), Option<Option<u64>>> {
    const COMMAND_US: u64 = 1_000;
    /// On one thread only a pause holds commands up; each attempt lets more time pass, up to years.
    const ATTEMPTS_MAX: u32 = 48;
    *now_us += COMMAND_US;
    for attempt in 0..ATTEMPTS_MAX {
        match client.execute(arguments, *now_us, output) {
            Flow::Done => return ControlFlow::Continue(None),
            Flow::Blocked { until_us } => return ControlFlow::Continue(Some(until_us)),
            Flow::Close => return ControlFlow::Break(()),
            Flow::Retry => *now_us += 1 << attempt,
        }
    }
    // Paused for longer than anybody lives.
    ControlFlow::Break(())
}

/// Whether a command may take as much memory or time as it says, and says much.
fn is_costly(arguments: &[&[u8]]) -> bool {
    const SIZED: [&[u8]; 10] = [
        b"setrange",
        b"setbit",
        b"bitfield",
        b"srandmember",
        b"hrandfield",
        b"zrandmember",
        b"eval",
        b"eval_ro",
        b"evalsha",
        b"evalsha_ro",
    ];
    let Some(name) = arguments.first() else { return false };
    let is = |names: &[&[u8]]| names.iter().any(|other| other.eq_ignore_ascii_case(name));
    let is_unknown = |text: Option<&&[u8]>| text.is_some_and(|text| !is_known_script(text));
    is(&[b"debug"])
        || is(&[b"eval", b"eval_ro"]) && is_unknown(arguments.get(1))
        || is(&[b"script"]) && is_unknown(arguments.get(2))
        || is(&SIZED) && arguments[1..].iter().any(|argument| !is_known_script(argument) && names_much(argument))
}

/// Scripts that are known to end.
fn is_known_script(text: &[u8]) -> bool {
    SCRIPTS.iter().chain(THROUGH).any(|script| script.as_bytes() == text)
}

/// A number that is large, but no larger than what any command takes.
fn names_much(argument: &[u8]) -> bool {
    let digits = |run: &[u8]| (4..=19).contains(&run.len());
    argument.split(|byte| !byte.is_ascii_digit()).any(digits)
}

type Requests = (Vec<Vec<Vec<u8>>>, Option<RequestError>);

/// All requests of a stream that arrives in these pieces, and the error that ends it.
fn requests(pieces: &[&[u8]], limits: &RequestLimits) -> Requests {
    let (mut decoder, mut arguments) = (RequestDecoder::new(), Arguments::default());
    let (mut input, mut position, mut found) = (Vec::new(), 0, Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&input[position..], limits, &mut arguments) {
                Ok(Some(length)) => {
                    assert!(length > 0);
                    found.push(arguments.iter(&input[position..]).map(<[u8]>::to_vec).collect());
                    position += length;
                }
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

fn cut(mut data: &[u8], lengths: impl Iterator<Item = usize>) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    for length in lengths {
        let (piece, rest) = data.split_at(length.min(data.len()));
        pieces.push(piece);
        data = rest;
        if data.is_empty() {
            break;
        }
    }
    pieces
}
