//! What a server does with requests that have come together, from their bytes to those of the replies, without sockets.

use acteon_engine::{Client, ClientOptions, Engine, EngineConfig, Flow, Instance, InstanceConfig};
use acteon_resp::{Pipeline, RequestLimits, write_request};

use crate::meter::{KEYS, repeat};
use crate::{Outcome, Path};

pub(crate) const PATHS: &[Path] = &[
    Path { name: "pipeline-16-get", run: get },
    Path { name: "pipeline-16-set", run: set },
    Path { name: "pipeline-16-incr", run: incr },
    Path { name: "pipeline-16-lpush", run: lpush },
    Path { name: "pipeline-16-hset", run: hset },
];

/// Requests of one operation: redis-benchmark's usual pipeline.
const REQUESTS: u32 = 16;
/// Different operations; their keys are those of a small database.
const PIPELINES: u32 = KEYS / REQUESTS;
const ARGS_MAX: usize = 4;
const NOW_US: u64 = 1_000_000_000;
const VALUE: &[u8] = &[b'x'; 64];

fn get() -> Outcome {
    run(&[b"SET", b"", VALUE], &[b"GET", b""])
}

fn set() -> Outcome {
    run(&[b"SET", b"", VALUE], &[b"SET", b"", VALUE])
}

fn incr() -> Outcome {
    run(&[b"SET", b"", b"41"], &[b"INCR", b""])
}

/// One long list, as redis-benchmark has it.
fn lpush() -> Outcome {
    run(&[b"PING"], &[b"LPUSH", b"list", VALUE])
}

/// One hash that is too large to lie in one piece, whose fields are written over.
fn hset() -> Outcome {
    run(&[b"HSET", b"hash", b"", VALUE], &[b"HSET", b"hash", b"", VALUE])
}

/// Prepares each key by one command, and has pipelines of the other one counted. An empty argument stands for the key.
fn run(prepare: &[&[u8]], command: &[&[u8]]) -> Outcome {
    let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
    let mut client = Client::connect(&instance, ClientOptions::default());
    let keys: Vec<String> = (0..KEYS).map(|at| format!("key:{at:012}")).collect();
    let mut out = Vec::new();
    for key in &keys {
        client.execute(&with_key(prepare, key), NOW_US, &mut out);
    }
    let inputs: Vec<Vec<u8>> = keys.chunks(REQUESTS as usize).map(|keys| requests(command, keys)).collect();
    repeat(|turn| {
        out.clear();
        serve(&mut client, &inputs[(turn % PIPELINES) as usize], &mut out);
    });
    Ok(())
}

fn requests(command: &[&[u8]], keys: &[String]) -> Vec<u8> {
    let mut input = Vec::new();
    keys.iter().for_each(|key| write_request(&mut input, &with_key(command, key)));
    input
}

fn with_key<'a>(command: &[&'a [u8]], key: &'a str) -> Vec<&'a [u8]> {
    command.iter().map(|arg| if arg.is_empty() { key.as_bytes() } else { *arg }).collect()
}

/// As a session of the server does.
fn serve(client: &mut Client, input: &[u8], out: &mut Vec<u8>) {
    let pipeline = Pipeline::read(input, &RequestLimits::default(), REQUESTS as usize);
    assert_eq!(pipeline.len(), REQUESTS as usize);
    client.look_up(pipeline.args(input));
    let mut rest = input;
    let mut batch = client.batch(&|| NOW_US);
    for request in pipeline.requests() {
        let mut args: [&[u8]; ARGS_MAX] = [&[]; ARGS_MAX];
        let count = request.args(rest).len();
        args.iter_mut().zip(request.args(rest)).for_each(|(to, arg)| *to = arg);
        let flow = batch.execute(&args[..count], out);
        assert!(flow == Flow::Done && !out.starts_with(b"-"), "answered {}", out.escape_ascii());
        rest = &rest[request.bytes()..];
    }
}
