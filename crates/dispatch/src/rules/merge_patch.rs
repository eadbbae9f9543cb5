//! JSON merge patch, RFC 7396.
//!
//! An object patches entry by entry, `null` removes an entry, anything else replaces what was there.

use serde_json::{Map, Value};

/// Applies `patch` to `target`, as `MergePatch` in section 2 of the RFC.
///
/// Recursion goes as deep as the patch, which comes from a rule file of bounded depth.
pub fn apply(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(entries) = target else {
        unreachable!("the target was made an object above");
    };
    for (key, change) in changes {
        if change.is_null() {
            entries.remove(key);
        } else {
            apply(entries.entry(key.as_str()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use serde_json::{Value, json};

    use super::apply;

    fn patched(mut target: Value, patch: &Value) -> Value {
        apply(&mut target, patch);
        target
    }

    #[test]
    fn examples_of_rfc_7396_appendix_a_hold() {
        for (target, patch, expected) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            assert_eq!(patched(target.clone(), &patch), expected, "{target} patched with {patch}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-c]{1,2}", inner, 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    /// The pseudo code of the RFC, word for word, by value.
    fn rfc_merge_patch(target: Value, patch: Value) -> Value {
        let Value::Object(patch) = patch else { return patch };
        let mut target = if let Value::Object(target) = target { target } else { serde_json::Map::new() };
        for (name, value) in patch {
            if value.is_null() {
                target.remove(&name);
            } else {
                let old = target.remove(&name).unwrap_or(Value::Null);
                target.insert(name, rfc_merge_patch(old, value));
            }
        }
        Value::Object(target)
    }

    proptest! {
        #[test]
        fn patching_equals_the_pseudo_code_of_the_rfc(target in value(), patch in value()) {
            prop_assert_eq!(patched(target.clone(), &patch), rfc_merge_patch(target, patch));
        }

        #[test]
        fn patching_twice_equals_patching_once(target in value(), patch in value()) {
            let once = patched(target, &patch);
            prop_assert_eq!(&patched(once.clone(), &patch), &once);
        }

        #[test]
        fn removed_entries_are_gone(target in value(), key in "[a-c]{1,2}") {
            let result = patched(target, &json!({ key.clone(): null }));
            prop_assert!(result.get(&key).is_none());
        }
    }
}
