//! The key of a limiting rule: a list of fields, such as `[tenant, payload.user]`.
//!
//! # What it promises
//! Two actions get the same key exactly when every listed field holds the same JSON in both. Nothing that a caller
//! writes into a field can collide with another tuple: the key is the compact JSON array of the values, in which
//! strings are quoted and escaped. A field that is absent is written as nothing between the commas, which no JSON value
//! looks like, so it differs from `null` and from `""`. Numbers count as written: `1` and `1.0` are two keys.
//!
//! A key is at most [`KEY_BYTES_MAX`] bytes long. A longer one is replaced by its SHA-256, written `sha256:…`, which
//! cannot be confused with a plain one, since a plain one starts with `[`.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::action::Action;
use crate::rules::field::{Field, Seen};

/// Longest key, in bytes. With the rule's name of at most 64 bytes it fits into the id of a state key (512 bytes).
pub const KEY_BYTES_MAX: usize = 256;
/// A key of this length is written without growing.
const KEY_BYTES_USUAL: usize = 64;
/// Most fields in one key.
pub const KEY_FIELDS_MAX: usize = 8;

/// The fields that a key is made of; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFields(Vec<Field>);

/// A key made from an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The text, at most [`KEY_BYTES_MAX`] bytes.
    pub text: String,
    /// Whether every field was there.
    pub complete: bool,
}

impl KeyFields {
    /// Takes 1 to [`KEY_FIELDS_MAX`] fields.
    ///
    /// # Errors
    /// A sentence that says what is allowed.
    pub fn new(fields: Vec<Field>) -> Result<Self, String> {
        if fields.is_empty() || fields.len() > KEY_FIELDS_MAX {
            return Err(format!("key has {} fields; allowed: 1 to {KEY_FIELDS_MAX}", fields.len()));
        }
        Ok(Self(fields))
    }

    /// Makes the key of one action.
    #[must_use]
    pub fn key_of(&self, action: &Action) -> Key {
        let mut text = String::with_capacity(KEY_BYTES_USUAL);
        text.push('[');
        let mut complete = true;
        for (position, field) in self.0.iter().enumerate() {
            if position > 0 {
                text.push(',');
            }
            match field.look_up(action) {
                Some(seen) => push_json(&mut text, seen),
                None => complete = false,
            }
        }
        text.push(']');
        Key { text: bounded(text), complete }
    }

    /// The fields that `action` lacks, for a trace.
    pub(crate) fn missing_in(&self, action: &Action) -> Vec<String> {
        let absent = |field: &&Field| field.look_up(action).is_none();
        self.0.iter().filter(absent).map(ToString::to_string).collect()
    }
}

fn push_json(text: &mut String, seen: Seen<'_>) {
    let written = match seen {
        Seen::Text(string) if string.bytes().all(stands_for_itself) => {
            text.push('"');
            text.push_str(string);
            text.push('"');
            return;
        }
        // `Value` prints itself as compact JSON; only a bare string needs the detour for its quotes.
        Seen::Text(string) => write!(text, "{}", serde_json::Value::from(string)),
        Seen::Json(value) => write!(text, "{value}"),
    };
    written.expect("writing to a String cannot fail");
}

/// Whether JSON has no escape for a byte: those of characters outside of ASCII have none either.
const fn stands_for_itself(byte: u8) -> bool {
    byte >= b' ' && byte != b'"' && byte != b'\\'
}

fn bounded(text: String) -> String {
    if text.len() <= KEY_BYTES_MAX {
        return text;
    }
    Sha256::digest(text.as_bytes()).iter().fold(String::from("sha256:"), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
        hex
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
    use serde_json::{Value, json};

    use super::{KEY_BYTES_MAX, KeyFields};
    use crate::action::Action;
    use crate::rules::field::Field;

    fn key_fields(fields: &[&str]) -> KeyFields {
        let fields = fields.iter().map(|field| Field::parse(field).expect("field")).collect();
        KeyFields::new(fields).expect("1 to 8 fields")
    }

    fn key(payload: Value) -> String {
        let action = Action::new("demo", "acme", "log", "greet", payload);
        key_fields(&["tenant", "payload.a", "payload.b"]).key_of(&action).text
    }

    #[test]
    fn short_keys_can_be_read() {
        assert_eq!(key(json!({"a": "x", "b": 7})), r#"["acme","x",7]"#);
    }

    #[test]
    fn absent_null_and_empty_are_three_keys() {
        let keys = [json!({"b": 1}), json!({"a": null, "b": 1}), json!({"a": "", "b": 1})].map(key);
        assert_eq!(keys, [r#"["acme",,1]"#, r#"["acme",null,1]"#, r#"["acme","",1]"#]);
    }

    #[test]
    fn quotes_and_commas_inside_a_value_cannot_forge_another_tuple() {
        assert_ne!(key(json!({"a": "x\",\"y", "b": ""})), key(json!({"a": "x", "b": "y\",\""})));
    }

    #[test]
    fn texts_are_written_as_json_writes_them() {
        for code in (0..=0x17f).chain([0x2028, 0x1_f642]) {
            let text = format!("a{}b", char::from_u32(code).expect("a character"));
            let written = serde_json::to_string(&text).expect("a string");
            assert_eq!(key(json!({"a": text, "b": 1})), format!(r#"["acme",{written},1]"#));
        }
    }

    #[test]
    fn long_keys_are_hashed_and_still_differ() {
        let (one, two) = (key(json!({"a": "x".repeat(1_000)})), key(json!({"a": "x".repeat(1_001)})));
        assert!(one.starts_with("sha256:") && one.len() <= KEY_BYTES_MAX);
        assert_ne!(one, two);
    }

    fn part() -> impl Strategy<Value = Option<Value>> {
        prop_oneof![
            Just(None),
            Just(Some(Value::Null)),
            any::<i8>().prop_map(|number| Some(json!(number))),
            r#"[a,"\[\]:\\]{0,4}"#.prop_map(|text| Some(json!(text))),
            r#"[a,"]{0,2}"#.prop_map(|text| Some(json!([text]))),
        ]
    }

    fn payload(a: &Option<Value>, b: &Option<Value>) -> Value {
        let entries = [("a", a), ("b", b)];
        let there = entries.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        Value::Object(there.collect())
    }

    proptest! {
        #[test]
        fn keys_are_equal_exactly_when_the_fields_are(a in part(), b in part(), c in part(), d in part()) {
            let same = (&a, &b) == (&c, &d);
            prop_assert_eq!(key(payload(&a, &b)) == key(payload(&c, &d)), same);
        }
    }
}
