//! Short commands ask the allocator for nothing, from the bytes of the request to those of the reply.
//!
//! In a program of its own: the allocator counts for the whole process, so there is one test.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use acteon_engine::{Client, ClientOptions, Engine, EngineConfig, Flow, Instance, InstanceConfig};
use acteon_resp::{Pipeline, RequestLimits, write_request};

/// Counts how often it is asked.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator as it came.
#[expect(unsafe_code, reason = "an allocator cannot be written otherwise")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Requests of a pipeline.
const REQUESTS: usize = 16;
/// Times after which all that grows with the keys has grown.
const WARM_UP: usize = 3;
/// Enough for all replies.
const REPLY_BYTES: usize = 4_096;

/// Carries out a pipeline of one command on several keys as a server does, some times to make room, and again. Returns how often the allocator was
/// asked the last time.
fn allocations(client: &mut Client, command: &[&[u8]]) -> u64 {
    let mut input = Vec::new();
    for number in 0..REQUESTS {
        let key = format!("{}:{number}", command[0].escape_ascii()).into_bytes();
        let mut args = command.to_vec();
        args.insert(1, &key);
        write_request(&mut input, &args);
    }
    let mut out = Vec::with_capacity(REPLY_BYTES);
    for _ in 0..WARM_UP {
        serve(client, &input, &mut out);
        out.clear();
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    serve(client, &input, &mut out);
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

fn serve(client: &mut Client, input: &[u8], out: &mut Vec<u8>) {
    let pipeline = Pipeline::read(input, &RequestLimits::default(), REQUESTS);
    assert_eq!(pipeline.len(), REQUESTS);
    client.look_up(pipeline.args(input));
    let mut rest = input;
    let mut batch = client.batch(&|| 1_000_000);
    for request in pipeline.requests() {
        let mut args: [&[u8]; 8] = [&[]; 8];
        let count = request.args(rest).len();
        args.iter_mut().zip(request.args(rest)).for_each(|(to, arg)| *to = arg);
        assert_eq!(batch.execute(&args[..count], out), Flow::Done);
        rest = &rest[request.bytes()..];
    }
    assert!(!out.starts_with(b"-"), "{}", out.escape_ascii());
}

#[test]
fn short_commands_on_keys_that_are_there_allocate_nothing() {
    let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
    let mut client = Client::connect(&instance, ClientOptions::default());
    let commands: [&[&[u8]]; 7] = [
        &[b"SET", b"value"],
        &[b"SET", b"value", b"PX", b"60000"],
        &[b"INCR"],
        &[b"EXISTS"],
        &[b"HSET", b"field", b"value"],
        &[b"HGET", b"field"],
        &[b"LLEN"],
    ];
    for command in commands {
        let count = allocations(&mut client, command);
        assert_eq!(count, 0, "{}", command.join(&b' ').escape_ascii());
    }
    // It copies what was there, so the counting is known to count.
    assert_ne!(allocations(&mut client, &[b"SET", b"value", b"GET"]), 0);
    for number in 0..REQUESTS {
        let key = format!("GET:{number}");
        client.execute(&[b"SET", key.as_bytes(), &[b'x'; 100]], 1_000_000, &mut Vec::new());
    }
    assert_eq!(allocations(&mut client, &[b"GET"]), 0);
}
