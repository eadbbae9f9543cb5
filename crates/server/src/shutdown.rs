//! Stopping: signals, and the two tokens that everything else looks at.
//!
//! # What it promises
//! The first SIGTERM or SIGINT begins a drain, see [`Server::run`](crate::Server::run). The second one ends it at once: what is under way is
//! cut off. SIGHUP reads the rules again. They are listened to from before the store is opened, which may take long; a signal that comes
//! while it is, or while anything else starts, ends the start in order.

use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::app::App;
use crate::start_error::StartError;

/// When to stop. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    begun: CancellationToken,
    hurried: CancellationToken,
    /// Whose rules SIGHUP reads again, once there are some.
    app: Arc<OnceLock<App>>,
}

impl Shutdown {
    /// A shutdown that follows the signals of this process. SIGHUP changes nothing before there are [rules](Self::reload_rules_of).
    ///
    /// # Errors
    /// When the system does not let us listen to signals.
    pub fn on_signals() -> Result<Self, StartError> {
        let shutdown = Self::default();
        let signals = Signals::listen().map_err(|error| StartError::new("signals cannot be listened to", error))?;
        tokio::spawn(signals.follow(shutdown.clone()));
        Ok(shutdown)
    }

    /// From now on, SIGHUP reads the rules of `app` again. There is one: that of the first call.
    pub fn reload_rules_of(&self, app: &App) {
        let _ = self.app.set(app.clone());
    }

    /// Does `work`, unless the drain begins before it is done: then it is dropped.
    pub async fn unless_begun<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.begun() => None,
        }
    }

    /// Begins the drain.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Ends the drain at once, whether it was begun or not.
    pub fn hurry(&self) {
        self.begun.cancel();
        self.hurried.cancel();
    }

    /// Waits for the drain to begin.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Waits until somebody is in a hurry.
    pub async fn hurried(&self) {
        self.hurried.cancelled().await;
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn follow(mut self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => stop(&shutdown, "SIGTERM"),
                _ = self.interrupt.recv() => stop(&shutdown, "SIGINT"),
                _ = self.hang_up.recv() => {
                    if let Some(app) = shutdown.app.get() {
                        // The result is in the log, and readable at /v1/rules.
                        drop(app.reload_rules("SIGHUP").await);
                    }
                }
            }
        }
    }
}

fn stop(shutdown: &Shutdown, signal: &'static str) {
    if shutdown.begun.is_cancelled() {
        warn!(signal, "stopping at once");
        shutdown.hurry();
    } else {
        info!(signal, "stopping; once more to stop at once");
        shutdown.begin();
    }
}
