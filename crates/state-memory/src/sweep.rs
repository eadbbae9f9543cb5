//! Gives the memory of expired keys back, and evicts what writers have left to be evicted, in the background.
//!
//! # Guarantees
//! A task of the calling runtime, started by the first call made inside of one and again if that runtime goes away. It keeps
//! no store alive, and ends when the last handle is closed or dropped. Whether a key is seen never depends on it.
//!
//! # Failure
//! Without a runtime nothing is swept; expired keys then go when they are met, and stay absent to everyone until then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle as Runtime;

use crate::store::Shared;

/// Pause between sweeps that found all there was: looking at a thousand quiet segments takes some 20 µs.
const PAUSE: Duration = Duration::from_millis(100);
/// Keys per step, before other tasks get their turn: well under a millisecond.
const STEP_KEYS_MAX: u32 = 2_000;

/// Whether a task is at work.
#[derive(Debug, Default)]
pub(crate) struct Sweeper {
    is_running: AtomicBool,
}

impl Shared {
    /// Starts the task unless it runs or there is no runtime.
    #[inline]
    pub(crate) fn ensure_swept(self: &Arc<Self>) {
        // Relaxed: at worst a second look is taken below.
        if !self.sweeper.is_running.load(Ordering::Relaxed) {
            self.start_sweeping();
        }
    }

    #[cold]
    fn start_sweeping(self: &Arc<Self>) {
        let Ok(runtime) = Runtime::try_current() else { return };
        if !self.sweeper.is_running.swap(true, Ordering::AcqRel) {
            runtime.spawn(sweep(Running(Arc::downgrade(self))));
        }
    }
}

/// Says that the task has ended, also when its runtime drops it.
struct Running(Weak<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.sweeper.is_running.store(false, Ordering::Release);
        }
    }
}

async fn sweep(running: Running) {
    while let Some(ran_out) = step(&running.0) {
        if ran_out {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// One step; whether more is left, or `None` when nobody needs it any more.
fn step(shared: &Weak<Shared>) -> Option<bool> {
    let shared = shared.upgrade()?;
    if !shared.is_in_use() {
        return None;
    }
    let now_ms = shared.now().ms();
    if let Some(disk) = &shared.disk {
        disk.tick(now_ms);
    }
    let expired = shared.engine.expire_cycle(now_ms, STEP_KEYS_MAX);
    let evicted = shared.engine.evict_cycle(now_ms, STEP_KEYS_MAX);
    Some(expired.ran_out || evicted.ran_out)
}
