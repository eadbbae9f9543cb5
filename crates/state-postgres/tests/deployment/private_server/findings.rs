//! Findings: what the store holds in the end, against the ledger of what was told.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use acteon_state_core::{ClaimDue, FencingToken, Get, LockOutcome, LockRequest, StateKey, StateStore};
use acteon_state_postgres::PostgresStore;

use super::load::{Counted, Held, Ledger};
use super::{granted, key};

/// Far longer than a test lasts.
const LONG: Duration = Duration::from_secs(3_600);

/// What does not fit together.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Acknowledged, and not there any more: what an asynchronous standby may cost.
    pub(super) lost: Vec<String>,
    /// What nothing excuses.
    pub(super) wrong: Vec<String>,
}

impl Findings {
    /// Compares the ledger of the load with this name to what is stored.
    pub(super) async fn of(store: &PostgresStore, name: &str, mut ledger: Ledger) -> Self {
        let mut findings = Self { lost: Vec::new(), wrong: std::mem::take(&mut ledger.wrong) };
        findings.check_values(store, &ledger).await;
        findings.check_counters(store, &ledger).await;
        findings.check_firsts(store, &ledger).await;
        findings.check_items(store, &key("queue", &format!("{name} ")), &ledger).await;
        for (lock, grants) in &ledger.grants {
            findings.check_grants(lock, grants);
        }
        findings
    }

    /// Fails unless all is well.
    pub(super) fn assert_none(&self, seed: u64) {
        assert!(self.lost.is_empty() && self.wrong.is_empty(), "seed {seed}: {self}");
    }

    async fn check_values(&mut self, store: &PostgresStore, ledger: &Ledger) {
        for (id, written) in &ledger.values {
            let stored = read(store, &key("value", id)).await.map(|value| value.parse::<u64>().unwrap());
            if stored == written.acknowledged || stored.is_some() && stored == written.perhaps {
                continue;
            }
            let finding = format!("value {id}: {stored:?} is stored, {:?} was acknowledged", written.acknowledged);
            if stored > written.acknowledged { &mut self.wrong } else { &mut self.lost }.push(finding);
        }
    }

    async fn check_counters(&mut self, store: &PostgresStore, ledger: &Ledger) {
        for (id, counted) in &ledger.counters {
            let Counted { acknowledged, unknown, repeated, .. } = counted;
            let stored: u64 = read(store, &key("counter", id)).await.map_or(0, |value| value.parse().unwrap());
            let finding =
                format!("counter {id}: {stored} is stored, told were {acknowledged} and perhaps {unknown} more");
            if stored > acknowledged + unknown {
                self.wrong.push(finding);
            } else if stored < *acknowledged {
                self.lost.push(finding);
            }
            if !repeated.is_empty() {
                self.lost.push(format!("counter {id}: reached twice: {repeated:?}"));
            }
        }
    }

    async fn check_firsts(&mut self, store: &PostgresStore, ledger: &Ledger) {
        for (id, firsts) in &ledger.firsts {
            let stored = read(store, &key("first", id)).await;
            if firsts.len() > 1 || stored.as_ref() != firsts.first() {
                self.lost.push(format!("first {id}: {stored:?} is stored, told were {firsts:?}"));
            }
        }
    }

    async fn check_items(&mut self, store: &PostgresStore, queue: &StateKey, ledger: &Ledger) {
        let mut found = BTreeSet::new();
        loop {
            let claimed = store.claim_due(queue, ClaimDue { limit: 500, visibility: LONG }).await.unwrap();
            if claimed.items.is_empty() {
                break;
            }
            for item in claimed.items {
                if !found.insert(item.id.clone()) {
                    self.wrong.push(format!("item {} was claimed twice", item.id));
                }
            }
        }
        self.lost.extend(ledger.items.difference(&found).map(|id| format!("item {id}")));
    }

    /// Tokens rise in the order in which things happened, and holders follow each other.
    fn check_grants(&mut self, lock: &str, grants: &[Held]) {
        for later in grants {
            for earlier in grants.iter().filter(|earlier| earlier.from <= later.asked) {
                if earlier.token >= later.token {
                    self.wrong.push(format!("lock {lock}: token {} came after {}", later.token, earlier.token));
                }
            }
        }
        let mut by_time: Vec<&Held> = grants.iter().collect();
        by_time.sort_by_key(|held| held.from);
        for pair in by_time.windows(2).filter(|pair| pair[1].from < pair[0].until) {
            self.lost.push(format!("lock {lock}: {} was granted while {} was held", pair[1].token, pair[0].token));
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, findings) in [("lost", &self.lost), ("wrong", &self.wrong)] {
            writeln!(f, "{title}: {}", findings.len())?;
            findings.iter().try_for_each(|finding| writeln!(f, "  {finding}"))?;
        }
        Ok(())
    }
}

async fn read(store: &PostgresStore, key: &StateKey) -> Option<String> {
    let entry = store.get(key, Get::default()).await.unwrap()?;
    Some(String::from_utf8(entry.value.to_vec()).unwrap())
}

/// Takes locks that nobody else asks for, to be held for longer than the test lasts.
pub(super) async fn hold(store: &PostgresStore, name: &str, count: usize) -> Vec<(LockRequest, FencingToken)> {
    let mut held = Vec::new();
    for number in 0..count {
        let request = LockRequest::new(key("held", &format!("{name} {number}")), LONG);
        let token = granted(store, &request).await.token;
        held.push((request, token));
    }
    held
}

/// How many of these grants were forgotten, so that somebody else gets the lock. Whoever gets it has a higher token.
pub(super) async fn forgotten(store: &PostgresStore, held: &[(LockRequest, FencingToken)]) -> usize {
    let mut forgotten = 0;
    for (request, token) in held {
        match store.lock_acquire(&LockRequest::new(request.key.clone(), LONG)).await.unwrap() {
            LockOutcome::Busy(busy) => assert_eq!(busy.token, Some(*token)),
            LockOutcome::Granted(grant) => {
                assert!(grant.token > *token, "{}: {} follows {token}", request.key, grant.token);
                forgotten += 1;
            }
        }
    }
    forgotten
}
