//! K: keys never meet, whatever their parts contain.
//!
//! What a key may be (K1) is checked where it is made, in the contract's own crate; here, that the longest and the strangest
//! ones arrive at the backend and come back. K3 speaks of Redis alone and is tested there.

use acteon_state_core::{Condition, Increment, LockRequest, Put, Result, Scan, Scope, StateKey};

use crate::case::{Case, Need, case};
use crate::lab::{LONG, Lab};
use crate::verdict::{Verdict, absent, applied, equal, granted, present};

/// Each character that is a separator, a wildcard, an escape or a hash tag in some backend, and some that need care.
const STRANGE: [&str; 16] =
    [":", "%", "{", "}", "*", "?", "[", "]", "\\", "_", "'", "\"", " ", "\n", "ünï🙂", "\u{10ffff}"];

/// The longest parts are stored and read back.
async fn k1_longest_keys_are_stored(lab: Lab) -> Verdict {
    let (name, id) = ("n".repeat(64), "i".repeat(512));
    let escaped = (":".repeat(64), ":".repeat(512));
    for (name, id) in [(&name, &id), (&escaped.0, &escaped.1)] {
        let key = StateKey::new(name, name, name, id)?;
        let put = Put::new("longest");
        lab.a.put(&key, &put).await?;
        let entry = present(&key, "value under the longest key", lab.read(&key).await?)?;
        equal(&key, "value", &entry.value, &put.value)?;
    }
    Ok(())
}

/// A key with a strange character in any part holds its own value.
async fn k2_strange_characters_in_any_part_are_kept_apart(lab: Lab) -> Verdict {
    let mut keys = Vec::new();
    for strange in STRANGE {
        for part in 0..4 {
            let text = |at: usize| if at == part { format!("x{strange}y") } else { "x".to_owned() };
            keys.push(StateKey::new(&text(0), &text(1), &text(2), &text(3))?);
        }
    }
    for key in &keys {
        lab.a.put(key, &Put::new(key.text().to_owned())).await?;
    }
    for key in &keys {
        let entry = present(key, "value under a strange key", lab.read(key).await?)?;
        equal(key, "value", &&entry.value[..], &key.text().as_bytes())?;
    }
    Ok(())
}

/// Four parts that spell the same when they are joined naively are different keys.
async fn k2_separators_cannot_shift_between_parts(lab: Lab) -> Verdict {
    let keys: Result<Vec<_>> = [
        ["a:b", "c", "d", "e"],
        ["a", "b:c", "d", "e"],
        ["a", "b", "c:d", "e"],
        ["a", "b", "c", "d:e"],
        ["a;0b", "c", "d", "e"],
        ["a%3Ab", "c", "d", "e"],
    ]
    .into_iter()
    .map(|[namespace, tenant, kind, id]| StateKey::new(namespace, tenant, kind, id))
    .collect();
    let keys = keys?;
    for (at, key) in keys.iter().enumerate() {
        absent(key, "an entry before it was written", lab.read(key).await?)?;
        applied(key, "write if absent", lab.a.put(key, &Put::new(at.to_string()).if_absent()).await?)?;
    }
    for (at, key) in keys.iter().enumerate() {
        let entry = present(key, "value", lab.read(key).await?)?;
        equal(key, "value", &entry.value, &at.to_string().into())?;
    }
    Ok(())
}

/// A delete through a key that looks like a pattern deletes only that key.
async fn k2_wildcards_in_a_key_match_nothing_else(lab: Lab) -> Verdict {
    lab.write(&lab.key("victim"), "kept").await?;
    for pattern in ["*", "v*", "?ictim", "[v]ictim", "v%", "_ictim", "victim*", "\\victim"] {
        let key = lab.key(pattern);
        absent(&key, "an entry under a pattern", lab.read(&key).await?)?;
        let deleted = lab.a.delete(&key, Condition::Always).await?;
        equal(&key, "delete of a pattern deletes", &deleted.is_deleted(), &false)?;
        absent(&key, "take of a pattern", lab.a.take(&key).await?)?;
    }
    present(lab.key("victim"), "the entry that patterns could match", lab.read(&lab.key("victim")).await?)?;
    Ok(())
}

/// A listing of a scope whose name looks like a pattern, or begins like another's, finds only its own keys.
async fn k2_listing_stays_inside_of_its_scope(lab: Lab) -> Verdict {
    let tenants = ["acme", "acme2", "a*", "a%", "_cme", "[a]cme", "acme:k", "ACME"];
    for tenant in tenants {
        let key = StateKey::new("n", tenant, "k", "id")?;
        lab.a.put(&key, &Put::new("x")).await?;
    }
    for tenant in tenants {
        let scope = Scope::new("n", tenant, "k")?;
        let page = lab.b.scan(&Scan::new(scope.clone())).await?;
        let keys: Vec<_> = page.items.into_iter().map(|item| item.key).collect();
        equal(tenant, "keys of the tenant", &keys, &vec![scope.key("id")?])?;
    }
    Ok(())
}

/// Another deployment on the same server, with another prefix, sees nothing, even when its prefix begins alike.
async fn k2_prefixes_isolate_deployments(lab: Lab) -> Verdict {
    let key = lab.key("shared");
    lab.write(&key, "ours").await?;
    for neighbour in [lab.neighbour().await?, lab.neighbour_with_longer_prefix().await?] {
        let seen = neighbour.read(&key).await?;
        let written = neighbour.a.put(&key, &Put::new("theirs").if_absent()).await?;
        neighbour.close().await?;
        absent(&key, "what another prefix sees", seen)?;
        applied(&key, "put-if-absent under another prefix", written)?;
    }
    let entry = present(&key, "our value after the neighbours wrote", lab.read(&key).await?)?;
    equal(&key, "our value", &entry.value, &"ours".into())
}

/// A listing does not return another deployment's keys.
async fn k2_listing_honours_the_prefix(lab: Lab) -> Verdict {
    lab.write(&lab.key("ours"), "x").await?;
    for neighbour in [lab.neighbour().await?, lab.neighbour_with_longer_prefix().await?] {
        let written = neighbour.write(&lab.key("theirs"), "x").await;
        let page = lab.a.scan(&Scan::new(lab.scope())).await;
        neighbour.close().await?;
        written?;
        let keys: Vec<_> = page?.items.into_iter().map(|item| item.key).collect();
        equal("listing", "keys of our prefix", &keys, &vec![lab.key("ours")])?;
    }
    Ok(())
}

/// The lock of a name does not meet the value of that name.
async fn k2_locks_do_not_meet_values(lab: Lab) -> Verdict {
    let key = lab.key("both");
    granted(&key, "lock", lab.a.lock_acquire(&LockRequest::new(key.clone(), LONG)).await?)?;
    absent(&key, "a value where only a lock was taken", lab.read(&key).await?)?;
    applied(&key, "put-if-absent under a lock's name", lab.a.put(&key, &Put::new("x").if_absent()).await?)?;
    lab.a.delete(&key, Condition::Always).await?;
    let state = present(&key, "the lock after its value was deleted", lab.b.lock_inspect(&key).await?)?;
    equal(&key, "holders", &state.holders.len(), &1)
}

/// Names are compared byte by byte: neither case nor Unicode form nor trailing blanks are folded.
async fn k2_similar_ids_are_different_keys(lab: Lab) -> Verdict {
    let ids = ["key", "Key", "key ", " key", "kéy", "ke\u{301}y", "01", "1", "1.0", "+1"];
    for id in ids {
        let outcome = lab.a.increment(&lab.key(id), Increment::by(1)).await?;
        equal(lab.key(id), "a counter of its own begins at", &outcome.counter().value, &1)?;
    }
    Ok(())
}

pub(crate) const CASES: &[Case] = &[
    case!("K1", k1_longest_keys_are_stored),
    case!("K2", k2_strange_characters_in_any_part_are_kept_apart),
    case!("K2", k2_separators_cannot_shift_between_parts),
    case!("K2", k2_wildcards_in_a_key_match_nothing_else),
    case!("K2", k2_listing_stays_inside_of_its_scope, [Need::Has("scan")]),
    case!("K2", k2_prefixes_isolate_deployments),
    case!("K2", k2_listing_honours_the_prefix, [Need::Has("scan")]),
    case!("K2", k2_locks_do_not_meet_values, [Need::Has("locks")]),
    case!("K2", k2_similar_ids_are_different_keys, [Need::Has("counters")]),
];
