//! What one connection does to another, command by command.

use std::sync::Arc;

use super::{Client, ClientOptions, Flow};
use crate::config::EngineConfig;
use crate::instance::{Instance, InstanceConfig, OutputLimit, OutputLimits, User};
use crate::keyspace::Engine;

const NOW_US: u64 = 1_000_000_000;

fn instance(config: InstanceConfig) -> Arc<Instance> {
    Instance::new(Engine::new(EngineConfig::default()), config)
}

fn connect(instance: &Arc<Instance>) -> Client {
    Client::connect(instance, ClientOptions { connected_us: NOW_US, ..ClientOptions::default() })
}

/// The words of `command` as arguments, carried out at `now_us`.
fn call_at(client: &mut Client, command: &str, now_us: u64) -> (Flow, String) {
    let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
    let mut out = Vec::new();
    let flow = client.execute(&args, now_us, &mut out);
    (flow, String::from_utf8_lossy(&out).replace("\r\n", " ").trim_end().to_owned())
}

fn call(client: &mut Client, command: &str) -> String {
    call_at(client, command, NOW_US).1
}

fn mail(client: &mut Client) -> String {
    let mut out = Vec::new();
    client.receive(&mut out);
    String::from_utf8_lossy(&out).replace("\r\n", " ").trim_end().to_owned()
}

fn with_password() -> InstanceConfig {
    let users = vec![User { name: "ann".to_owned(), password: "a".into() }];
    InstanceConfig { password: Some("secret".into()), users, ..InstanceConfig::default() }
}

#[test]
fn nothing_is_done_for_who_has_not_come_in() {
    let instance = instance(with_password());
    let mut client = connect(&instance);
    assert!(!client.is_authenticated());
    for command in ["PING", "SET k v", "MULTI", "SUBSCRIBE c", "CLIENT ID"] {
        assert_eq!(call(&mut client, command), "-NOAUTH Authentication required.", "{command}");
    }
    assert_eq!(
        call(&mut client, "EXEC"),
        "-EXECABORT Transaction discarded because of: NOAUTH Authentication required."
    );
    assert!(call(&mut client, "HELLO 3").starts_with("-NOAUTH HELLO must be called"));
    assert!(call(&mut client, "AUTH wrong").starts_with("-WRONGPASS"));
    assert!(call(&mut client, "AUTH bob secret").starts_with("-WRONGPASS"));
    assert_eq!(call(&mut client, "AUTH secret"), "+OK");
    assert_eq!(call(&mut client, "SET k v"), "+OK");
    assert_eq!(call(&mut client, "RESET"), "+RESET");
    assert_eq!(call(&mut client, "GET k"), "-NOAUTH Authentication required.");
    assert!(call(&mut client, "HELLO 3 AUTH ann a SETNAME n").starts_with("%7 "));
    assert!(call(&mut client, "CLIENT INFO").contains(" user=ann redir=-1 resp=3"));
}

#[test]
fn password_set_later_leaves_who_is_in() {
    let instance = instance(InstanceConfig::default());
    let (mut before, access) = (connect(&instance), &instance.access);
    access.set_password(Some("secret".into()));
    assert_eq!(call(&mut before, "PING"), "+PONG");
    let mut after = connect(&instance);
    assert_eq!(call(&mut after, "PING"), "-NOAUTH Authentication required.");
    access.set_password(None);
    assert_eq!(call(&mut after, "PING"), "+PONG");
}

#[test]
fn silence_holds_back_replies_and_not_messages() {
    let instance = instance(InstanceConfig::default());
    let (mut one, mut other) = (connect(&instance), connect(&instance));
    assert_eq!(call(&mut one, "CLIENT REPLY SKIP"), "");
    assert_eq!(call(&mut one, "NOSUCH"), "");
    assert_eq!(call(&mut one, "PING"), "+PONG");
    assert_eq!(call(&mut one, "CLIENT REPLY OFF"), "");
    assert_eq!(call(&mut one, "SUBSCRIBE c"), "");
    assert_eq!(call(&mut other, "PUBLISH c m"), ":1");
    assert_eq!(mail(&mut one), "*3 $9 subscribe $1 c :1 *3 $7 message $1 c $1 m");
    assert_eq!(call(&mut one, "PING"), "");
}

#[test]
fn pause_of_writes_leaves_reads_and_ends_by_itself() {
    let instance = instance(InstanceConfig::default());
    let mut client = connect(&instance);
    assert_eq!(call(&mut client, "MULTI"), "+OK");
    assert_eq!(call(&mut client, "SET k v"), "+QUEUED");
    let mut other = connect(&instance);
    assert_eq!(call(&mut other, "CLIENT PAUSE 100 WRITE"), "+OK");
    assert_eq!(call_at(&mut client, "EXEC", NOW_US), (Flow::Retry, String::new()));
    assert_eq!(call_at(&mut other, "PUBLISH c m", NOW_US), (Flow::Retry, String::new()));
    assert_eq!(call(&mut other, "GET k"), "$-1");
    assert_eq!(call_at(&mut client, "EXEC", NOW_US + 100_000), (Flow::Done, "*1 +OK".to_owned()));
}

#[test]
fn message_that_was_published_before_the_end_of_a_subscription_comes_before_its_confirmation() {
    let instance = instance(InstanceConfig::default());
    let (mut one, mut other) = (connect(&instance), connect(&instance));
    assert_eq!(call(&mut one, "HELLO 3").get(..2), Some("%7"));
    assert_eq!(call(&mut one, "SUBSCRIBE c"), ">3 $9 subscribe $1 c :1");
    assert_eq!(call(&mut other, "PUBLISH c m"), ":1");
    // Its own message comes before the reply that counts it.
    assert_eq!(call(&mut one, "PUBLISH c n"), ">3 $7 message $1 c $1 m >3 $7 message $1 c $1 n :1");
    assert_eq!(call(&mut other, "PUBLISH c o"), ":1");
    assert_eq!(call(&mut one, "UNSUBSCRIBE"), ">3 $7 message $1 c $1 o >3 $11 unsubscribe $1 c :0");
    assert_eq!(call(&mut other, "PUBLISH c p"), ":0");
}

#[test]
fn subscriber_that_does_not_fetch_its_messages_is_disconnected_alone() {
    let pubsub = OutputLimit { hard_bytes: 10_000, soft_bytes: 0, soft_s: 0 };
    let output_limits = OutputLimits { pubsub, ..OutputLimits::default() };
    let instance = instance(InstanceConfig { output_limits, ..InstanceConfig::default() });
    let (mut slow, mut quick, mut publisher) = (connect(&instance), connect(&instance), connect(&instance));
    for client in [&mut slow, &mut quick] {
        assert_eq!(call(client, "SUBSCRIBE c"), "*3 $9 subscribe $1 c :1");
    }
    let publish = format!("PUBLISH c {}", "x".repeat(6_000));
    for _ in 0..2 {
        assert_eq!(call(&mut publisher, &publish), ":2");
        assert!(mail(&mut quick).len() > 6_000);
    }
    assert_eq!(slow.resume(NOW_US, &mut Vec::new()), Flow::Close);
    assert_eq!(quick.resume(NOW_US, &mut Vec::new()), Flow::Done);
    drop(slow);
    assert_eq!(call(&mut publisher, "PUBLISH c m"), ":1");
}

#[test]
fn monitor_shows_commands_and_no_passwords() {
    let instance = instance(with_password());
    let (mut monitor, mut client) = (connect(&instance), connect(&instance));
    assert_eq!(call(&mut monitor, "AUTH secret"), "+OK");
    assert_eq!(call(&mut monitor, "MONITOR"), "+OK");
    for command in ["AUTH secret", "SELECT 3", "MULTI", "set a \"", "EXEC", "CLIENT LIST", "NOSUCH", "GET"] {
        call(&mut client, command);
    }
    let source = |database| format!("+1000.000000 [{database} 127.0.0.1:0]");
    let shown = [
        format!(r#"{} "AUTH" "(redacted)""#, source(0)),
        format!(r#"{} "SELECT" "3""#, source(3)),
        format!(r#"{} "MULTI""#, source(3)),
        format!(r#"{} "set" "a" "\"""#, source(3)),
        format!(r#"{} "EXEC""#, source(3)),
    ];
    assert_eq!(mail(&mut monitor), shown.join(" "));
    assert_eq!(call(&mut monitor, "GET a"), "-ERR Replica can't interact with the keyspace");
    assert_eq!(call(&mut monitor, "RESET"), "+RESET");
    call(&mut client, "PING");
    assert_eq!(mail(&mut monitor), "");
}

#[test]
fn connections_are_listed_unblocked_and_ended_by_others() {
    let instance = instance(InstanceConfig::default());
    let (mut one, mut other) = (connect(&instance), connect(&instance));
    assert_eq!(call_at(&mut one, "BLPOP k 0", NOW_US).0, Flow::Blocked { until_us: None });
    let list = call_at(&mut other, "CLIENT LIST ID 1", NOW_US + 5_000_000).1;
    assert!(list.contains("id=1 addr=127.0.0.1:0 laddr=127.0.0.1:0 fd=-1 name= age=5 idle=5 flags=b db=0"), "{list}");
    assert!(list.contains(" cmd=blpop user=default "), "{list}");
    assert_eq!(call(&mut other, "CLIENT UNBLOCK 1 ERROR"), ":1");
    assert_eq!(call(&mut other, "CLIENT UNBLOCK 1"), ":0");
    let mut out = Vec::new();
    assert_eq!(one.resume(NOW_US, &mut out), Flow::Done);
    assert_eq!(out, b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n");
    assert_eq!(call(&mut other, "CLIENT KILL ID 1"), ":1");
    assert_eq!(call_at(&mut one, "SET k v", NOW_US), (Flow::Close, String::new()));
    assert_eq!(call(&mut other, "GET k"), "$-1");
    assert_eq!(call_at(&mut other, "CLIENT KILL ID 2 SKIPME no", NOW_US), (Flow::Close, ":1".to_owned()));
}

#[test]
fn events_are_published_by_key_and_by_name() {
    let instance = instance(InstanceConfig::default());
    let (mut listener, mut client) = (connect(&instance), connect(&instance));
    call(&mut listener, "SUBSCRIBE __keyspace@0__:k __keyevent@0__:del");
    instance.set_notifications("KEg").expect("letters that mean something");
    call(&mut client, "SET k v");
    call(&mut client, "DEL k");
    let (space, event) = ("*3 $7 message $16 __keyspace@0__:k $3 del", "*3 $7 message $18 __keyevent@0__:del $1 k");
    assert_eq!(mail(&mut listener), format!("{space} {event}"));
    assert!(instance.set_notifications("Kq").is_err());
    assert_eq!(instance.notifications(), "gKE");
}

/// SLOWLOG RESET and its like were once taken for RESET and carried out at once.
#[test]
fn subcommand_named_like_a_command_is_queued() {
    let instance = instance(InstanceConfig::default());
    let mut client = connect(&instance);
    call(&mut client, "MULTI");
    assert_eq!(call(&mut client, "SLOWLOG RESET"), "+QUEUED");
    assert_eq!(call(&mut client, "RESET"), "+RESET");
    call(&mut client, "SUBSCRIBE c");
    assert!(call(&mut client, "LATENCY RESET").starts_with("-ERR Can't execute 'latency|reset'"));
}

#[test]
fn commands_are_counted_by_what_came_of_them() {
    let instance = instance(InstanceConfig::default());
    let mut client = connect(&instance);
    for command in ["SET k v", "GET k", "GET k", "GET nosuch", "INCR k", "GET", "NOSUCH", "MULTI", "GET k", "EXEC"] {
        call(&mut client, command);
    }
    let info = call(&mut client, "INFO everything");
    for expected in [
        "cmdstat_get:calls=4,",
        "cmdstat_exec:calls=1,",
        "errorstat_ERR:count=3 ",
        "total_error_replies:3 ",
        "keyspace_hits:3 ",
        "keyspace_misses:1 ",
        "rdb_changes_since_last_save:1 ",
        "db0:keys=1,expires=0,avg_ttl=0",
        "latency_percentiles_usec_get:p50=",
    ] {
        assert!(info.contains(expected), "{expected} in {info}");
    }
    let line = |name: &str| info.split(' ').find(|line| line.starts_with(name)).map(str::to_owned).unwrap_or_default();
    assert!(line("cmdstat_get:").ends_with("rejected_calls=1,failed_calls=0"));
    assert!(line("cmdstat_incr:").ends_with("rejected_calls=0,failed_calls=1"));
    assert_eq!(call(&mut client, "CONFIG RESETSTAT"), "+OK");
    assert!(call(&mut client, "INFO stats").contains("total_commands_processed:1 "));
}

#[test]
fn slow_commands_are_kept_without_passwords() {
    let instance = instance(InstanceConfig::default());
    let mut client = connect(&instance);
    for command in ["CONFIG SET slowlog-log-slower-than 0", "SLOWLOG RESET", "CONFIG SET requirepass secret"] {
        assert_eq!(call(&mut client, command), "+OK");
    }
    let log = call(&mut client, "SLOWLOG GET 1");
    assert!(log.contains("$11 requirepass $10 (redacted)") && log.contains("$11 127.0.0.1:0"), "{log}");
    assert_eq!(call(&mut client, "CONFIG SET slowlog-log-slower-than -1"), "+OK");
    assert_eq!(call(&mut client, "SLOWLOG RESET"), "+OK");
    assert_eq!(call(&mut client, "SLOWLOG LEN"), ":0");
}

/// INFO looks at all databases, of which the transaction holds some already.
#[test]
fn numbers_of_all_databases_are_told_inside_of_a_transaction() {
    let instance = instance(InstanceConfig::default());
    let mut client = connect(&instance);
    for command in ["SET a 1", "SELECT 3", "SET b 1", "MULTI", "SET c 1", "INFO keyspace", "MEMORY STATS"] {
        call(&mut client, command);
    }
    let replies = call(&mut client, "EXEC");
    assert!(replies.contains("db0:keys=1,") && replies.contains("db3:keys=2,"), "{replies}");
}
