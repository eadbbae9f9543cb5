//! redis-rs: its blocking connections, and the multiplexed ones with both protocols.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use libtest_mimic::Failed;
use redis::{AsyncCommands, Client, Commands, Connection, Script, pipe, transaction};
use tokio::runtime::Runtime;

use crate::Case;
use crate::served::Served;

pub(crate) const CASES: &[(&str, Case)] = &[
    ("rust_redis::values_and_pipelines", values_and_pipelines),
    ("rust_redis::transactions", transactions),
    ("rust_redis::messages", messages),
    ("rust_redis::scripts", scripts),
    ("rust_redis::blocking_calls", blocking_calls),
    ("rust_redis::iterators", iterators),
    ("rust_redis::multiplexed_with_resp2", |served| multiplexed(&served.url())),
    ("rust_redis::multiplexed_with_resp3", |served| multiplexed(&format!("{}/?protocol=resp3", served.url()))),
    ("rust_redis::messages_and_monitor_as_streams", streams),
];

const ADD: &str = "return redis.call('incrby', KEYS[1], ARGV[1]) + tonumber(ARGV[2])";

/// How long a call blocks when nothing comes: long enough to be told from an answer at once.
const SHORT_WAIT_S: f64 = 0.2;
/// For what happens in milliseconds unless it never happens.
const PATIENCE: Duration = Duration::from_secs(20);

fn values_and_pipelines(served: &Served) -> Result<(), Failed> {
    let mut connection = connect(served)?;
    let () = connection.set("greeting", "hello")?;
    assert_eq!(connection.get::<_, Option<String>>("greeting")?.as_deref(), Some("hello"));
    assert_eq!(connection.get::<_, Option<String>>("no such key")?, None);
    assert_eq!(connection.zadd_multiple::<_, _, _, u32>("scores", &[(1.0, "one"), (2.5, "two")])?, 2);
    let scores: Vec<(String, f64)> = connection.zrange_withscores("scores", 0, -1)?;
    assert_eq!(scores, [("one".to_owned(), 1.0), ("two".to_owned(), 2.5)]);
    let error = connection.lpush::<_, _, u32>("greeting", "x").expect_err("the key holds a string");
    assert_eq!(error.code(), Some("WRONGTYPE"));
    let mut pipeline = pipe();
    for number in 0..1000 {
        pipeline.set(format!("pipelined:{number}"), number).ignore();
    }
    let (last,): (u32,) = pipeline.get("pipelined:999").query(&mut connection)?;
    assert_eq!(last, 999);
    Ok(())
}

fn transactions(served: &Served) -> Result<(), Failed> {
    let (mut connection, mut other) = (connect(served)?, connect(served)?);
    let () = connection.set("balance", 10)?;
    let mut attempts = 0;
    let (balance,): (i64,) = transaction(&mut connection, &["balance"], |connection, pipeline| {
        attempts += 1;
        let balance: i64 = connection.get("balance")?;
        if attempts == 1 {
            let () = other.incr("balance", 1)?; // so that the first attempt is in vain
        }
        pipeline.set("balance", balance * 2).ignore().get("balance").query(connection)
    })?;
    assert_eq!((attempts, balance), (2, 22));
    Ok(())
}

fn messages(served: &Served) -> Result<(), Failed> {
    let (mut subscriber, mut publisher) = (connect(served)?, connect(served)?);
    subscriber.set_read_timeout(Some(PATIENCE))?;
    let mut subscription = subscriber.as_pubsub();
    subscription.subscribe("news")?;
    subscription.psubscribe("weather.*")?;
    assert_eq!(publisher.publish::<_, _, u32>("news", "one")?, 1);
    assert_eq!(publisher.publish::<_, _, u32>("weather.rome", "sunny")?, 1);
    let (news, weather) = (subscription.get_message()?, subscription.get_message()?);
    assert_eq!((news.get_channel_name(), news.get_payload::<String>()?.as_str()), ("news", "one"));
    assert_eq!((weather.get_channel_name(), weather.get_payload::<String>()?.as_str()), ("weather.rome", "sunny"));
    assert_eq!(weather.get_pattern::<String>()?, "weather.*");
    subscription.unsubscribe("news")?;
    assert_eq!(publisher.publish::<_, _, u32>("news", "two")?, 0);
    Ok(())
}

fn scripts(served: &Served) -> Result<(), Failed> {
    let mut connection = connect(served)?;
    let add = Script::new(ADD);
    assert_eq!(add.key("scripted").arg(5).arg(100).invoke::<i64>(&mut connection)?, 105);
    redis::cmd("SCRIPT").arg("FLUSH").exec(&mut connection)?;
    // The library sends it again.
    assert_eq!(add.key("scripted").arg(5).arg(100).invoke::<i64>(&mut connection)?, 110);
    Ok(())
}

fn blocking_calls(served: &Served) -> Result<(), Failed> {
    let (mut waiting, mut connection) = (connect(served)?, connect(served)?);
    let begin = Instant::now();
    assert_eq!(waiting.blpop::<_, Option<(String, String)>>("empty", SHORT_WAIT_S)?, None);
    assert!(begin.elapsed().as_secs_f64() >= SHORT_WAIT_S);
    let (left, right) = (redis::Direction::Left, redis::Direction::Right);
    assert_eq!(waiting.blmove::<_, _, Option<String>>("empty", "other", left, right, SHORT_WAIT_S)?, None);
    let taken = thread::spawn(move || {
        let keys = ["first", "second"];
        waiting.blpop::<_, (String, String)>(&keys, PATIENCE.as_secs_f64()).map(|taken| (taken, waiting))
    });
    when_somebody_waits(&mut connection)?;
    let () = connection.rpush("second", "element")?;
    let (taken, mut waiting) = taken.join().map_err(|_| "the thread that waits panicked")??;
    assert_eq!(taken, ("second".to_owned(), "element".to_owned()));
    let taken = thread::spawn(move || waiting.bzpopmax::<_, (String, String, f64)>("ranking", PATIENCE.as_secs_f64()));
    when_somebody_waits(&mut connection)?;
    let () = connection.zadd_multiple("ranking", &[(1.0, "good"), (3.0, "best")])?;
    let taken = taken.join().map_err(|_| "the thread that waits panicked")??;
    assert_eq!(taken, ("ranking".to_owned(), "best".to_owned(), 3.0));
    Ok(())
}

fn iterators(served: &Served) -> Result<(), Failed> {
    let mut connection = connect(served)?;
    let mut pipeline = pipe();
    for number in 0..500 {
        pipeline.set(format!("scan:{number}"), "x").ignore().sadd("set", number).ignore();
    }
    pipeline.exec(&mut connection)?;
    let keys = connection.scan_match::<_, String>("scan:*")?.collect::<Result<HashSet<_>, _>>()?;
    let members = connection.sscan::<_, u32>("set")?.collect::<Result<HashSet<_>, _>>()?;
    assert_eq!((keys.len(), members.len()), (500, 500));
    Ok(())
}

/// Many tasks share one connection.
fn multiplexed(url: &str) -> Result<(), Failed> {
    const TASKS: usize = 200;
    let client = Client::open(url)?;
    Runtime::new()?.block_on(async {
        let connection = client.get_multiplexed_async_connection().await?;
        let tasks = (0..TASKS).map(|number| {
            let mut connection = connection.clone();
            tokio::spawn(async move {
                let () = connection.hset("hash", number, number).await?;
                connection.incr::<_, _, usize>("counter", 1).await
            })
        });
        let mut counts = HashSet::new();
        for task in tasks.collect::<Vec<_>>() {
            counts.insert(task.await??);
        }
        assert_eq!(counts, (1..=TASKS).collect());
        let mut connection = connection.clone();
        let fields: std::collections::HashMap<usize, usize> = connection.hgetall("hash").await?;
        assert!(fields.len() == TASKS && fields.iter().all(|(field, value)| field == value));
        let replies: (i64, Option<String>) =
            pipe().atomic().incr("counter", 1).get("no such key").query_async(&mut connection).await?;
        assert_eq!(replies, (201, None));
        let sum: i64 = Script::new(ADD).key("counter").arg(1).arg(0).invoke_async(&mut connection).await?;
        assert_eq!(sum, 202);
        let mut iterator = connection.hscan::<_, (usize, usize)>("hash").await?;
        let mut seen = HashSet::new();
        while let Some(pair) = iterator.next_item().await {
            seen.insert(pair?);
        }
        assert_eq!(seen.len(), TASKS);
        Ok(())
    })
}

fn streams(served: &Served) -> Result<(), Failed> {
    let client = Client::open(served.url())?;
    Runtime::new()?.block_on(async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut subscriber = client.get_async_pubsub().await?;
        subscriber.psubscribe("news.*").await?;
        assert_eq!(connection.publish::<_, _, u32>("news.today", "one").await?, 1);
        let message = tokio::time::timeout(PATIENCE, subscriber.on_message().next()).await?;
        let message = message.ok_or("the connection ended")?;
        assert_eq!((message.get_channel_name(), message.get_payload::<String>()?.as_str()), ("news.today", "one"));
        let mut monitor = client.get_async_monitor().await?.into_on_message::<String>();
        let () = connection.set("monitored", "x").await?;
        let line = tokio::time::timeout(PATIENCE, monitor.next()).await?.ok_or("the connection ended")?;
        assert!(line.ends_with("\"SET\" \"monitored\" \"x\""), "{line}");
        Ok(())
    })
}

fn connect(served: &Served) -> Result<Connection, Failed> {
    Ok(Client::open(served.url())?.get_connection()?)
}

fn when_somebody_waits(connection: &mut Connection) -> Result<(), Failed> {
    let deadline = Instant::now() + PATIENCE;
    while redis::cmd("INFO").arg("clients").query::<redis::InfoDict>(connection)?.get::<u32>("blocked_clients")
        != Some(1)
    {
        assert!(Instant::now() < deadline, "INFO does not show the client that waits");
        thread::yield_now();
    }
    Ok(())
}
