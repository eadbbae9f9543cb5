//! Reloads the rules when their directory changes.
//!
//! # What it promises
//! A change is noticed through the operating system, whatever way an editor saves: writing in place, renaming a
//! temporary file over the old one, or swapping a link. A burst of changes leads to one reload, at the latest
//! [`BURST_MAX`] after its beginning. A reload that fails is logged with every problem, and the old rules stay. A directory
//! that was replaced by another one of its name, or whose link leads elsewhere now, is noticed within [`LOOK_EVERY`].
//!
//! # Failure
//! Starting fails when the system refuses to watch the directory. When events are lost later, the next one makes up for
//! them, since a reload always reads everything; `SIGHUP` or the HTTP endpoint reload without any event.
//!
//! # How it works
//! The system watches a directory, not a name: once the name leads to another directory, the watch tells nothing of it. So
//! the task looks now and then where the name leads, and watches anew when that has changed.

use std::fs::Metadata;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::rules::handle::Rules;

/// A burst of changes is over when nothing happened for so long.
pub const QUIET: Duration = Duration::from_millis(200);
/// A burst that does not end is cut off after so long.
pub const BURST_MAX: Duration = Duration::from_secs(2);

/// How often to look whether the directory is still the one that is watched.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

impl Rules {
    /// Watches the directory in a task of its own until `cancel` is cancelled. Must be called within a tokio runtime.
    ///
    /// Changes made after this returns are noticed; the ones before are not.
    ///
    /// # Errors
    /// [`notify::Error`] when the system cannot watch the directory.
    pub fn watch(self: &Arc<Self>, cancel: CancellationToken) -> Result<JoinHandle<()>, notify::Error> {
        let changed = Arc::new(Notify::new());
        let mut watched = start(self, Arc::clone(&changed))?;
        let rules = Arc::clone(self);
        Ok(tokio::spawn(async move {
            loop {
                let event = cancel.run_until_cancelled(timeout(LOOK_EVERY, changed.notified()));
                match event.await {
                    None => return,
                    Some(Ok(())) if cancel.run_until_cancelled(end_of_burst(&changed)).await.is_none() => return,
                    Some(Ok(())) => {}
                    Some(Err(_)) if watched.place == place(&rules).await => continue,
                    Some(Err(_)) => match start(&rules, Arc::clone(&changed)) {
                        Ok(anew) => watched = anew,
                        // Gone at the moment; the reload below reports it once, and the next look tries again.
                        Err(error) => {
                            let reported = watched.place.take().is_none();
                            debug!(%error, "the rules directory cannot be watched");
                            if reported {
                                continue;
                            }
                        }
                    },
                }
                reload(&rules).await;
            }
        }))
    }
}

/// A directory that is being watched.
struct Watched {
    /// Dropping the watcher ends the watch.
    _watcher: RecommendedWatcher,
    /// Which directory it is; `None` when there is none.
    place: Option<Place>,
}

/// Tells one directory from another of the same name.
type Place = (PathBuf, Option<u64>);

async fn place(rules: &Arc<Rules>) -> Option<Place> {
    let rules = Arc::clone(rules);
    tokio::task::spawn_blocking(move || find_place(&rules)).await.unwrap_or(None)
}

fn find_place(rules: &Rules) -> Option<Place> {
    let path = rules.directory()?.canonicalize().ok()?;
    let inode = inode(&path.metadata().ok()?);
    Some((path, inode))
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Some(metadata.ino())
}

#[cfg(not(unix))]
fn inode(_metadata: &Metadata) -> Option<u64> {
    None
}

fn start(rules: &Rules, changed: Arc<Notify>) -> Result<Watched, notify::Error> {
    // Before the watch begins: a directory that is replaced in between is noticed by the next look.
    let place = find_place(rules);
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
    Ok(Watched { _watcher: watcher, place })
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

        let other = directory.path().join("b.yaml");
        fs::write(&other, "rules: [broken").expect("writable");
        until("failed reload", || rules.last_failure().is_some()).await;
        assert_eq!(rules.current().rules().len(), 2);

        fs::write(&other, "rules: []").expect("writable");
        fs::remove_file(&file).expect("removable");
        until("reload after a removal", || rules.current().rules().is_empty()).await;

        cancel.cancel();
        tokio::time::timeout(PATIENCE, task).await.expect("ends when cancelled").expect("no panic");
    }

    /// Kubernetes mounts a ConfigMap as links into a directory that a link points to, and updates it by swapping that link.
    #[cfg(unix)]
    #[tokio::test]
    async fn a_config_map_that_is_swapped_is_noticed() {
        use std::os::unix::fs::symlink;
        let mount = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| mount.path().join(name);
        for (version, rules) in [("..v1", "[]"), ("..v2", "[{ name: a, action: deny }]")] {
            fs::create_dir(at(version)).expect("writable");
            fs::write(at(version).join("a.yaml"), format!("rules: {rules}")).expect("writable");
        }
        symlink("..v1", at("..data")).expect("linkable");
        symlink("..data/a.yaml", at("a.yaml")).expect("linkable");
        let rules = Arc::new(Rules::load(mount.path(), LoadOptions::default()).expect("valid rules"));
        let _task = rules.watch(CancellationToken::new()).expect("watchable");

        symlink("..v2", at("..data_tmp")).expect("linkable");
        fs::rename(at("..data_tmp"), at("..data")).expect("renamable");
        until("reload after the swap", || rules.current().rules().len() == 1).await;
    }

    /// The watch stayed with the old directory, so that no later change was ever noticed.
    #[tokio::test]
    async fn a_directory_that_was_replaced_is_watched_anew() {
        let parent = tempfile::tempdir().expect("temporary directory");
        let directory = parent.path().join("rules");
        let write = |text: &str| {
            fs::create_dir_all(&directory).expect("writable");
            fs::write(directory.join("a.yaml"), text).expect("writable");
        };
        write("rules: []");
        let rules = Arc::new(Rules::load(&directory, LoadOptions::default()).expect("valid rules"));
        let _task = rules.watch(CancellationToken::new()).expect("watchable");

        fs::rename(&directory, parent.path().join("old")).expect("renamable");
        until("the directory is missed", || rules.last_failure().is_some()).await;
        write("rules: [{ name: one, action: allow }]");
        until("the new directory is read", || rules.current().rules().len() == 1).await;
        write("rules: [{ name: one, action: allow }, { name: two, action: allow }]");
        until("the new directory is watched", || rules.current().rules().len() == 2).await;
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
