//! A table that could not be reached when the store was opened: looked for again until it is there.
//!
//! # What it promises
//! Until the table has been seen to, every operation fails at once, with the reason for which the last look at it failed, and
//! nothing of it is sent. From then on nothing is different from a store that was opened with the table in reach.
//!
//! # Failure
//! What a store can do is fixed when it is opened, and was assumed while the table could not be seen. Should it turn out that other
//! regions write to it as well, locks and conditions do not hold: operations go on failing, by an error that asks for a restart.

use std::sync::Weak;
use std::time::Duration;

use acteon_state_core::{Error, ErrorKind, Result};
use parking_lot::RwLock;

use crate::config::DynamoConfig;
use crate::store::Inner;
use crate::table::{self, Facts};

/// The pauses between two looks double from the first to the last of these, with jitter.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How far the table has been seen to.
#[derive(Debug)]
pub(crate) struct Preparation(RwLock<Stage>);

#[derive(Debug)]
enum Stage {
    Done(Facts),
    /// Not yet, or not at all.
    Failed {
        kind: ErrorKind,
        message: String,
    },
}

impl Stage {
    fn failed(error: &Error) -> Self {
        Self::Failed { kind: error.kind(), message: error.message().to_owned() }
    }
}

impl Preparation {
    pub(crate) const fn done(facts: Facts) -> Self {
        Self(RwLock::new(Stage::Done(facts)))
    }

    pub(crate) fn failed(error: &Error) -> Self {
        Self(RwLock::new(Stage::failed(error)))
    }

    /// # Errors
    /// Why the table is not ready. Nothing was sent.
    pub(crate) fn check(&self) -> Result<()> {
        match &*self.0.read() {
            Stage::Done(_) => Ok(()),
            Stage::Failed { kind, message } => Err(Error::new(*kind, message.clone())),
        }
    }

    /// What is known about the table, once it is ready.
    pub(crate) fn facts(&self) -> Option<Facts> {
        match &*self.0.read() {
            Stage::Done(facts) => Some(facts.clone()),
            Stage::Failed { .. } => None,
        }
    }

    fn set(&self, stage: Stage) {
        *self.0.write() = stage;
    }
}

/// Looks for the table until it is ready, or the store is closed or gone.
pub(crate) async fn go_on(store: Weak<Inner>, config: DynamoConfig) {
    let mut pause = PAUSE_MIN;
    loop {
        let Some(inner) = store.upgrade() else { return };
        let closed = inner.closed.clone();
        let client = inner.client.clone();
        drop(inner);
        tokio::select! {
            () = closed.cancelled() => return,
            () = tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
        let prepared = tokio::select! {
            () = closed.cancelled() => return,
            prepared = table::prepare(&client, &config) => prepared,
        };
        let Some(inner) = store.upgrade() else { return };
        match prepared {
            Ok(facts) if facts.conditions_hold() => {
                tracing::info!(table = config.table_name, "the table is reached");
                return inner.preparation.set(Stage::Done(facts));
            }
            Ok(_) => {
                let error = Error::config(format!(
                    "table_name: other regions write to table {} as well, which could not be seen at the start: locks and \
                     conditions do not hold there; restart, so that they are refused by name, or use a table of one region",
                    config.table_name
                ));
                tracing::error!(%error, "the store stays out of use");
                return inner.preparation.set(Stage::failed(&error));
            }
            Err(error) => {
                tracing::debug!(%error, "the table is not ready yet");
                inner.preparation.set(Stage::failed(&error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use acteon_state_core::{Effect, Error, ErrorKind};

    use super::Preparation;

    #[test]
    fn a_failed_look_is_the_reason_of_every_operation_and_nothing_was_applied() {
        let lost = Error::new(ErrorKind::Unavailable, "nobody there").with_effect(Effect::Unknown);
        let preparation = Preparation::failed(&lost);
        let error = preparation.check().unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
        assert_eq!(error.message(), "nobody there");
        assert!(preparation.facts().is_none());
    }
}
