//! fred, with its default settings.

use std::collections::HashMap;
use std::time::Duration;

use fred::clients::{Client, SubscriberClient};
use fred::error::{Error, ErrorKind};
use fred::interfaces::{
    ClientLike, EventInterface, HashesInterface, KeysInterface, ListInterface, LuaInterface, PubsubInterface,
    SetsInterface, SortedSetsInterface, TransactionInterface,
};
use fred::types::config::Config;
use fred::types::lists::LMoveDirection;
use fred::types::scripts::Script;
use fred::types::{Builder, RespVersion};
use futures_util::TryStreamExt;
use libtest_mimic::Failed;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use crate::Case;
use crate::served::Served;

pub(crate) const CASES: &[(&str, Case)] = &[
    ("rust_fred::values_and_pipelines", |served| run(values_and_pipelines(&config(served)?))),
    ("rust_fred::transactions", |served| run(transactions(&config(served)?))),
    ("rust_fred::messages", |served| run(messages(&config(served)?))),
    ("rust_fred::scripts", |served| run(scripts(&config(served)?))),
    ("rust_fred::blocking_calls", |served| run(blocking_calls(&config(served)?))),
    ("rust_fred::iterators", |served| run(iterators(&config(served)?))),
];

/// How long a call blocks when nothing comes.
const SHORT_WAIT_S: f64 = 0.2;
/// For what happens in milliseconds unless it never happens.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

async fn values_and_pipelines(config: &Config) -> Result<(), Failed> {
    for version in [RespVersion::RESP2, RespVersion::RESP3] {
        let config = Config { version, ..config.clone() };
        let client = connect(&config).await?;
        let () = client.flushall(false).await?;
        let () = client.set("greeting", "hello", None, None, false).await?;
        assert_eq!(client.get::<Option<String>, _>("greeting").await?.as_deref(), Some("hello"));
        assert_eq!(client.get::<Option<String>, _>("no such key").await?, None);
        let () = client.hset("user", vec![("name", "Ada"), ("age", "36")]).await?;
        let user: HashMap<String, String> = client.hgetall("user").await?;
        assert_eq!((user["name"].as_str(), user["age"].as_str()), ("Ada", "36"));
        assert_eq!(client.zadd::<u32, _, _>("scores", None, None, false, false, vec![(1.5, "one")]).await?, 1);
        assert_eq!(client.zscore::<f64, _, _>("scores", "one").await?, 1.5);
        let error = client.lpush::<u32, _, _>("greeting", "x").await.expect_err("the key holds a string");
        assert!(error.details().starts_with("WRONGTYPE"), "{error}");
        let pipeline = client.pipeline();
        for _ in 0..1000 {
            let () = pipeline.incr("counter").await?;
        }
        assert_eq!(pipeline.all::<Vec<i64>>().await?, (1..=1000).collect::<Vec<_>>());
        client.quit().await?;
    }
    Ok(())
}

async fn transactions(config: &Config) -> Result<(), Failed> {
    let (client, other) = (connect(config).await?, connect(config).await?);
    let transaction = client.multi();
    let () = transaction.set("balance", 10, None, None, false).await?;
    let () = transaction.incr("balance").await?;
    assert_eq!(transaction.exec::<(String, i64)>(true).await?, ("OK".to_owned(), 11));
    client.watch("balance").await?;
    let () = other.incr("balance").await?;
    let transaction = client.multi();
    let () = transaction.set("balance", 0, None, None, false).await?;
    let outcome: Result<Option<Vec<String>>, Error> = transaction.exec(true).await;
    let is_refused =
        matches!(&outcome, Ok(None)) || outcome.as_ref().is_err_and(|error| *error.kind() == ErrorKind::Canceled);
    assert!(is_refused, "{outcome:?}");
    assert_eq!(client.get::<i64, _>("balance").await?, 12);
    Ok(())
}

async fn messages(config: &Config) -> Result<(), Failed> {
    let publisher = connect(config).await?;
    let subscriber: SubscriberClient = Builder::from_config(config.clone()).build_subscriber_client()?;
    subscriber.init().await?;
    let mut inbox = subscriber.message_rx();
    subscriber.subscribe("news").await?;
    subscriber.psubscribe("weather.*").await?;
    subscriber.ssubscribe("shard").await?;
    for (channel, text) in [("news", "one"), ("weather.rome", "sunny")] {
        assert_eq!(publisher.publish::<u32, _, _>(channel, text).await?, 1);
        let message = timeout(PATIENCE, inbox.recv()).await??;
        assert_eq!((&*message.channel, message.value.as_str().as_deref()), (channel, Some(text)));
    }
    assert_eq!(publisher.spublish::<u32, _, _>("shard", "one").await?, 1);
    assert_eq!(&*timeout(PATIENCE, inbox.recv()).await??.channel, "shard");
    // This client waits for no answer to it, so that the other one's message may be there first.
    subscriber.unsubscribe("news").await?;
    let nobody_listens = async {
        while publisher.publish::<u32, _, _>("news", "two").await? > 0 {
            tokio::task::yield_now().await;
        }
        Ok(())
    };
    timeout(PATIENCE, nobody_listens).await?
}

async fn scripts(config: &Config) -> Result<(), Failed> {
    let client = connect(config).await?;
    let add = Script::from_lua("return redis.call('incrby', KEYS[1], ARGV[1]) + tonumber(ARGV[2])");
    add.load(&client).await?;
    assert_eq!(add.evalsha::<i64, _, _, _>(&client, "scripted", vec![5, 100]).await?, 105);
    client.script_flush(false).await?;
    assert_eq!(add.evalsha_with_reload::<i64, _, _>(&client, "scripted", vec![5, 100]).await?, 110);
    Ok(())
}

async fn blocking_calls(config: &Config) -> Result<(), Failed> {
    let (waiting, client) = (connect(config).await?, connect(config).await?);
    // A wait that ends with nothing is an error of this library.
    let nothing = waiting.blpop::<(String, String), _>("empty", SHORT_WAIT_S).await;
    assert!(nothing.as_ref().is_err_and(|error| *error.kind() == ErrorKind::Timeout), "{nothing:?}");
    let taken = tokio::spawn({
        let waiting = waiting.clone();
        async move { waiting.blpop::<(String, String), _>(vec!["first", "second"], PATIENCE.as_secs_f64()).await }
    });
    when_somebody_waits(&client).await?;
    let () = client.rpush("second", "element").await?;
    assert_eq!(taken.await??, ("second".to_owned(), "element".to_owned()));
    let moved = tokio::spawn(async move {
        let (left, right) = (LMoveDirection::Left, LMoveDirection::Right);
        waiting.blmove::<String, _, _>("from", "to", left, right, PATIENCE.as_secs_f64()).await
    });
    when_somebody_waits(&client).await?;
    let () = client.rpush("from", "element").await?;
    assert_eq!(moved.await??, "element");
    Ok(())
}

async fn iterators(config: &Config) -> Result<(), Failed> {
    let client = connect(config).await?;
    let pipeline = client.pipeline();
    for number in 0..300 {
        let () = pipeline.set(format!("scan:{number}"), "x", None, None, false).await?;
        let () = pipeline.sadd("set", number).await?;
    }
    let () = pipeline.last().await?;
    let keys: Vec<_> = client.scan_buffered("scan:*", Some(10), None).try_collect().await?;
    assert_eq!(keys.len(), 300);
    assert_eq!(client.scard::<u32, _>("set").await?, 300);
    Ok(())
}

fn run(case: impl Future<Output = Result<(), Failed>>) -> Result<(), Failed> {
    Runtime::new()?.block_on(case)
}

fn config(served: &Served) -> Result<Config, Failed> {
    Ok(Config::from_url(&served.url())?)
}

async fn connect(config: &Config) -> Result<Client, Error> {
    let client = Builder::from_config(config.clone()).build()?;
    client.init().await?;
    Ok(client)
}

async fn when_somebody_waits(client: &Client) -> Result<(), Failed> {
    let waits = async {
        while !client.info::<String>(Some(fred::types::InfoKind::Clients)).await?.contains("blocked_clients:1\r\n") {
            sleep(POLL).await;
        }
        Ok::<_, Error>(())
    };
    Ok(timeout(PATIENCE, waits).await??)
}
