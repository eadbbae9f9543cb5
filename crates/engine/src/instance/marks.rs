//! Marks that connections have left at keys, and that are of no use any more.
//!
//! # Guarantees
//! Removing one does not wait for whoever holds the key for long, such as a script: housekeeping does it later. A mark that is
//! still there does no harm: it sets a flag that nobody looks at, or makes a key ready that nobody waits for.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;

use super::Instance;
use crate::lock::{Contended, Locked, Places};
use crate::observe::Name;

/// What was left at a key.
pub(crate) enum Mark {
    /// A command waits for the key.
    Waiter,
    /// A transaction depends on the key; it is this one's flag.
    Watcher(Arc<AtomicBool>),
}

/// Marks that are still to be removed, with the key that they are at.
#[derive(Default)]
pub(crate) struct StaleMarks(Mutex<Vec<(Name, Mark)>>);

impl Instance {
    /// Removes a mark now or later. Nothing may be held.
    pub(crate) fn remove_mark(&self, database: usize, key: &[u8], mark: Mark) {
        if self.try_remove_mark(database, key, &mark, self.patience()).is_err() {
            self.stale_marks.0.lock().push(((database, key.into()), mark));
        }
    }

    /// Removes what could not be removed before, as far as it can be now.
    pub(crate) fn remove_stale_marks(&self) {
        let mut marks = mem::take(&mut *self.stale_marks.0.lock());
        marks.retain(|((database, key), mark)| self.try_remove_mark(*database, key, mark, Duration::ZERO).is_err());
        self.stale_marks.0.lock().append(&mut marks);
    }

    fn try_remove_mark(&self, database: usize, key: &[u8], mark: &Mark, patience: Duration) -> Result<(), Contended> {
        let place = self.databases.place(database, key);
        let mut locked = Locked::acquire(&self.databases, Places::from_slice(&[place]), patience)?;
        locked.step_held(place, |_, segment| match mark {
            Mark::Waiter => segment.notices.remove_waiter(key),
            Mark::Watcher(is_dirty) => segment.notices.unwatch(key, is_dirty),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use crate::lock::{Locked, PATIENCE, Places};
    use crate::{Client, ClientOptions, Engine, EngineConfig, Flow, Instance, InstanceConfig};

    const NOW_US: u64 = 1_000_000;

    fn instance() -> Arc<Instance> {
        let engine = Engine::new(EngineConfig { segments: 4, ..EngineConfig::default() });
        Instance::new(engine, InstanceConfig::default())
    }

    fn execute(client: &mut Client, command: &str) -> Flow {
        let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        client.execute(&args, NOW_US, &mut Vec::new())
    }

    fn connect(instance: &Arc<Instance>, commands: &[&str]) -> Client {
        let mut client = Client::connect(instance, ClientOptions::default());
        for command in commands {
            execute(&mut client, command);
        }
        client
    }

    /// Runs `work` on another thread while a key is held, as by a script that runs long.
    fn while_held<R: Send>(instance: &Arc<Instance>, key: &[u8], work: impl FnOnce() -> R + Send) -> R {
        let places = Places::from_slice(&[instance.databases.place(0, key)]);
        let held = Locked::acquire(&instance.databases, places, PATIENCE).expect("nobody else holds it");
        thread::scope(|scope| {
            let (sender, results) = channel();
            scope.spawn(move || sender.send(work()));
            let result = results.recv_timeout(Duration::from_secs(60));
            drop(held);
            result.expect("it does not wait")
        })
    }

    fn is_unmarked(instance: &Instance, key: &[u8]) -> bool {
        let place = instance.databases.place(0, key);
        Locked::none(&instance.databases).step(place, |_, segment| segment.notices.is_idle()) == Ok(true)
    }

    #[test]
    fn connection_forgets_a_key_that_others_hold_without_waiting_for_it() {
        let instance = instance();
        for command in ["UNWATCH", "DISCARD", "RESET", "QUIT"] {
            let mut client = connect(&instance, &["WATCH k", "MULTI"]);
            if command == "UNWATCH" {
                execute(&mut client, "DISCARD");
                execute(&mut client, "WATCH k");
            }
            while_held(&instance, b"k", || {
                execute(&mut client, command);
                drop(client);
            });
            instance.housekeeping(NOW_US, 100);
            assert!(is_unmarked(&instance, b"k"), "{command}");
        }
    }

    #[test]
    fn wait_for_a_key_that_others_hold_ends_in_time() {
        let instance = instance();
        let mut client = connect(&instance, &["BLPOP k 1"]);
        let mut reply = Vec::new();
        let flow = while_held(&instance, b"k", || client.resume(NOW_US + 1_000_000, &mut reply));
        assert_eq!((flow, &*reply), (Flow::Done, &b"*-1\r\n"[..]));
        assert!(!is_unmarked(&instance, b"k"));
        instance.housekeeping(NOW_US, 100);
        assert!(is_unmarked(&instance, b"k"));
    }

    #[test]
    fn commands_that_take_segment_by_segment_are_tried_again_where_one_is_held_for_long() {
        let instance = instance();
        let mut client = connect(&instance, &["SET k v"]);
        for command in ["DBSIZE", "KEYS *", "SCAN 0 COUNT 100", "RANDOMKEY", "INFO", "FLUSHDB", "FLUSHALL"] {
            let flow = while_held(&instance, b"k", || execute(&mut client, command));
            assert_eq!(flow, Flow::Retry, "{command}");
        }
        assert_eq!(execute(&mut client, "DBSIZE"), Flow::Done);
    }

    #[test]
    fn key_that_is_ready_and_held_waits_for_its_holder_not_housekeeping_for_the_key() {
        let instance = instance();
        let mut waiter = connect(&instance, &["BLPOP k 0"]);
        let engine = instance.databases.first().clone();
        instance.databases.signals().add_ready(0, b"k");
        while_held(&instance, b"k", || {
            instance.housekeeping(NOW_US, 100);
            // A change of another key by the embedding application comes to the ready key as well.
            let place = |key: &[u8]| instance.databases.place(0, key);
            let other = (0_u8..).find(|byte| place(&[*byte]) != place(b"k")).expect("there are more segments");
            engine.update(&[other], 1, |slot| slot.remove());
        });
        assert!(instance.databases.signals().has_ready());
        connect(&instance, &["RPUSH k v"]);
        let mut reply = Vec::new();
        assert_eq!(waiter.resume(NOW_US, &mut reply), Flow::Done);
        assert_eq!(reply, b"*2\r\n$1\r\nk\r\n$1\r\nv\r\n");
    }
}
