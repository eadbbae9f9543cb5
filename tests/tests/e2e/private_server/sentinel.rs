//! Two servers on one Redis behind Sentinels: they go on through a failover.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use acteon_test_support::{RedisSentinels, SentinelOptions};

use super::postgres::{ONCE, assert_once_each, dispatch_all, until_done};
use crate::receiver::Receiver;
use crate::server::{PATIENCE, Server, action};

/// Actions of each round.
const ACTIONS: usize = 50;
/// Actions that are due after the failover, and when: it takes two or three seconds here.
const LATER: usize = 20;
const LATER_AFTER: Duration = Duration::from_secs(8);
/// How long one sender may wait in the worst case, on a busy machine.
const WINDOW_MAX: Duration = Duration::from_secs(20);

/// One that sends actions to one server all the time, each until it is done.
struct Sender {
    sent: Vec<String>,
    /// The longest time that one of them took.
    longest: Duration,
}

impl Sender {
    async fn run(server: &Server, name: &str, stop: &AtomicBool) -> Self {
        let mut sender = Self { sent: Vec::new(), longest: Duration::ZERO };
        while !stop.load(Ordering::SeqCst) {
            let (id, started) = (format!("{name}-{}", sender.sent.len()), Instant::now());
            until_done(server, &id).await;
            sender.sent.push(id);
            sender.longest = sender.longest.max(started.elapsed());
        }
        sender
    }
}

fn ids(name: &str) -> Vec<String> {
    (0..ACTIONS).map(|number| format!("{name}-{number}")).collect()
}

/// Schedules actions, each with one of both servers.
async fn schedule(servers: [&Server; 2]) -> Vec<String> {
    let due = jiff::Timestamp::try_from(SystemTime::now() + LATER_AFTER).unwrap().to_string();
    let mut scheduled = Vec::new();
    for (number, server) in (0..LATER).zip(servers.into_iter().cycle()) {
        let id = format!("later-{number}");
        let mut action = action(&id, &id);
        action["deliver_at"] = due.clone().into();
        let (code, body) = server.dispatch(&action).await;
        assert_eq!((code, body["status"].as_str()), (200, Some("scheduled")), "{body}");
        scheduled.push(id);
    }
    scheduled
}

/// Sends actions to both at once: of each pair, one is executed.
async fn dispatch_new(left: &Server, right: &Server, ids: &[String]) {
    for answers in dispatch_all(left, right, ids).await {
        let mut statuses = answers.each_ref().map(|(code, body)| {
            assert_eq!(*code, 200, "{body}");
            body["status"].as_str().unwrap()
        });
        statuses.sort_unstable();
        assert_eq!(statuses, ["deduplicated", "executed"]);
    }
}

/// Waits until all replicas have all that was written.
async fn until_replicated(group: &RedisSentinels) {
    let started = Instant::now();
    loop {
        let written = group.nodes[0].info("master_repl_offset").unwrap();
        if group.nodes[1..].iter().all(|replica| replica.info("slave_repl_offset").unwrap() >= written) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "the replicas do not follow");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_behind_sentinels_go_on_through_a_failover() {
    let mut group = RedisSentinels::start(SentinelOptions::default()).unwrap();
    let (receiver, hook) = Receiver::start().await;
    let url = group.url();
    let (left, right) = tokio::join!(Server::start(&url, ONCE, hook), Server::start(&url, ONCE, hook));
    let before = ids("before");
    dispatch_new(&left, &right, &before).await;
    let later = schedule([&left, &right]).await;
    until_replicated(&group).await;

    let stop = AtomicBool::new(false);
    let fault = async {
        receiver.until_arrived(ACTIONS * 2).await;
        group.nodes[0].kill9().unwrap();
        group.wait_for_primary_other_than(0).unwrap();
        tokio::join!(left.until_ready(true), right.until_ready(true));
        let arrived = receiver.times().len();
        receiver.until_arrived(arrived + ACTIONS).await;
        stop.store(true, Ordering::SeqCst);
    };
    let (left_sender, right_sender, ()) =
        tokio::join!(Sender::run(&left, "left", &stop), Sender::run(&right, "right", &stop), fault);

    let window = left_sender.longest.max(right_sender.longest);
    println!("the longest that an action took to be executed: {:.2} s", window.as_secs_f64());
    assert!(window < WINDOW_MAX, "{window:?}");
    // What was recorded before is still known, and new actions are executed once.
    for (code, body) in dispatch_all(&left, &right, &before).await.into_iter().flatten() {
        assert_eq!((code, body["status"].as_str()), (200, Some("deduplicated")), "{body}");
        assert!(body["original"].is_object(), "{body}");
    }
    let after = ids("after");
    dispatch_new(&left, &right, &after).await;
    let counts = receiver.counts();
    assert_once_each(&counts, &before);
    assert_once_each(&counts, &after);
    // A claim that the new primary does not know may be made again: of what was under way, one action of each sender.
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.len() <= 2 && twice.iter().all(|(_, count)| **count == 2), "{twice:?}");
    assert!(left_sender.sent.iter().chain(&right_sender.sent).all(|id| counts.contains_key(id)));
    until_delivered(&receiver, &later).await;
}

async fn until_delivered(receiver: &Receiver, ids: &[String]) {
    let started = Instant::now();
    while !ids.iter().all(|id| receiver.counts().contains_key(id)) {
        assert!(started.elapsed() < PATIENCE, "not all of {ids:?} were delivered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
