//! Every state key that the dispatcher uses, in one place.
//!
//! | kind | id | holds |
//! |---|---|---|
//! | `dedup` | rule and key | what became of the first action: [`crate::pipeline::deduplicate`] |
//! | `throttle` | rule and key | the state of a rate limit |
//! | `action` | action id | the lock under which the action is executed |
//! | `dead` | action id | a scheduled action that was given up |
//! | `queue` | `scheduled` | the due index, one for all tenants, since one worker serves them all |

use acteon_state_core::{Result, StateKey};

use crate::action::Action;
use crate::rules::{Dedup, Throttle};

/// Where a deduplicating rule remembers the first action.
pub(crate) fn dedup(action: &Action, dedup: &Dedup) -> Result<StateKey> {
    StateKey::new(&action.namespace, &action.tenant, "dedup", &dedup.state_id())
}

/// Where a throttling rule counts.
pub(crate) fn throttle(action: &Action, throttle: &Throttle) -> Result<StateKey> {
    StateKey::new(&action.namespace, &action.tenant, "throttle", &throttle.state_id())
}

/// The lock under which an action is executed.
pub(crate) fn action_lock(action: &Action) -> Result<StateKey> {
    StateKey::new(&action.namespace, &action.tenant, "action", &action.id)
}

/// Where a scheduled action goes that was given up.
pub(crate) fn dead(action: &Action) -> Result<StateKey> {
    StateKey::new(&action.namespace, &action.tenant, "dead", &action.id)
}

/// Where an item of the queue goes that is no action.
pub(crate) fn dead_item(id: &str) -> Result<StateKey> {
    StateKey::new("acteon", "dispatch", "dead", id)
}

/// The due index of scheduled actions.
pub(crate) fn queue() -> Result<StateKey> {
    StateKey::new("acteon", "dispatch", "queue", "scheduled")
}

/// An action's id within the due index: at most 391 bytes, injective, since the lengths at its end say where the names
/// are cut.
pub(crate) fn schedule_id(action: &Action) -> String {
    let Action { namespace, tenant, id, .. } = action;
    format!("{namespace}/{tenant}/{id}#{}.{}", namespace.len(), tenant.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::schedule_id;
    use crate::action::{Action, ID_BYTES_MAX, NAME_BYTES_MAX};

    #[test]
    fn slashes_in_names_do_not_make_two_schedules_one() {
        let id = |namespace: &str, tenant: &str, id: &str| {
            let action = Action::new(namespace, tenant, "log", "greet", json!({}));
            schedule_id(&Action { id: id.to_owned(), ..action })
        };
        assert_ne!(id("a/b", "c", "d"), id("a", "b/c", "d"));
        assert_ne!(id("a", "b", "c/d"), id("a", "b/c", "d"));
        let longest = id(&"n".repeat(NAME_BYTES_MAX), &"t".repeat(NAME_BYTES_MAX), &"i".repeat(ID_BYTES_MAX));
        assert!(longest.len() <= acteon_state_core::key::ID_BYTES_MAX);
    }
}
