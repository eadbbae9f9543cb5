//! M3: listings in bounded pages, with a cursor that can be kept, and complete whatever else happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use acteon_state_core::{
    Condition, Cursor, DueAt, ErrorKind, Increment, LockRequest, Put, RateLimit, Scan, ScanItem, Schedule, Scope,
    StateKey, StateStore,
};

use crate::case::{Case, Need, case};
use crate::lab::{LONG, Lab, PAST_SHORT, SHORT};
use crate::verdict::{Failure, Verdict, equal, holds, refused};

/// A listing that takes more pages than this does not end.
const PAGES_MAX: usize = 100_000;

/// All pages of a listing.
pub(crate) async fn pages(store: &dyn StateStore, scan: Scan) -> Verdict<Vec<Vec<ScanItem>>> {
    let (mut pages, mut scan) = (Vec::new(), scan);
    loop {
        let page = store.scan(&scan).await?;
        pages.push(page.items);
        match page.next {
            None => return Ok(pages),
            Some(_) if pages.len() > PAGES_MAX => return Err(Failure::new("the listing does not end")),
            Some(cursor) => scan = scan.from_cursor(Some(cursor)),
        }
    }
}

/// The ids of a listing, sorted, each once.
pub(crate) async fn ids(store: &dyn StateStore, scan: Scan) -> Verdict<BTreeSet<String>> {
    Ok(pages(store, scan).await?.into_iter().flatten().map(|item| item.key.id()).collect())
}

async fn fill(lab: &Lab, count: usize) -> Verdict<BTreeSet<String>> {
    let ids: BTreeSet<String> = (0..count).map(|at| format!("id-{at:04}")).collect();
    for id in &ids {
        lab.write(&lab.key(id), "x").await?;
    }
    Ok(ids)
}

/// Every key of the scope appears, in small pages and large, values and counters alike.
async fn m3_listing_finds_every_key(lab: Lab) -> Verdict {
    equal("listing", "ids of an empty scope", &ids(&*lab.a, Scan::new(lab.scope())).await?, &BTreeSet::new())?;
    let mut expected = fill(&lab, 57).await?;
    if lab.capabilities().counters {
        lab.a.increment(&lab.key("counter"), Increment::by(1)).await?;
        expected.insert("counter".to_owned());
    }
    for page_size in [1, 7, 57, 1_000] {
        let found = ids(&*lab.b, Scan::new(lab.scope()).page_size(page_size)).await?;
        equal("listing", &format!("ids in pages of {page_size}"), &found, &expected)?;
    }
    Ok(())
}

/// Other scopes, locks, limits and queues of the same names do not appear.
async fn m3_listing_finds_nothing_else(lab: Lab) -> Verdict {
    let expected = fill(&lab, 3).await?;
    for (namespace, tenant, kind) in [("conformance2", "tenant", "kind"), ("conformance", "tenant2", "kind")] {
        lab.a.put(&StateKey::new(namespace, tenant, kind, "other")?, &Put::new("x")).await?;
    }
    for kind in ["kind2", "kin", "kind:id", "KIND"] {
        lab.a.put(&StateKey::new("conformance", "tenant", kind, "other")?, &Put::new("x")).await?;
    }
    if lab.capabilities().locks {
        let request = LockRequest::new(lab.key("a-lock"), LONG);
        lab.a.lock_acquire(&request).await?;
    }
    if lab.capabilities().rate_limits {
        for limit in [RateLimit::fixed_window(1, LONG), RateLimit::sliding_window(1, LONG), RateLimit::gcra(1, LONG, 1)]
        {
            lab.a.rate_limit(&lab.key("a-limit"), &limit).await?;
        }
    }
    if lab.capabilities().due {
        let due_at = DueAt::After(LONG);
        let item = Schedule { id: "item".to_owned(), due_at, payload: "x".into() };
        lab.a.schedule(&lab.key("a-queue"), &item).await?;
    }
    equal("listing", "ids of the scope", &ids(&*lab.b, Scan::new(lab.scope())).await?, &expected)
}

/// Entries come with their keys when asked for, as a read would return them.
async fn m3_entries_come_along_when_asked_for(lab: Lab) -> Verdict {
    let mut versions = BTreeMap::new();
    for at in 0..10 {
        let put = Put::new(format!("value {at}"));
        lab.a.put(&lab.key(&format!("id-{at}")), &put).await?;
        versions.insert(format!("id-{at}"), (put.value.clone(), Some(put.version)));
    }
    for item in pages(&*lab.b, Scan::new(lab.scope()).page_size(4)).await?.concat() {
        equal(&item.key, "entry that was not asked for", &item.entry, &None)?;
    }
    let mut found = BTreeMap::new();
    for item in pages(&*lab.b, Scan::new(lab.scope()).page_size(4).with_entries()).await?.concat() {
        if let Some(entry) = item.entry {
            found.insert(item.key.id(), (entry.value, entry.version));
        }
    }
    equal("listing", "entries of the listing", &found, &versions)
}

/// A prefix of the id is taken literally.
async fn m3_id_prefix_is_literal(lab: Lab) -> Verdict {
    let all = ["a", "a*", "a*b", "ab", "a:", "a:b", "a%", "a_", "a[b]", "a\\", "b", "A", "é", "éa", "a{b}", "a?"];
    for id in all {
        lab.write(&lab.key(id), "x").await?;
    }
    for prefix in ["a", "a*", "a:", "a%", "a_", "a[", "a\\", "é", "a{", "a?", "nothing", "b", "*"] {
        let expected = all.iter().filter(|id| id.starts_with(prefix)).map(|id| (*id).to_owned()).collect();
        let found = ids(&*lab.a, Scan::new(lab.scope()).id_prefix(prefix).page_size(3)).await?;
        equal("listing", &format!("ids that begin with {prefix:?}"), &found, &expected)?;
    }
    Ok(())
}

/// Expired and deleted entries are not listed.
async fn m3_expired_and_deleted_entries_are_not_listed(lab: Lab) -> Verdict {
    lab.a.put(&lab.key("expired"), &Put::new("x").expires_after(SHORT)).await?;
    lab.write(&lab.key("deleted"), "x").await?;
    lab.write(&lab.key("kept"), "x").await?;
    lab.a.delete(&lab.key("deleted"), Condition::Always).await?;
    lab.advance(PAST_SHORT).await;
    let expected = BTreeSet::from(["kept".to_owned()]);
    equal("listing", "ids", &ids(&*lab.b, Scan::new(lab.scope())).await?, &expected)
}

/// A cursor is text that another handle can go on from.
async fn m3_cursor_is_resumed_on_another_handle(lab: Lab) -> Verdict {
    let expected = fill(&lab, 40).await?;
    let (mut found, mut cursor, mut turn) = (BTreeSet::new(), None, 0);
    loop {
        let scan = Scan::new(lab.scope()).page_size(7).from_cursor(cursor);
        let page = lab.handle(turn).scan(&scan).await?;
        found.extend(page.items.into_iter().map(|item| item.key.id()));
        turn += 1;
        cursor = match page.next {
            // Through its text, as an application would keep it between two requests.
            Some(next) => Some(Cursor::new(next.as_str())?),
            None => break,
        };
        holds("listing", "the listing ends", turn < PAGES_MAX, turn)?;
    }
    equal("listing", "ids over pages on two handles", &found, &expected)
}

/// A cursor that no page returned is refused, not taken for the beginning or the end.
async fn m3_garbage_cursor_is_invalid(lab: Lab) -> Verdict {
    fill(&lab, 5).await?;
    for garbage in ["garbage", "-1", "0x", "\u{1}", "ünï", "99999999999999999999999999", "🙂", " "] {
        let scan = Scan::new(lab.scope()).from_cursor(Some(Cursor::new(garbage)?));
        refused("listing", &format!("cursor {garbage:?}"), lab.a.scan(&scan).await, ErrorKind::Invalid)?;
    }
    Ok(())
}

/// Page sizes out of range are refused.
async fn m3_page_size_is_bounded(lab: Lab) -> Verdict {
    let zero = lab.a.scan(&Scan::new(lab.scope()).page_size(0)).await;
    refused("listing", "page size 0", zero, ErrorKind::Invalid)?;
    let large = lab.a.scan(&Scan::new(lab.scope()).page_size(1_001)).await;
    refused("listing", "page size 1,001", large, ErrorKind::TooLarge)?;
    let prefix = lab.a.scan(&Scan::new(lab.scope()).id_prefix("a\0")).await;
    refused("listing", "an id prefix with NUL", prefix, ErrorKind::Invalid).map(|_| ())
}

/// Where it is declared: pages in byte order of the ids, each exactly as long as asked for but the last.
async fn m3_ordered_pages_are_sorted_and_exact(lab: Lab) -> Verdict {
    let ids = ["A", "a", "a!", "a$", "a*", "a:", "a;", "aa", "b", "{", "}", "~", "é", "ü", "🙂", "0", "10", "9"];
    for id in ids {
        lab.write(&lab.key(id), "x").await?;
    }
    let mut expected: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    expected.sort_unstable();
    let pages = pages(&*lab.b, Scan::new(lab.scope()).page_size(5)).await?;
    let lengths: Vec<usize> = pages.iter().map(Vec::len).collect();
    holds("listing", "all pages but the last are full", lengths.iter().rev().skip(1).all(|len| *len == 5), &lengths)?;
    let found: Vec<String> = pages.into_iter().flatten().map(|item| item.key.id()).collect();
    equal("listing", "ids in their order", &found, &expected)
}

/// Keys that exist throughout a listing appear, however many others come and go meanwhile.
async fn m3_listing_is_complete_under_churn(lab: Lab) -> Verdict {
    let stable = fill(&lab, 200).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let (store, scope, stopped) = (lab.a.clone(), lab.scope(), stop.clone());
    let churn = tokio::spawn(async move { churn(&*store, &scope, &stopped).await });
    let mut missing = Vec::new();
    for _ in 0..5 {
        let found = ids(&*lab.b, Scan::new(lab.scope()).page_size(9)).await?;
        missing.extend(stable.difference(&found).cloned());
    }
    stop.store(true, Ordering::Relaxed);
    churn.await.map_err(|error| Failure::new(format!("the churning task panicked: {error}")))??;
    equal("listing", "ids that exist all the time and were not listed", &missing, &vec![])
}

/// Writes and deletes keys before, between and after the stable ones.
async fn churn(store: &dyn StateStore, scope: &Scope, stop: &AtomicBool) -> Verdict {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        let batch: Vec<StateKey> = (0..50)
            .map(|at| scope.key(&format!("{}-{at:04}-churn-{}", ["ic", "id", "ie"][at % 3], round % 7)))
            .collect::<Result<_, _>>()?;
        for key in &batch {
            store.put(key, &Put::new("y")).await?;
        }
        for key in &batch {
            store.delete(key, Condition::Always).await?;
        }
        round += 1;
        tokio::task::yield_now().await;
    }
    Ok(())
}

pub(crate) const CASES: &[Case] = &[
    case!("M3", m3_listing_finds_every_key, [Need::Has("scan")]),
    case!("M3", m3_listing_finds_nothing_else, [Need::Has("scan")]),
    case!("M3", m3_entries_come_along_when_asked_for, [Need::Has("scan")]),
    case!("M3", m3_id_prefix_is_literal, [Need::Has("scan")]),
    case!("M3", m3_expired_and_deleted_entries_are_not_listed, [Need::Has("scan")]),
    case!("M3", m3_cursor_is_resumed_on_another_handle, [Need::Has("scan"), Need::OneDriver]),
    case!("M3", m3_garbage_cursor_is_invalid, [Need::Has("scan")]),
    case!("M3", m3_page_size_is_bounded, [Need::Has("scan")]),
    case!("M3", m3_ordered_pages_are_sorted_and_exact, [Need::Has("scan"), Need::Has("ordered_scan")]),
    case!("M3", m3_listing_is_complete_under_churn, [Need::Has("scan")]),
];
