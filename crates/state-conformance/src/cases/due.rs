//! D: work that waits for its time, is claimed by one worker at a time, and never lost.

use std::collections::BTreeSet;
use std::time::Duration;

use acteon_state_core::{
    ClaimDue, ClaimOutcome, ClaimToken, Claimed, DueAt, DueItem, ErrorKind, Schedule, Scheduled, StateKey, StateStore,
};

use crate::case::{Case, Need, case};
use crate::lab::{CLOCK_GRAIN, LONG, Lab, PAST_SHORT, SHORT};
use crate::verdict::{Failure, Verdict, equal, holds, present, refused};

fn item(id: &str, due_at: DueAt) -> Schedule {
    Schedule { id: id.to_owned(), due_at, payload: format!("payload of {id}").into() }
}

fn now(id: &str) -> Schedule {
    item(id, DueAt::After(Duration::ZERO))
}

async fn claim(store: &dyn StateStore, queue: &StateKey, limit: u32, visibility: Duration) -> Verdict<Claimed> {
    Ok(store.claim_due(queue, ClaimDue { limit, visibility }).await?)
}

async fn claim_one(store: &dyn StateStore, queue: &StateKey, visibility: Duration) -> Verdict<DueItem> {
    present(queue, "a due item", claim(store, queue, 1, visibility).await?.items.pop())
}

fn names(claimed: &Claimed) -> Vec<&str> {
    claimed.items.iter().map(|item| item.id.as_str()).collect()
}

/// An item is handed out when it is due, not before, with what was scheduled.
async fn d1_items_are_handed_out_when_due(lab: Lab) -> Verdict {
    let queue = lab.key("queue");
    let scheduled = lab.a.schedule(&queue, &item("later", DueAt::After(2 * SHORT))).await?;
    equal(&queue, "schedule of a new id", &scheduled, &Scheduled::Created)?;
    let before = lab.elapsed();
    let claimed = loop {
        let claimed = claim(&*lab.b, &queue, 10, LONG).await?;
        if !claimed.items.is_empty() {
            break claimed;
        }
        let wait = present(&queue, "time until the next item", claimed.next_due_in)?;
        holds(&queue, "time until the next item", wait <= 2 * SHORT + CLOCK_GRAIN, wait)?;
        lab.advance(wait.max(Duration::from_millis(1))).await;
        holds(&queue, "the item comes at all", lab.elapsed() < before + LONG, lab.elapsed())?;
    };
    let first = &claimed.items[0];
    equal(&queue, "id and payload", &(first.id.as_str(), &first.payload[..]), &("later", &b"payload of later"[..]))?;
    equal(&queue, "attempt of the first claim", &first.attempt, &1)
}

/// Due at an absolute time: one in the past is due now, one far away is not.
async fn d1_absolute_times_are_understood(lab: Lab) -> Verdict {
    let queue = lab.key("absolute");
    for (id, at_ms) in [("epoch", 0), ("past", 1_000), ("far", (1 << 53) - 1)] {
        lab.a.schedule(&queue, &item(id, DueAt::UnixMs(at_ms))).await?;
    }
    let claimed = claim(&*lab.b, &queue, 10, LONG).await?;
    equal(&queue, "items, the earliest first", &names(&claimed), &vec!["epoch", "past"])?;
    let times: Vec<u64> = claimed.items.iter().map(|item| item.due_at_ms).collect();
    equal(&queue, "times that come back", &times, &vec![0, 1_000])
}

/// A claim returns at most its limit, the earliest first, and says that more are due.
async fn d1_earliest_come_first_and_the_limit_holds(lab: Lab) -> Verdict {
    let queue = lab.key("order");
    for (id, at_ms) in [("c", 3_000), ("a", 1_000), ("d", 4_000), ("b", 2_000), ("e", 5_000)] {
        lab.a.schedule(&queue, &item(id, DueAt::UnixMs(at_ms))).await?;
    }
    let first = claim(&*lab.a, &queue, 2, LONG).await?;
    equal(&queue, "first claim of two", &names(&first), &vec!["a", "b"])?;
    equal(&queue, "time until the next item when more are due", &first.next_due_in, &Some(Duration::ZERO))?;
    let rest = claim(&*lab.b, &queue, 1_000, LONG).await?;
    equal(&queue, "the rest", &names(&rest), &vec!["c", "d", "e"])
}

/// Scheduling an id again replaces time and payload, earlier or later.
async fn d1_schedule_replaces_the_same_id(lab: Lab) -> Verdict {
    let queue = lab.key("replace");
    lab.a.schedule(&queue, &item("sooner", DueAt::After(LONG))).await?;
    lab.a.schedule(&queue, &now("later")).await?;
    let sooner = Schedule { payload: "new".into(), ..now("sooner") };
    equal(&queue, "schedule of a known id", &lab.b.schedule(&queue, &sooner).await?, &Scheduled::Replaced)?;
    lab.b.schedule(&queue, &item("later", DueAt::After(LONG))).await?;
    let claimed = claim(&*lab.a, &queue, 10, LONG).await?;
    equal(&queue, "items that are due after replacing", &names(&claimed), &vec!["sooner"])?;
    equal(&queue, "payload after replacing", &claimed.items[0].payload, &"new".into())
}

/// `cancel` removes an item, waiting or claimed, and says whether it was there.
async fn d1_cancel_removes_an_item(lab: Lab) -> Verdict {
    let queue = lab.key("cancel");
    equal(&queue, "cancel of an unknown id", &lab.a.cancel(&queue, "unknown").await?, &false)?;
    lab.a.schedule(&queue, &now("waiting")).await?;
    equal(&queue, "cancel of a waiting item", &lab.b.cancel(&queue, "waiting").await?, &true)?;
    equal(&queue, "second cancel", &lab.b.cancel(&queue, "waiting").await?, &false)?;
    lab.a.schedule(&queue, &now("claimed")).await?;
    let claimed = claim_one(&*lab.a, &queue, SHORT).await?;
    equal(&queue, "cancel of a claimed item", &lab.b.cancel(&queue, "claimed").await?, &true)?;
    equal(&queue, "ack after cancel", &lab.a.ack(&queue, "claimed", claimed.token).await?, &ClaimOutcome::Lost)?;
    lab.advance(PAST_SHORT).await;
    equal(&queue, "items after cancel", &claim(&*lab.a, &queue, 10, LONG).await?, &Claimed::default())
}

/// Queues of other names, and values of the same name, do not meet.
async fn d1_queues_are_apart(lab: Lab) -> Verdict {
    let (queue, other) = (lab.key("q"), lab.key("q2"));
    lab.a.schedule(&queue, &now("same-id")).await?;
    equal(&other, "items of another queue", &claim(&*lab.b, &other, 10, LONG).await?, &Claimed::default())?;
    equal(&other, "cancel in another queue", &lab.b.cancel(&other, "same-id").await?, &false)?;
    equal(&queue, "a value under the queue's name", &lab.read(&queue).await?, &None)?;
    equal(&queue, "items", &names(&claim(&*lab.b, &queue, 10, LONG).await?), &vec!["same-id"])
}

/// A queue that holds nothing says so.
async fn d1_empty_queue_has_no_next_item(lab: Lab) -> Verdict {
    let queue = lab.key("empty");
    equal(&queue, "claim on an empty queue", &claim(&*lab.a, &queue, 10, LONG).await?, &Claimed::default())?;
    lab.a.schedule(&queue, &now("one")).await?;
    let one = claim_one(&*lab.a, &queue, LONG).await?;
    lab.a.ack(&queue, &one.id, one.token).await?;
    equal(
        &queue,
        "claim after the last item was acknowledged",
        &claim(&*lab.b, &queue, 10, LONG).await?,
        &Claimed::default(),
    )
}

/// Strange ids and payloads of any bytes come back as they are.
async fn d1_ids_and_payloads_are_kept(lab: Lab) -> Verdict {
    let queue = lab.key("bytes");
    let payload: Vec<u8> = (0..=255).collect();
    for id in ["a b", "a:b", "-", "*", "ünï🙂", "i1 2 3", "\n", &"x".repeat(512)] {
        let schedule = Schedule { id: id.to_owned(), due_at: DueAt::UnixMs(0), payload: payload.clone().into() };
        lab.a.schedule(&queue, &schedule).await?;
        let claimed = claim_one(&*lab.b, &queue, LONG).await?;
        equal(&queue, "id", &claimed.id.as_str(), &id)?;
        equal(&queue, "payload", &&claimed.payload[..], &&payload[..])?;
        equal(&queue, "ack", &lab.a.ack(&queue, id, claimed.token).await?, &ClaimOutcome::Done)?;
    }
    let empty = Schedule { id: "empty".to_owned(), due_at: DueAt::UnixMs(0), payload: "".into() };
    lab.a.schedule(&queue, &empty).await?;
    equal(&queue, "empty payload", &claim_one(&*lab.b, &queue, LONG).await?.payload, &"".into())
}

/// Requests out of range are refused.
async fn d1_nonsense_is_refused(lab: Lab) -> Verdict {
    let queue = lab.key("nonsense");
    for id in ["", "a\0b", &"x".repeat(513)] {
        refused(&queue, "schedule with a bad id", lab.a.schedule(&queue, &now(id)).await, ErrorKind::Invalid)?;
        refused(&queue, "cancel with a bad id", lab.a.cancel(&queue, id).await, ErrorKind::Invalid)?;
    }
    for due_at in [DueAt::UnixMs(1 << 53), DueAt::After(Duration::MAX)] {
        let scheduled = lab.a.schedule(&queue, &item("x", due_at)).await;
        refused(&queue, &format!("schedule at {due_at:?}"), scheduled, ErrorKind::Invalid)?;
    }
    for (limit, visibility, kind) in
        [(0, LONG, ErrorKind::Invalid), (1_001, LONG, ErrorKind::TooLarge), (1, Duration::ZERO, ErrorKind::Invalid)]
    {
        let claimed = lab.a.claim_due(&queue, ClaimDue { limit, visibility }).await;
        refused(&queue, &format!("claim of {limit} for {visibility:?}"), claimed, kind)?;
    }
    Ok(())
}

/// A claim is exclusive until its visibility timeout; then the item is handed out again with a higher attempt.
async fn d2_claims_are_exclusive_until_visible_again(lab: Lab) -> Verdict {
    let queue = lab.key("visible");
    lab.a.schedule(&queue, &item("job", DueAt::UnixMs(5_000))).await?;
    let mut last: Option<DueItem> = None;
    for attempt in 1..=3 {
        let mine = claim_one(lab.handle(attempt).as_ref(), &queue, 3 * SHORT).await?;
        equal(&queue, "attempt", &mine.attempt, &u32::try_from(attempt).unwrap_or(0))?;
        equal(&queue, "time that it was due", &mine.due_at_ms, &5_000)?;
        holds(
            &queue,
            "each claim has a token of its own",
            last.is_none_or(|last| last.token != mine.token),
            mine.token,
        )?;
        last = Some(mine);
        lab.advance(3 * SHORT + CLOCK_GRAIN).await;
    }
    let mine = claim_one(&*lab.a, &queue, LONG).await?;
    let other = claim(&*lab.b, &queue, 10, LONG).await?;
    equal(&queue, "items for another worker while it is claimed", &names(&other), &vec![])?;
    let visible = present(&queue, "time until it is visible again", other.next_due_in)?;
    holds(&queue, "time until it is visible again", visible <= LONG + CLOCK_GRAIN && visible > LONG / 2, visible)?;
    equal(&queue, "attempt", &mine.attempt, &4)
}

/// `ack` removes the item for good, and needs the token of the claim.
async fn d2_ack_needs_the_token_of_the_claim(lab: Lab) -> Verdict {
    let queue = lab.key("ack");
    lab.a.schedule(&queue, &now("job")).await?;
    let stranger = lab.b.ack(&queue, "job", ClaimToken::draw()).await?;
    equal(&queue, "ack of an item that nobody claimed", &stranger, &ClaimOutcome::Lost)?;
    let mine = claim_one(&*lab.a, &queue, SHORT).await?;
    let stranger = lab.b.ack(&queue, "job", ClaimToken::draw()).await?;
    equal(&queue, "ack with another token", &stranger, &ClaimOutcome::Lost)?;
    equal(&queue, "ack of another id", &lab.b.ack(&queue, "other", mine.token).await?, &ClaimOutcome::Lost)?;
    equal(&queue, "ack", &lab.b.ack(&queue, "job", mine.token).await?, &ClaimOutcome::Done)?;
    lab.advance(PAST_SHORT).await;
    equal(&queue, "items after ack", &claim(&*lab.a, &queue, 10, LONG).await?, &Claimed::default())
}

/// The time until the next item counts claimed ones too, also those that were just handed out: they come back unless
/// they are acknowledged.
async fn d2_next_item_counts_claimed_ones(lab: Lab) -> Verdict {
    let queue = lab.key("next");
    lab.a.schedule(&queue, &now("job")).await?;
    let claimed = claim(&*lab.a, &queue, 1, LONG).await?;
    let wait = present(&queue, "time until the next item, in the claim of the only one", claimed.next_due_in)?;
    holds(&queue, "it is the end of the claim", wait <= LONG + CLOCK_GRAIN && wait + CLOCK_GRAIN >= LONG, wait)
}

/// A worker that is late but was not overtaken still acknowledges: the work is done, doing it again would be worse.
async fn d2_late_ack_counts_unless_somebody_took_over(lab: Lab) -> Verdict {
    let queue = lab.key("late");
    lab.a.schedule(&queue, &now("job")).await?;
    let late = claim_one(&*lab.a, &queue, SHORT).await?;
    lab.advance(PAST_SHORT).await;
    equal(&queue, "late ack", &lab.a.ack(&queue, "job", late.token).await?, &ClaimOutcome::Done)?;
    equal(&queue, "items after a late ack", &claim(&*lab.b, &queue, 10, LONG).await?, &Claimed::default())
}

/// A worker that was overtaken can neither acknowledge nor extend.
async fn d2_overtaken_worker_has_lost_its_claim(lab: Lab) -> Verdict {
    let queue = lab.key("overtaken");
    lab.a.schedule(&queue, &now("job")).await?;
    let slow = claim_one(&*lab.a, &queue, SHORT).await?;
    lab.advance(PAST_SHORT).await;
    let fast = claim_one(&*lab.b, &queue, LONG).await?;
    equal(&queue, "ack of the old claim", &lab.a.ack(&queue, "job", slow.token).await?, &ClaimOutcome::Lost)?;
    let extended = lab.a.extend_claim(&queue, "job", slow.token, LONG).await?;
    equal(&queue, "extension of the old claim", &extended, &ClaimOutcome::Lost)?;
    equal(&queue, "ack of the new claim", &lab.b.ack(&queue, "job", fast.token).await?, &ClaimOutcome::Done)
}

/// An item scheduled anew while it is claimed is a new item: the old claim is void, the new schedule stays.
async fn d2_replacing_voids_the_claim(lab: Lab) -> Verdict {
    let queue = lab.key("void");
    lab.a.schedule(&queue, &now("job")).await?;
    let old = claim_one(&*lab.a, &queue, LONG).await?;
    equal(&queue, "schedule of a claimed id", &lab.b.schedule(&queue, &now("job")).await?, &Scheduled::Replaced)?;
    equal(&queue, "ack of the old claim", &lab.a.ack(&queue, "job", old.token).await?, &ClaimOutcome::Lost)?;
    let new = claim_one(&*lab.a, &queue, LONG).await?;
    equal(&queue, "attempt of the new schedule", &new.attempt, &1)
}

/// `extend_claim` keeps the item from others for the given time from now.
async fn d2_extend_keeps_the_claim(lab: Lab) -> Verdict {
    let queue = lab.key("extend");
    lab.a.schedule(&queue, &now("job")).await?;
    let mine = claim_one(&*lab.a, &queue, LONG).await?;
    let extended = lab.b.extend_claim(&queue, "job", mine.token, 2 * LONG).await?;
    equal(&queue, "extension", &extended, &ClaimOutcome::Done)?;
    let wait = present(&queue, "time until visible", claim(&*lab.b, &queue, 1, LONG).await?.next_due_in)?;
    holds(&queue, "an extension counts from now", wait > LONG && wait <= 2 * LONG + CLOCK_GRAIN, wait)?;
    let shortened = lab.a.extend_claim(&queue, "job", mine.token, SHORT).await?;
    equal(&queue, "extension to a shorter time", &shortened, &ClaimOutcome::Done)?;
    lab.advance(PAST_SHORT).await;
    let again = claim_one(&*lab.b, &queue, LONG).await?;
    equal(&queue, "attempt after the extension ended", &again.attempt, &2)?;
    equal(&queue, "ack with the first token", &lab.a.ack(&queue, "job", mine.token).await?, &ClaimOutcome::Lost)
}

/// Many workers: nothing is handed out twice within its visibility, nothing is lost.
async fn d3_concurrent_workers_share_the_queue(lab: Lab) -> Verdict {
    const ITEMS: usize = 300;
    const WORKERS: usize = 32;
    let queue = lab.key("shared");
    let expected: BTreeSet<String> = (0..ITEMS).map(|at| format!("job-{at}")).collect();
    for id in &expected {
        lab.a.schedule(&queue, &now(id)).await?;
    }
    let name = queue.clone();
    let taken = lab
        .together(WORKERS, move |worker, store| {
            let (queue, limit) = (name.clone(), worker as u32 % 4 + 1);
            async move { work(&*store, &queue, limit).await }
        })
        .await?
        .concat();
    equal(&queue, "items handed out", &taken.len(), &ITEMS)?;
    equal(&queue, "different items handed out", &taken.into_iter().collect(), &expected)?;
    equal(&queue, "items left", &claim(&*lab.a, &queue, 10, LONG).await?, &Claimed::default())
}

async fn work(store: &dyn StateStore, queue: &StateKey, limit: u32) -> Verdict<Vec<String>> {
    let mut done = Vec::new();
    loop {
        let claimed = claim(store, queue, limit, LONG).await?;
        if claimed.items.is_empty() {
            return Ok(done);
        }
        holds(queue, "a claim returns at most its limit", claimed.items.len() <= limit as usize, claimed.items.len())?;
        for item in claimed.items {
            equal(queue, "attempt", &item.attempt, &1)?;
            equal(queue, "ack", &store.ack(queue, &item.id, item.token).await?, &ClaimOutcome::Done)?;
            done.push(item.id);
        }
    }
}

/// Workers that die without acknowledging delay their items, and lose none.
async fn d3_items_of_dead_workers_come_back(lab: Lab) -> Verdict {
    let queue = lab.key("dead");
    let expected: BTreeSet<String> = (0..20).map(|at| format!("job-{at}")).collect();
    for id in &expected {
        lab.a.schedule(&queue, &now(id)).await?;
    }
    claim(&*lab.a, &queue, 12, SHORT).await?;
    lab.advance(PAST_SHORT).await;
    let claimed = claim(&*lab.b, &queue, 1_000, LONG).await?;
    let attempts: u32 = claimed.items.iter().map(|item| item.attempt).sum();
    equal(
        &queue,
        "items after their first workers died",
        &claimed.items.into_iter().map(|item| item.id).collect(),
        &expected,
    )?;
    equal(&queue, "sum of attempts: 12 items twice, 8 once", &attempts, &32)
}

/// Cancelling and claiming at the same time: the canceller that was told `true` and the worker that acknowledged are not both.
async fn d3_cancel_and_ack_exclude_each_other(lab: Lab) -> Verdict {
    for round in 0..50 {
        let queue = lab.key(&format!("race-{round}"));
        lab.a.schedule(&queue, &now("job")).await?;
        let mine = claim_one(&*lab.a, &queue, LONG).await?;
        let (cancelled, acked) = tokio::join!(lab.b.cancel(&queue, "job"), lab.a.ack(&queue, "job", mine.token));
        let outcomes = (cancelled?, acked? == ClaimOutcome::Done);
        if outcomes.0 == outcomes.1 {
            return Err(Failure::new(format!(
                "{queue}: cancelled and acknowledged\n  expected: exactly one\n       got: {outcomes:?}"
            )));
        }
    }
    Ok(())
}

pub(crate) const CASES: &[Case] = &[
    case!("D1", d1_items_are_handed_out_when_due, [Need::Has("due")]),
    case!("D1", d1_absolute_times_are_understood, [Need::Has("due")]),
    case!("D1", d1_earliest_come_first_and_the_limit_holds, [Need::Has("due")]),
    case!("D1", d1_schedule_replaces_the_same_id, [Need::Has("due")]),
    case!("D1", d1_cancel_removes_an_item, [Need::Has("due")]),
    case!("D1", d1_queues_are_apart, [Need::Has("due")]),
    case!("D1", d1_empty_queue_has_no_next_item, [Need::Has("due")]),
    case!("D1", d1_ids_and_payloads_are_kept, [Need::Has("due")]),
    case!("D1", d1_nonsense_is_refused, [Need::Has("due")]),
    case!("D2", d2_claims_are_exclusive_until_visible_again, [Need::Has("due")]),
    case!("D2", d2_ack_needs_the_token_of_the_claim, [Need::Has("due")]),
    case!("D2", d2_next_item_counts_claimed_ones, [Need::Has("due")]),
    case!("D2", d2_late_ack_counts_unless_somebody_took_over, [Need::Has("due")]),
    case!("D2", d2_overtaken_worker_has_lost_its_claim, [Need::Has("due")]),
    case!("D2", d2_replacing_voids_the_claim, [Need::Has("due")]),
    case!("D2", d2_extend_keeps_the_claim, [Need::Has("due")]),
    case!("D3", d3_concurrent_workers_share_the_queue, [Need::Has("due")]),
    case!("D3", d3_items_of_dead_workers_come_back, [Need::Has("due")]),
    case!("D3", d3_cancel_and_ack_exclude_each_other, [Need::Has("due")]),
];
