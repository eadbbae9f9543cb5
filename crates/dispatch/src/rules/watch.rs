//! Reloads the rules when their directory changes.
//!
//! # What it promises
//! A change is noticed through the operating system, whatever way an editor saves: writing in place, renaming a
//! temporary file over the old one, or swapping a link. A burst of changes leads to one reload, at the latest
//! [`BURST_MAX`] after its beginning. A reload that fails is logged with every problem, and the old rules stay.
//!
//! # Failure
//! Starting fails when the system refuses to watch the directory. When events are lost later, the next one makes up for
//! them, since a reload always reads everything; `SIGHUP` or the HTTP endpoint reload without any event.

use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::rules::handle::Rules;

/// A burst of changes is over when nothing happened for so long.
pub const QUIET: Duration = Duration::from_millis(200);
/// A burst that does not end is cut off after so long.
pub const BURST_MAX: Duration = Duration::from_secs(2);

impl Rules {
    /// Watches the directory in a task of its own until `cancel` is cancelled. Must be called within a tokio runtime.
    ///
    /// Changes made after this returns are noticed; the ones before are not.
    ///
    /// # Errors
    /// [`notify::Error`] when the system cannot watch the directory.
    pub fn watch(self: &Arc<Self>, cancel: CancellationToken) -> Result<JoinHandle<()>, notify::Error> {
        let changed = Arc::new(Notify::new());
        let watcher = start(self, Arc::clone(&changed))?;
        let rules = Arc::clone(self);
        Ok(tokio::spawn(async move {
            // Dropping the watcher ends the watch, so it lives exactly as long as the task.
            let _watcher = watcher;
            while cancel.run_until_cancelled(changed.notified()).await.is_some() {
                let burst = cancel.run_until_cancelled(end_of_burst(&changed));
                if burst.await.is_none() {
                    return;
                }
                reload(&rules).await;
            }
        }))
    }
}

fn start(rules: &Rules, changed: Arc<Notify>) -> Result<RecommendedWatcher, notify::Error> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
        Ok(event) if is_change(event.kind) => changed.notify_one(),
        Ok(_) => {}
        // The queue overflowed or the like: something may have changed, so look.
        Err(error) => {
            warn!(%error, "watching the rules directory went wrong; reloading to be sure");
            changed.notify_one();
        }
    })?;
    // Fixed rules have nothing to watch; the task then only waits for its end.
    if let Some(directory) = rules.directory() {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Reads are no changes. Counting them would make every reload the cause of the next one.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

async fn end_of_burst(changed: &Notify) {
    let cut_off = Instant::now() + BURST_MAX;
    let quiet = async { while timeout(QUIET, changed.notified()).await.is_ok() {} };
    // Either way a reload follows, so it does not matter which one ended the wait.
    let _ = timeout_at(cut_off, quiet).await;
}

async fn reload(rules: &Arc<Rules>) {
    let reading = Arc::clone(rules);
    match tokio::task::spawn_blocking(move || reading.reload()).await {
        Ok(Ok(set)) => info!(generation = set.generation(), rules = set.rules().len(), "rules reloaded"),
        Ok(Err(error)) => error!(%error, "rules not reloaded; the old ones stay in force"),
        Err(error) => error!(%error, "the reload did not finish; the old rules stay in force"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use crate::rules::handle::Rules;
    use crate::rules::load::LoadOptions;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let poll = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, poll).await.unwrap_or_else(|_| panic!("never happened: {what}"));
    }

    #[tokio::test]
    async fn saves_by_rename_and_in_place_are_noticed_and_bad_files_change_nothing() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let rules = Arc::new(Rules::load(directory.path(), LoadOptions::default()).expect("empty directory"));
        let cancel = CancellationToken::new();
        let task = rules.watch(cancel.clone()).expect("watchable");

        let hidden = directory.path().join(".a.yaml.swp");
        let file = directory.path().join("a.yaml");
        fs::write(&hidden, "rules: [{ name: renamed, action: allow }]").expect("writable");
        fs::rename(&hidden, &file).expect("renamable");
        until("reload after a rename", || rules.current().rules().len() == 1).await;

        fs::write(&file, "rules: [{ name: one, action: allow }, { name: two, action: allow }]").expect("writable");
        until("reload after a write in place", || rules.current().rules().len() == 2).await;

        fs::write(&file, "rules: [broken").expect("writable");
        until("failed reload", || rules.last_failure().is_some()).await;
        assert_eq!(rules.current().rules().len(), 2);

        fs::remove_file(&file).expect("removable");
        until("reload after a removal", || rules.current().rules().is_empty()).await;

        cancel.cancel();
        tokio::time::timeout(PATIENCE, task).await.expect("ends when cancelled").expect("no panic");
    }

    #[test]
    fn reading_is_no_change() {
        use notify::event::{AccessKind, AccessMode, CreateKind, EventKind};
        assert!(!super::is_change(EventKind::Access(AccessKind::Open(AccessMode::Read))));
        assert!(!super::is_change(EventKind::Access(AccessKind::Close(AccessMode::Read))));
        assert!(super::is_change(EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(super::is_change(EventKind::Create(CreateKind::File)));
    }
}
