//! V: values are bytes, versions never repeat, time to live is exact to the millisecond.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use acteon_state_core::{Condition, DeleteOutcome, Entry, ErrorKind, Get, Put, PutOutcome, State, TTL_MAX, Ttl};

use crate::case::{Case, Need, case};
use crate::lab::{CLOCK_GRAIN, LONG, Lab, PAST_SHORT, PATIENCE, SHORT};
use crate::verdict::{Verdict, absent, applied, equal, holds, present, refused};

/// How much of a long time to live a case may take: beyond it, something else is wrong.
const CASE_SPAN: Duration = Duration::from_secs(120);

/// Every byte is stored as it is, also what looks like a record, a number or text in another encoding.
async fn v1_values_are_any_bytes(lab: Lab) -> Verdict {
    let all: Vec<u8> = (0..=255).collect();
    let values: [&[u8]; 8] = [&all, b"\0", b"42", b"v12345", b"\xff\xfe\r\n", b"$-1\r\n", b"null", "ünï🙂".as_bytes()];
    for (at, value) in values.into_iter().enumerate() {
        let key = lab.key(&format!("bytes-{at}"));
        lab.a.put(&key, &Put::new(value.to_vec())).await?;
        let entry = present(&key, "value", lab.read(&key).await?)?;
        equal(&key, "value", &&entry.value[..], &value)?;
    }
    Ok(())
}

/// An empty value is a value.
async fn v1_empty_is_not_absent(lab: Lab) -> Verdict {
    let key = lab.key("empty");
    absent(&key, "an entry that was never written", lab.read(&key).await?)?;
    let put = lab.write(&key, "").await?;
    let expected = Entry { value: "".into(), version: Some(put.version), fence: None, ttl: None };
    equal(&key, "entry with an empty value", &lab.read(&key).await?, &Some(expected))?;
    let written = lab.a.put(&key, &Put::new("x").if_absent()).await?;
    equal(&key, "put-if-absent over an empty value is applied", &written.is_applied(), &false)
}

/// A large value arrives whole.
async fn v1_large_values_arrive_whole(lab: Lab) -> Verdict {
    let key = lab.key("large");
    let bytes = usize::try_from(lab.capabilities().value_bytes_max.min(1 << 20)).unwrap_or(0);
    let value: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    lab.a.put(&key, &Put::new(value.clone())).await?;
    let entry = present(&key, "large value", lab.read(&key).await?)?;
    holds(&key, "a large value is read back byte by byte", entry.value == value, entry.value.len())
}

/// Each write stores the version that it announced; a read changes nothing.
async fn v2_each_write_makes_its_own_version(lab: Lab) -> Verdict {
    let key = lab.key("versions");
    let mut seen = HashSet::new();
    for _ in 0..10 {
        let put = Put::new("same value");
        let version = applied(&key, "write", lab.a.put(&key, &put).await?)?;
        equal(&key, "version that a write returns", &version, &put.version)?;
        for _ in 0..2 {
            let entry = present(&key, "entry", lab.read(&key).await?)?;
            equal(&key, "version that a read returns", &entry.version, &Some(version))?;
        }
        holds(&key, "a version is new with each write, also of the same value", seen.insert(version), version)?;
    }
    Ok(())
}

/// A version from before a delete, a take or expiry does not pass after re-creation (ABA).
async fn v2_versions_never_repeat_across_recreation(lab: Lab) -> Verdict {
    let key = lab.key("aba");
    let first = lab.write(&key, "same").await?;
    lab.a.delete(&key, Condition::Always).await?;
    let second = Put::new("same").expires_after(SHORT);
    lab.a.put(&key, &second).await?;
    lab.advance(PAST_SHORT).await;
    let third = lab.write(&key, "same").await?;
    lab.a.take(&key).await?;
    let fourth = lab.write(&key, "same").await?;
    for old in [&first, &second, &third] {
        let swap = lab.b.put(&key, &Put::new("stolen").if_version(old.version)).await?;
        equal(&key, "compare-and-swap with a version of an earlier life is applied", &swap.is_applied(), &false)?;
    }
    let entry = present(&key, "entry", lab.read(&key).await?)?;
    equal(&key, "version", &entry.version, &Some(fourth.version))
}

/// A plain write clears the time to live.
async fn v3_plain_write_clears_the_ttl(lab: Lab) -> Verdict {
    let key = lab.key("cleared");
    lab.a.put(&key, &Put::new("1").expires_after(SHORT)).await?;
    lab.write(&key, "2").await?;
    let entry = present(&key, "entry", lab.read_ttl(&key).await?)?;
    equal(&key, "ttl after a plain write", &entry.ttl, &None)?;
    lab.advance(PAST_SHORT).await;
    present(&key, "an entry whose ttl was cleared", lab.read(&key).await?).map(|_| ())
}

/// `Keep` leaves the time where it was; on a new entry it means none.
async fn v3_keep_leaves_the_ttl(lab: Lab) -> Verdict {
    let key = lab.key("kept");
    lab.a.put(&key, &Put::new("1").ttl(Ttl::Keep)).await?;
    let entry = present(&key, "new entry", lab.read_ttl(&key).await?)?;
    equal(&key, "ttl of a new entry written with Keep", &entry.ttl, &None)?;
    lab.a.put(&key, &Put::new("2").expires_after(LONG)).await?;
    lab.advance(SHORT).await;
    let put = Put::new("3").ttl(Ttl::Keep);
    lab.a.put(&key, &put).await?;
    let entry = present(&key, "entry", lab.read_ttl(&key).await?)?;
    equal(&key, "version after a write with Keep", &entry.version, &Some(put.version))?;
    let ttl = present(&key, "ttl after a write with Keep", entry.ttl)?;
    holds(&key, "Keep does not restart the ttl", ttl <= LONG - SHORT + CLOCK_GRAIN, ttl)?;
    lab.a.put(&key, &Put::new("4").expires_after(SHORT)).await?;
    lab.a.put(&key, &Put::new("5").ttl(Ttl::Keep)).await?;
    lab.advance(PAST_SHORT).await;
    absent(&key, "an entry after the ttl that Keep kept", lab.read(&key).await?)
}

/// `After` replaces the time, longer or shorter.
async fn v3_after_replaces_the_ttl(lab: Lab) -> Verdict {
    let key = lab.key("replaced");
    lab.a.put(&key, &Put::new("1").expires_after(SHORT)).await?;
    lab.a.put(&key, &Put::new("2").expires_after(LONG)).await?;
    lab.advance(PAST_SHORT).await;
    present(&key, "an entry whose ttl was made longer", lab.read(&key).await?)?;
    lab.a.put(&key, &Put::new("3").expires_after(SHORT)).await?;
    lab.advance(PAST_SHORT).await;
    absent(&key, "an entry whose ttl was made shorter", lab.read(&key).await?)
}

/// Zero and more than a century are refused; nothing is written.
async fn v3_ttl_out_of_range_is_invalid(lab: Lab) -> Verdict {
    let key = lab.key("range");
    for ttl in [Duration::ZERO, TTL_MAX + Duration::from_millis(1), Duration::MAX] {
        let put = lab.a.put(&key, &Put::new("x").expires_after(ttl)).await;
        refused(&key, "put with a ttl out of range", put, ErrorKind::Invalid)?;
        absent(&key, "an entry after a refused write", lab.read(&key).await?)?;
    }
    lab.write(&key, "x").await?;
    let touch = lab.a.touch(&key, Ttl::After(Duration::ZERO)).await;
    refused(&key, "touch with ttl zero", touch, ErrorKind::Invalid)?;
    present(&key, "the entry after a refused touch", lab.read(&key).await?).map(|_| ())
}

/// The longest time to live is held.
async fn v3_longest_ttl_is_held(lab: Lab) -> Verdict {
    let key = lab.key("century");
    lab.a.put(&key, &Put::new("x").expires_after(TTL_MAX)).await?;
    let entry = present(&key, "entry with the longest ttl", lab.read_ttl(&key).await?)?;
    let ttl = present(&key, "the longest ttl", entry.ttl)?;
    holds(&key, "the longest ttl is kept", ttl <= TTL_MAX && ttl >= TTL_MAX - CASE_SPAN, ttl)
}

/// `touch` changes the time and nothing else.
async fn v3_touch_changes_only_the_ttl(lab: Lab) -> Verdict {
    let key = lab.key("touched");
    equal(&key, "touch of an absent key finds an entry", &lab.a.touch(&key, Ttl::After(LONG)).await?, &false)?;
    let put = lab.write(&key, "x").await?;
    for (ttl, expires) in [(Ttl::After(LONG), true), (Ttl::Keep, true), (Ttl::Clear, false), (Ttl::Keep, false)] {
        equal(&key, "touch finds an entry", &lab.a.touch(&key, ttl).await?, &true)?;
        let entry = present(&key, "entry", lab.read_ttl(&key).await?)?;
        equal(&key, "value and version", &(entry.value, entry.version), &("x".into(), Some(put.version)))?;
        holds(
            &key,
            &format!("after touch({ttl:?}) the entry expires: {expires}"),
            entry.ttl.is_some() == expires,
            entry.ttl,
        )?;
    }
    lab.a.touch(&key, Ttl::After(SHORT)).await?;
    lab.advance(PAST_SHORT).await;
    absent(&key, "an entry after the ttl that touch set", lab.read(&key).await?)?;
    equal(&key, "touch of an expired entry finds it", &lab.a.touch(&key, Ttl::After(LONG)).await?, &false)?;
    absent(&key, "an expired entry after touch", lab.read(&key).await?)
}

/// An expired entry is absent to each operation, each asked first on an entry of its own.
async fn v4_expired_is_absent_to_every_operation(lab: Lab) -> Verdict {
    let keys: Vec<_> = (0..7).map(|at| lab.key(&format!("expired-{at}"))).collect();
    let mut versions = Vec::new();
    for key in &keys {
        let put = Put::new("x").expires_after(SHORT);
        versions.push(put.version);
        lab.a.put(key, &put).await?;
    }
    lab.advance(PAST_SHORT).await;
    absent(&keys[0], "get after expiry", lab.b.get(&keys[0], Get::with_ttl()).await?)?;
    applied(&keys[1], "put-if-absent after expiry", lab.b.put(&keys[1], &Put::new("y").if_absent()).await?)?;
    let update = lab.b.put(&keys[2], &Put::new("y").when(Condition::Present)).await?;
    equal(&keys[2], "put-if-present after expiry", &update, &PutOutcome::NotMet(None))?;
    let deleted = lab.b.delete(&keys[3], Condition::Always).await?;
    equal(&keys[3], "delete after expiry", &deleted, &DeleteOutcome::Absent)?;
    absent(&keys[4], "take after expiry", lab.b.take(&keys[4]).await?)?;
    equal(&keys[5], "touch after expiry", &lab.b.touch(&keys[5], Ttl::Clear).await?, &false)?;
    let kept = lab.b.put(&keys[6], &Put::new("y").ttl(Ttl::Keep)).await?;
    applied(&keys[6], "put with Keep after expiry", kept)?;
    let entry = present(&keys[6], "an entry written with Keep after expiry", lab.read_ttl(&keys[6]).await?)?;
    equal(&keys[6], "its ttl: a new entry has none", &entry.ttl, &None)
}

/// Compare-and-swap on an expired entry fails as on an absent one.
async fn v4_expired_is_absent_to_compare_and_swap(lab: Lab) -> Verdict {
    let key = lab.key("expired");
    let put = Put::new("x").expires_after(SHORT);
    lab.a.put(&key, &put).await?;
    lab.advance(PAST_SHORT).await;
    let swap = lab.b.put(&key, &Put::new("y").if_version(put.version)).await?;
    equal(&key, "compare-and-swap after expiry", &swap, &PutOutcome::NotMet(None))
}

/// An entry lives at least as long as its time to live says.
async fn v4_entries_never_vanish_early(lab: Lab) -> Verdict {
    let ttl = 2 * SHORT;
    for round in 0..3 {
        let key = lab.key(&format!("early-{round}"));
        let before = lab.elapsed();
        lab.a.put(&key, &Put::new("x").expires_after(ttl)).await?;
        while lab.read(&key).await?.is_some() {
            lab.advance(Duration::from_millis(3)).await;
            holds(&key, "it expires at all", lab.elapsed() < before + CASE_SPAN, lab.elapsed())?;
        }
        let lived = lab.elapsed() - before;
        holds(&key, "it does not vanish before its ttl is over", lived + CLOCK_GRAIN >= ttl, lived)?;
    }
    Ok(())
}

/// The remaining time comes with the value when asked for, and only then.
async fn v5_get_returns_the_remaining_ttl_when_asked(lab: Lab) -> Verdict {
    let key = lab.key("remaining");
    lab.a.put(&key, &Put::new("x").expires_after(LONG)).await?;
    let entry = present(&key, "entry", lab.read(&key).await?)?;
    equal(&key, "ttl that was not asked for", &entry.ttl, &None)?;
    let entry = present(&key, "entry", lab.read_ttl(&key).await?)?;
    let first = present(&key, "ttl", entry.ttl)?;
    holds(&key, "the ttl is at most what was set", first <= LONG, first)?;
    holds(&key, "the ttl is about what was set", first >= LONG - CASE_SPAN, first)?;
    lab.advance(SHORT).await;
    let entry = present(&key, "entry", lab.read_ttl(&key).await?)?;
    let second = present(&key, "ttl", entry.ttl)?;
    holds(&key, "the ttl falls with time", second + SHORT <= first + CLOCK_GRAIN, (first, second))
}

/// A read that may be stale gives an entry that does not change, once it is everywhere, and nothing else before.
async fn v5_a_read_that_may_be_stale_gives_what_does_not_change(lab: Lab) -> Verdict {
    const IN_A_ROW: usize = 20;
    let key = lab.key("stale");
    let put = Put::new("unchanging").expires_after(LONG);
    let expected = Entry { value: put.value.clone(), version: Some(put.version), fence: None, ttl: None };
    lab.a.put(&key, &put).await?;
    let state = State::new(lab.b.clone());
    let started = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < IN_A_ROW {
        match state.get_stale_ok(&key).await? {
            Some(entry) => {
                equal(&key, "entry by a read that may be stale", &entry, &expected)?;
                in_a_row += 1;
            }
            // From before the write.
            None => {
                in_a_row = 0;
                let waited = started.elapsed();
                holds(&key, "a read that may be stale gives the entry in the end", waited < PATIENCE, waited)?;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    let entry = present(&key, "entry", lab.b.get(&key, Get { with_ttl: true, stale_ok: true }).await?)?;
    let ttl = present(&key, "ttl by a read that may be stale", entry.ttl)?;
    holds(&key, "that ttl is about what was set", ttl <= LONG && ttl >= LONG - CASE_SPAN, ttl)?;
    equal(&key, "entry by a read that may not", &lab.read(&key).await?, &Some(expected))
}

pub(crate) const CASES: &[Case] = &[
    case!("V1", v1_values_are_any_bytes),
    case!("V1", v1_empty_is_not_absent),
    case!("V1", v1_large_values_arrive_whole),
    case!("V2", v2_each_write_makes_its_own_version),
    case!("V2", v2_versions_never_repeat_across_recreation, [Need::Has("cas")]),
    case!("V3", v3_plain_write_clears_the_ttl),
    case!("V3", v3_keep_leaves_the_ttl),
    case!("V3", v3_after_replaces_the_ttl),
    case!("V3", v3_ttl_out_of_range_is_invalid),
    case!("V3", v3_longest_ttl_is_held),
    case!("V3", v3_touch_changes_only_the_ttl),
    case!("V4", v4_expired_is_absent_to_every_operation),
    case!("V4", v4_expired_is_absent_to_compare_and_swap, [Need::Has("cas")]),
    case!("V4", v4_entries_never_vanish_early),
    case!("V5", v5_get_returns_the_remaining_ttl_when_asked),
    case!("V5", v5_a_read_that_may_be_stale_gives_what_does_not_change),
];
