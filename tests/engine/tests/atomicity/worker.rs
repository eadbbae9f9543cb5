//! A thread with a connection of its own.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use acteon_engine::{Client, ClientOptions, Engine, EngineConfig, Flow, Instance, InstanceConfig};
use acteon_engine_tests::reply::Reply;

/// A command that has no reply after this time hangs. Long, since test machines stall.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest time between two looks at a command that waits, should a wake-up be lost: then it is late, which shows.
const LOOK: Duration = Duration::from_secs(5);

/// An empty instance. Few segments let keys share them, many keep them apart.
pub(crate) fn instance(segments: usize, seed: u64) -> Arc<Instance> {
    let config = EngineConfig { segments, hash_seed: Some(seed), ..EngineConfig::default() };
    Instance::new(Engine::new(config), InstanceConfig { seed, ..InstanceConfig::default() })
}

/// Runs `work` on as many threads, which begin together; what they return, in the order of their numbers.
pub(crate) fn run<R: Send>(
    instance: &Arc<Instance>,
    threads: usize,
    work: impl Fn(usize, &mut Worker) -> R + Sync,
) -> Vec<R> {
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        let (barrier, work) = (&barrier, &work);
        let spawn = |number| {
            scope.spawn(move || {
                let mut worker = Worker::connect(instance);
                barrier.wait();
                work(number, &mut worker)
            })
        };
        let handles: Vec<_> = (0..threads).map(spawn).collect();
        handles.into_iter().map(|handle| handle.join().expect("no worker panics")).collect()
    })
}

/// A connection that belongs to the thread that opened it.
pub(crate) struct Worker {
    client: Client,
    output: Vec<u8>,
}

impl Worker {
    pub(crate) fn connect(instance: &Arc<Instance>) -> Self {
        let thread = thread::current();
        let waker = Box::new(move || thread.unpark());
        Self {
            client: Client::connect(instance, ClientOptions { waker, ..ClientOptions::default() }),
            output: Vec::new(),
        }
    }

    /// Carries out a line of plain words.
    pub(crate) fn line(&mut self, line: &str) -> Reply {
        let words: Vec<&str> = line.split(' ').collect();
        self.call(&words)
    }

    /// Carries out one command, waiting as long as it waits.
    pub(crate) fn call(&mut self, arguments: &[impl AsRef<[u8]>]) -> Reply {
        let arguments: Vec<&[u8]> = arguments.iter().map(AsRef::as_ref).collect();
        let begin = Instant::now();
        let mut flow = self.client.execute(&arguments, now_us(), &mut self.output);
        loop {
            assert!(begin.elapsed() < REPLY_TIMEOUT, "no reply to {}", arguments[0].escape_ascii());
            flow = match flow {
                Flow::Done => break,
                Flow::Retry => {
                    thread::yield_now();
                    self.client.execute(&arguments, now_us(), &mut self.output)
                }
                Flow::Blocked { until_us } => {
                    let left_us = until_us.map(|until_us| until_us.saturating_sub(now_us()));
                    thread::park_timeout(left_us.map_or(LOOK, Duration::from_micros).min(LOOK));
                    self.client.resume(now_us(), &mut self.output)
                }
                Flow::Close => panic!("the connection was closed"),
            };
        }
        let (reply, length) = Reply::decode(&self.output).expect("a reply").expect("a whole reply");
        assert_eq!(length, self.output.len(), "one command, one reply: {}", self.output.escape_ascii());
        self.output.clear();
        reply
    }
}

/// The number in a reply, be it an integer or the text of one.
pub(crate) fn number(reply: &Reply) -> Option<i64> {
    std::str::from_utf8(reply.bytes()?).ok()?.parse().ok()
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}
