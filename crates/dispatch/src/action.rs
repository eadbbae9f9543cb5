//! The action: one request to have something done by a provider.
//!
//! # What it promises
//! An `Action` that came out of [`Action::parse`], [`Action::from_value`] or passed [`Action::validate`] is within
//! every bound named in this file, so nothing behind the edge checks lengths again: its names fit the parts of a
//! state key, its id fits an HTTP header, and its payload can be walked recursively.
//!
//! # Failure
//! An [`ActionError`] names the field and what is allowed there. Nothing has happened when one is returned.
//!
//! # How it works
//! Serde reads the shape and refuses unknown fields, then `validate` checks the sizes. The payload is measured as it
//! would be written, by a writer that only counts, since that is what a store and a webhook will be sent.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Longest namespace, tenant, provider and action type, in bytes: the bound of one part of a state key.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest action id, in bytes. It travels as a header value and inside state keys of at most 512 bytes.
pub const ID_BYTES_MAX: usize = 256;
/// Longest deduplication key, in bytes.
pub const DEDUP_KEY_BYTES_MAX: usize = 256;
/// Largest payload, in bytes as compact JSON. An item of DynamoDB holds 400 KiB, and a scheduled action is one item.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// Deepest nesting of the payload; `[]` and `{}` have depth 1, a scalar has depth 0. Keeps every recursive walk short.
pub const PAYLOAD_DEPTH_MAX: usize = 32;
/// Most metadata entries.
pub const METADATA_ENTRIES_MAX: usize = 64;
/// Largest metadata, in bytes, keys and values together.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Largest JSON text of one action: payload, metadata, names, and as much again for white space and escapes.
pub const ACTION_BYTES_MAX: usize = 2 * (PAYLOAD_BYTES_MAX + METADATA_BYTES_MAX + 4 * 1024);

/// One request to have something done by a provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Identifies the action to the provider, as an idempotency key, and in outcomes. 1 to 256 visible ASCII
    /// characters; a random UUID when the caller gives none.
    #[serde(default = "random_id")]
    pub id: String,
    /// The application or environment that the action belongs to. 1 to 64 bytes without NUL.
    pub namespace: String,
    /// The customer on whose behalf it is done. 1 to 64 bytes without NUL.
    pub tenant: String,
    /// The name of the provider that shall execute it. 1 to 64 bytes without NUL.
    pub provider: String,
    /// What is to be done, in the words of the application, such as `send_email`. 1 to 64 bytes without NUL.
    pub action_type: String,
    /// What the provider needs to know: any JSON of at most 256 KiB and depth 32.
    pub payload: Value,
    /// When the action was made; the moment it was read when the caller gives none.
    #[serde(default = "Timestamp::now")]
    pub created_at: Timestamp,
    /// Actions with the same key are one action to a deduplicating rule. 1 to 256 bytes without NUL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup_key: Option<String>,
    /// Labels for rules and providers; at most 64 entries and 16 KiB.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Not to be executed before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver_at: Option<Timestamp>,
}

/// Why something is no action. The message is meant for the caller who sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// It is no JSON, or JSON of another shape.
    #[error("the action is not valid: {reason}")]
    Shape {
        /// What serde found, with line and column where it knows them.
        reason: String,
    },
    /// A field holds something outside its bounds.
    #[error("`{field}` {found}; allowed: {allowed}")]
    Field {
        /// The field, as it is written in JSON.
        field: &'static str,
        /// What was found there.
        found: String,
        /// What is allowed there.
        allowed: String,
    },
}

impl ActionError {
    /// The field at fault, if it is a single one.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        match self {
            ActionError::Shape { .. } => None,
            ActionError::Field { field, .. } => Some(field),
        }
    }
}

impl Action {
    /// Makes an action with a random id, created now. It is not validated yet.
    #[must_use]
    pub fn new(
        namespace: impl Into<String>,
        tenant: impl Into<String>,
        provider: impl Into<String>,
        action_type: impl Into<String>,
        payload: Value,
    ) -> Self {
        Self {
            id: random_id(),
            namespace: namespace.into(),
            tenant: tenant.into(),
            provider: provider.into(),
            action_type: action_type.into(),
            payload,
            created_at: Timestamp::now(),
            dedup_key: None,
            metadata: BTreeMap::new(),
            deliver_at: None,
        }
    }

    /// Reads one action from JSON text of at most [`ACTION_BYTES_MAX`] bytes and validates it.
    ///
    /// # Errors
    /// [`ActionError`] says which field is wrong, or where the JSON is.
    ///
    /// ```
    /// use acteon_dispatch::Action;
    /// let action = Action::parse(
    ///     br#"{"namespace":"demo","tenant":"acme","provider":"log","action_type":"greet","payload":{"to":"Ada"}}"#,
    /// )?;
    /// assert_eq!(action.tenant, "acme");
    /// assert_eq!(action.id.len(), 36);
    /// # Ok::<(), acteon_dispatch::ActionError>(())
    /// ```
    pub fn parse(json: &[u8]) -> Result<Self, ActionError> {
        if json.len() > ACTION_BYTES_MAX {
            return Err(ActionError::Shape {
                reason: format!("{} bytes of JSON; at most {ACTION_BYTES_MAX} are read", json.len()),
            });
        }
        let action: Self = serde_json::from_slice(json).map_err(shape)?;
        action.validate()?;
        Ok(action)
    }

    /// Like [`Action::parse`] for JSON that is already a value, such as one element of a batch.
    ///
    /// # Errors
    /// [`ActionError`], as above, without line and column.
    pub fn from_value(value: Value) -> Result<Self, ActionError> {
        let action: Self = serde_json::from_value(value).map_err(shape)?;
        action.validate()?;
        Ok(action)
    }

    /// Checks every bound of this file.
    ///
    /// # Errors
    /// [`ActionError::Field`] for the first field that is out of bounds, in the order of the struct.
    pub fn validate(&self) -> Result<(), ActionError> {
        check_id(&self.id)?;
        check_text("namespace", &self.namespace, NAME_BYTES_MAX)?;
        check_text("tenant", &self.tenant, NAME_BYTES_MAX)?;
        check_text("provider", &self.provider, NAME_BYTES_MAX)?;
        check_text("action_type", &self.action_type, NAME_BYTES_MAX)?;
        check_payload(&self.payload)?;
        if let Some(key) = &self.dedup_key {
            check_text("dedup_key", key, DEDUP_KEY_BYTES_MAX)?;
        }
        check_metadata(&self.metadata)
    }
}

fn random_id() -> String {
    Uuid::new_v4().to_string()
}

fn shape(error: serde_json::Error) -> ActionError {
    ActionError::Shape { reason: error.to_string() }
}

fn outside(field: &'static str, found: impl Into<String>, allowed: impl Into<String>) -> ActionError {
    ActionError::Field { field, found: found.into(), allowed: allowed.into() }
}

fn check_text(field: &'static str, text: &str, bytes_max: usize) -> Result<(), ActionError> {
    let allowed = || format!("1 to {bytes_max} bytes without NUL");
    if text.is_empty() || text.len() > bytes_max {
        return Err(outside(field, format!("is {} bytes long", text.len()), allowed()));
    }
    if text.contains('\0') {
        return Err(outside(field, "contains NUL", allowed()));
    }
    Ok(())
}

fn check_id(id: &str) -> Result<(), ActionError> {
    // Visible ASCII, since the id is sent as the value of a header, where line breaks would forge others.
    if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        let found = format!("is {} bytes long or holds other characters", id.len());
        return Err(outside("id", found, format!("1 to {ID_BYTES_MAX} visible ASCII characters")));
    }
    Ok(())
}

fn check_payload(payload: &Value) -> Result<(), ActionError> {
    if deeper_than(payload, PAYLOAD_DEPTH_MAX) {
        let allowed = format!("a depth of at most {PAYLOAD_DEPTH_MAX}");
        return Err(outside("payload", "is nested too deeply", allowed));
    }
    let mut counter = ByteCounter { bytes: 0 };
    serde_json::to_writer(&mut counter, payload).map_err(shape)?;
    if counter.bytes > PAYLOAD_BYTES_MAX {
        let allowed = format!("at most {PAYLOAD_BYTES_MAX} bytes as compact JSON");
        return Err(outside("payload", format!("is {} bytes long", counter.bytes), allowed));
    }
    Ok(())
}

fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), ActionError> {
    if metadata.len() > METADATA_ENTRIES_MAX {
        let found = format!("has {} entries", metadata.len());
        return Err(outside("metadata", found, format!("at most {METADATA_ENTRIES_MAX}")));
    }
    let bytes: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > METADATA_BYTES_MAX {
        let allowed = format!("at most {METADATA_BYTES_MAX} bytes, keys and values together");
        return Err(outside("metadata", format!("is {bytes} bytes long"), allowed));
    }
    for key in metadata.keys() {
        if key.is_empty() || key.len() > NAME_BYTES_MAX || key.contains('\0') {
            let found = format!("has a key of {} bytes or with NUL", key.len());
            return Err(outside("metadata", found, format!("keys of 1 to {NAME_BYTES_MAX} bytes without NUL")));
        }
    }
    Ok(())
}

/// Whether `value` is nested deeper than `depth_max`. Stops at the bound, so its own recursion is bounded too.
pub(crate) fn deeper_than(value: &Value, depth_max: usize) -> bool {
    let below = |child: &Value| depth_max == 0 || deeper_than(child, depth_max - 1);
    match value {
        Value::Array(items) => depth_max == 0 || items.iter().any(below),
        Value::Object(entries) => depth_max == 0 || entries.values().any(below),
        _ => false,
    }
}

struct ByteCounter {
    bytes: usize,
}

impl io::Write for ByteCounter {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        self.bytes += chunk.len();
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Action, METADATA_ENTRIES_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX, Value};

    fn minimal() -> Value {
        json!({"namespace": "demo", "tenant": "acme", "provider": "log", "action_type": "greet", "payload": null})
    }

    fn with(field: &str, value: Value) -> Value {
        let mut action = minimal();
        action[field] = value;
        action
    }

    fn nested(depth: usize) -> Value {
        (1..depth).fold(json!([]), |inner, _| json!([inner]))
    }

    #[test]
    fn five_fields_are_enough_and_the_rest_is_drawn() {
        let first = Action::from_value(minimal()).expect("minimal action");
        let second = Action::from_value(minimal()).expect("minimal action");
        assert_ne!(first.id, second.id);
        assert!(first.metadata.is_empty() && first.dedup_key.is_none() && first.deliver_at.is_none());
    }

    #[test]
    fn action_survives_a_round_trip_through_json() {
        let mut full = with("id", json!("a-1"));
        full["dedup_key"] = json!("welcome");
        full["metadata"] = json!({"source": "test"});
        full["deliver_at"] = json!("2026-11-20T10:00:00Z");
        let action = Action::from_value(full).expect("full action");
        let json = serde_json::to_vec(&action).expect("serialisable");
        assert_eq!(Action::parse(&json).expect("own output"), action);
    }

    #[test]
    fn unknown_and_missing_fields_are_named() {
        let error = Action::from_value(with("tennant", json!("x"))).expect_err("unknown field");
        assert!(error.to_string().contains("unknown field `tennant`"), "{error}");
        let error = Action::parse(br#"{"namespace":"demo"}"#).expect_err("missing field");
        assert!(error.to_string().contains("missing field `tenant`"), "{error}");
        assert!(error.to_string().contains("line 1"), "{error}");
    }

    #[test]
    fn every_field_out_of_bounds_is_named_with_what_is_allowed() {
        let many: serde_json::Map<String, Value> =
            (0..=METADATA_ENTRIES_MAX).map(|n| (format!("k{n}"), json!(""))).collect();
        let cases = [
            ("namespace", json!("")),
            ("tenant", json!("x".repeat(65))),
            ("provider", json!("a\0b")),
            ("action_type", json!("")),
            ("id", json!("line\nbreak")),
            ("id", json!("")),
            ("dedup_key", json!("x".repeat(257))),
            ("payload", json!("x".repeat(PAYLOAD_BYTES_MAX))),
            ("payload", nested(PAYLOAD_DEPTH_MAX + 1)),
            ("metadata", Value::Object(many)),
            ("metadata", json!({"": "empty key"})),
            ("metadata", json!({"k": "x".repeat(17 * 1024)})),
        ];
        for (field, value) in cases {
            let error = Action::from_value(with(field, value)).expect_err(field);
            assert_eq!(error.field(), Some(field), "{error}");
            assert!(error.to_string().contains("allowed:"), "{error}");
        }
    }

    #[test]
    fn values_at_the_bound_are_accepted() {
        Action::from_value(with("tenant", json!("x".repeat(64)))).expect("64 bytes");
        Action::from_value(with("payload", json!("x".repeat(PAYLOAD_BYTES_MAX - 2)))).expect("quotes included");
        Action::from_value(with("payload", nested(PAYLOAD_DEPTH_MAX))).expect("deepest");
    }

    #[test]
    fn oversized_text_is_refused_before_it_is_parsed() {
        let error = Action::parse(&vec![b' '; super::ACTION_BYTES_MAX + 1]).expect_err("too long");
        assert!(error.to_string().contains("at most"), "{error}");
    }
}
