//! Removes expired keys in the background, ten times a second, and lets the disk begin what is due by schedule.

use std::sync::Arc;
use std::time::Duration;

use acteon_engine::Instance;
use acteon_engine_disk::Disk;
use tokio::time::sleep;

use crate::server::Clock;

/// Pause while there is nothing to catch up with, as Redis has.
const PERIOD: Duration = Duration::from_millis(100);
/// Pause while there is: connections get the thread in between.
const PERIOD_BUSY: Duration = Duration::from_millis(1);
/// Keys visited at once: about a millisecond, so that a command on the same thread waits no longer. With the pause above that is more
/// than a million keys in a second.
const KEYS_PER_TURN_MAX: u32 = 4_096;

/// Runs until it is dropped.
pub(crate) async fn keep(instance: Arc<Instance>, clock: Clock, disk: Option<Arc<Disk>>) {
    loop {
        if let Some(disk) = &disk {
            disk.tick(clock() / 1_000);
        }
        let has_more = instance.housekeeping(clock(), KEYS_PER_TURN_MAX);
        sleep(if has_more { PERIOD_BUSY } else { PERIOD }).await;
    }
}
