//! What an outage writes to the log. Alone in its program: another test that meets the same faults without a subscriber could
//! switch their lines off for this one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use acteon_state_core::layer::circuit_breaker::Thresholds;
use acteon_state_core::layer::degrade::{Bounds, CALM, Degradation, MakeStandIn, Options, Policies};
use acteon_state_core::layer::{Around, Layered, Layers};
use acteon_state_core::operation::{Call, Reply};
use acteon_state_core::{Error, ErrorKind, Get, Increment, Result, StateKey, StateStore};
use acteon_state_memory::MemoryStore;
use futures_util::future::BoxFuture;
use tracing_subscriber::fmt::MakeWriter;

/// Whether the backend is down.
#[derive(Clone, Debug, Default)]
struct Switch(Arc<AtomicBool>);

impl Around for Switch {
    async fn around<'a, T: Reply + 'a>(
        &'a self,
        _call: &'a Call<'a>,
        attempt: impl Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    ) -> Result<T> {
        if self.0.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "switched off by the test"));
        }
        attempt().await
    }
}

/// What was logged.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self, part: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn store(switch: &Switch) -> Arc<dyn StateStore> {
    let policies = [("closed", Degradation::Closed), ("open", Degradation::Open), ("local", Degradation::Local)];
    let options = Options {
        policies: Policies::new(Degradation::Closed, policies),
        last_seen: Bounds::default(),
        stand_in: Some(MakeStandIn::new(|| Ok(Arc::new(MemoryStore::default())))),
    };
    let layers = Layers {
        tracing: true,
        degrade: Some(options),
        breaker: Some(Thresholds { failures: 3, open_for: Duration::from_millis(100) }),
        ..Layers::default()
    };
    layers.wrap(Layered::wrap(Arc::new(MemoryStore::default()), switch.clone()))
}

fn key(kind: &str) -> StateKey {
    StateKey::new("shop", "acme", kind, "a").unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_a_few_lines_with_counts_however_many_calls_meet_it() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let switch = Switch::default();
    let store = store(&switch);
    switch.0.store(true, Ordering::SeqCst);
    // Twelve seconds of calls: the breaker tries in vain more than a hundred times.
    for n in 0..1_200 {
        assert!(store.get(&key("closed"), Get::default()).await.is_err());
        store.increment(&key("local"), Increment::by(1)).await.unwrap();
        if n % 2 == 0 {
            assert!(store.get(&key("open"), Get::default()).await.is_err());
        }
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    switch.0.store(false, Ordering::SeqCst);
    tokio::time::advance(CALM).await;
    store.ping().await.unwrap();

    let began = log.lines("calls are degraded");
    assert!(matches!(&*began, [line] if line.contains("switched off by the test")), "{began:?}");
    let failed = log.lines("state call");
    assert_eq!(failed.len(), 3, "at 0, 5 and 10 s: {failed:?}");
    assert!(failed[1].contains("passed_over=7"), "{failed:?}");
    let opened = log.lines("circuit opened");
    assert_eq!(opened.len(), 1, "{opened:?}");
    let ended = log.lines("answers again");
    assert!(
        matches!(&*ended, [line] if line.contains("closed=1200 open=600 stale=0 local=1200")
            && line.contains("lasted_ms=13000")),
        "{ended:?}"
    );
    assert_eq!(log.lines("").len(), 6, "nothing else was logged: {:?}", log.lines(""));
}
