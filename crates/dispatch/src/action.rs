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
//! Serde reads the shape and refuses unknown fields, then `validate` checks the sizes. What counts of the payload is its length as it
//! would be written, since that is what a store and a webhook will be sent. One walk finds a bound on it; only a payload that might be
//! too long is counted exactly, by a writer that keeps nothing.
//!
//! The payload is read at once and not kept as text until somebody asks: of an object with a key given twice, rules would then see one value,
//! and a provider that is sent the text perhaps the other.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Builder;

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
        let action: Self = match str::from_utf8(json) {
            // Checked once for all, rather than for each string of it.
            Ok(text) => serde_json::from_str(text),
            // Says where, in serde's words.
            Err(_) => serde_json::from_slice(json),
        }
        .map_err(shape)?;
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
    // From the generator of this thread: `Uuid::new_v4` would ask the kernel for each.
    Builder::from_random_bytes(rand::random()).into_uuid().to_string()
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
    let Some(bytes_bound) = json_bytes_bound(payload, PAYLOAD_DEPTH_MAX) else {
        let allowed = format!("a depth of at most {PAYLOAD_DEPTH_MAX}");
        return Err(outside("payload", "is nested too deeply", allowed));
    };
    if bytes_bound <= PAYLOAD_BYTES_MAX {
        return Ok(());
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

/// Whether `value` is nested deeper than `depth_max`.
pub(crate) fn deeper_than(value: &Value, depth_max: usize) -> bool {
    json_bytes_bound(value, depth_max).is_none()
}

/// Most bytes of a number: a sign, 17 digits, a point, and an exponent of up to five.
const NUMBER_BYTES_MAX: usize = 24;
/// Most bytes of a literal: `false`.
const LITERAL_BYTES_MAX: usize = 5;

/// No less than the bytes of `value` as compact JSON; `None` when it is nested deeper than `depth_max`. Stops at the bound, so its own
/// recursion is bounded too.
fn json_bytes_bound(value: &Value, depth_max: usize) -> Option<usize> {
    // Brackets, and a comma for each element.
    let around = |elements: usize| (depth_max > 0).then_some(2 + elements);
    Some(match value {
        Value::Null | Value::Bool(_) => LITERAL_BYTES_MAX,
        Value::Number(_) => NUMBER_BYTES_MAX,
        Value::String(text) => string_bytes_bound(text),
        Value::Array(items) => {
            let mut bytes = around(items.len())?;
            for item in items {
                bytes += json_bytes_bound(item, depth_max - 1)?;
            }
            bytes
        }
        Value::Object(entries) => {
            let mut bytes = around(entries.len())?;
            for (key, value) in entries {
                bytes += string_bytes_bound(key) + 1 + json_bytes_bound(value, depth_max - 1)?;
            }
            bytes
        }
    })
}

/// Quotes, and an escape such as `\u001f` for each byte.
const fn string_bytes_bound(text: &str) -> usize {
    2 + 6 * text.len()
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
    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use serde_json::json;

    use super::{
        Action, METADATA_ENTRIES_MAX, NUMBER_BYTES_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX, Value, json_bytes_bound,
    };

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

    #[test]
    fn text_that_is_no_utf_8_is_refused_with_its_place() {
        let json = [&br#"{"namespace":"demo","tenant":"ac"#[..], b"\xff", br#"me"}"#].concat();
        let error = Action::parse(&json).expect_err("no UTF-8").to_string();
        assert!(error.contains("invalid unicode code point at line 1 column"), "{error}");
    }

    #[test]
    fn no_number_is_written_longer_than_the_bound_says() {
        for number in
            [f64::MIN, f64::MIN_POSITIVE, -f64::MIN_POSITIVE, -2.225_073_858_507_201e-308, 1e15, 0.1 + 0.2, 5e-324]
        {
            assert!(json!(number).to_string().len() <= NUMBER_BYTES_MAX, "{number}");
        }
        assert!(json!(i64::MIN).to_string().len() <= NUMBER_BYTES_MAX);
    }

    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(entries) => 1 + entries.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            "[\u{0}-\u{1f}\"\\\\é]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn bound_is_never_below_the_length_and_knows_the_depth(value in any_json()) {
            let depth = depth(&value);
            let bound = json_bytes_bound(&value, depth);
            prop_assert!(bound.is_some_and(|bound| bound >= value.to_string().len()), "{bound:?} for {value}");
            prop_assert_eq!(depth.checked_sub(1).and_then(|less| json_bytes_bound(&value, less)), None);
        }
    }
}
