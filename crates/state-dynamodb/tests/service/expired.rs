//! Entries that have expired and lie in the table until the service removes them, up to days later.

use std::time::Duration;

use acteon_state_core::{Get, Operation, Put, Scan, Scope, StateStore as _, Ttl};
use futures_util::future::try_join_all;

use crate::{Bed, key, until};

const EXPIRED: u32 = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_page_after_many_expired_entries_takes_few_requests() {
    let bed = Bed::start().await;
    let store = &bed.direct;
    let expired: Vec<_> = (0..EXPIRED).map(|at| key(&format!("expired {at}"))).collect();
    for keys in expired.chunks(32) {
        let puts: Vec<_> =
            keys.iter().map(|key| (key, Put::new("v").ttl(Ttl::After(Duration::from_millis(1))))).collect();
        try_join_all(puts.iter().map(|(key, put)| store.put(key, put))).await.unwrap();
    }
    let live = key("live");
    store.put(&live, &Put::new("v")).await.unwrap();
    let last = expired.last().unwrap();
    until("the last of them expires", async || store.get(last, Get::default()).await.unwrap().is_none()).await;

    let scan = Scan { page_size: 1, ..Scan::new(Scope::new("tests", "acme", "service").unwrap()) };
    let page = store.scan(&scan).await.unwrap();
    assert_eq!(page.items.into_iter().map(|item| item.key).collect::<Vec<_>>(), [live]);
    let requests = store.capacity().of(Operation::Scan).requests;
    assert!(requests <= 40, "{requests}");
}
