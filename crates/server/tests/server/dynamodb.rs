//! The server on a DynamoDB emulator of the test's own: migrating, checking, coming up late, and what people read who got something
//! wrong.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use acteon_test_support::DynamoServer;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Finished, Process, action, client, folder, run, run_in};

/// Neither this machine's AWS configuration nor that of a cloud machine shall be found.
const NOTHING_CONFIGURED: &[(&str, &str)] = &[
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_CONFIG_FILE", "/nonexistent/config"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials"),
];

fn dynamodb() -> DynamoServer {
    DynamoServer::start().unwrap_or_else(|error| panic!("{error}"))
}

fn toml(url: &str, more: &str) -> String {
    format!("[server]\nport = 0\n[state]\nbackend = \"dynamodb\"\nurl = \"{url}\"\n{more}")
}

fn assert_refused(finished: &Finished, parts: &[&str]) {
    let Finished { code, stderr, stdout } = finished;
    assert_eq!(*code, Some(1), "{stderr}{stdout}");
    for part in parts {
        assert!(stderr.contains(part), "{part:?} is not in:\n{stderr}");
    }
}

fn assert_done(finished: &Finished, parts: &[&str]) {
    let Finished { code, stderr, stdout } = finished;
    assert_eq!(*code, Some(0), "{stderr}{stdout}");
    for part in parts {
        assert!(stdout.contains(part), "{part:?} is not in:\n{stdout}");
    }
}

/// Sends a request to the service by itself; the emulator asks for no signature.
fn call(server: &DynamoServer, operation: &str, body: &Value) -> Value {
    block_on(async {
        let target = format!("DynamoDB_20120810.{operation}");
        let authorization = "AWS4-HMAC-SHA256 Credential=acteon/20260101/us-east-1/dynamodb/aws4_request, \
                             SignedHeaders=host;x-amz-date, Signature=0";
        let request = client()
            .post(server.url())
            .header("x-amz-target", target)
            .header("x-amz-date", "20260101T000000Z")
            .header("authorization", authorization)
            .header("content-type", "application/x-amz-json-1.0")
            .body(body.to_string());
        let answer = request.send().await.expect("answered");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "{operation}: {text}");
        serde_json::from_str(&text).expect("JSON")
    })
}

/// Dispatches an action; returns the answer.
fn dispatch(url: &str) -> String {
    block_on(async {
        let answer = client().post(format!("{url}/v1/dispatch")).json(&action()).send().await.expect("answered");
        answer.text().await.expect("a body")
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(future)
}

#[test]
fn migrating_tells_the_versions_once_and_then_that_nothing_is_left() {
    let server = dynamodb();
    let folder = folder(&toml(&server.url(), "[state.dynamodb]\nmigrate = \"check\"\n"));
    let run = |arguments: &[&str]| run_in(folder.path(), arguments, &[]);

    // Nobody has made the table, and this server may not.
    for arguments in [&[][..], &["check"]] {
        let refused = run(arguments);
        assert_refused(
            &refused,
            &["acteon.toml:7: state.dynamodb.migrate: ", "table acteon does not exist", "run `acteon-server migrate`"],
        );
    }
    let missing = run(&["migrate", "--check"]);
    assert_refused(&missing, &["the schema is not up to date", "missing in: state", "acteon-server migrate"]);
    assert_eq!(missing.stdout, "state: dynamodb has schema version 0, and version 1 is needed\n");

    assert_done(&run(&["migrate"]), &["state: dynamodb was migrated from schema version 0 to 1"]);
    for again in [&["migrate"][..], &["migrate", "--check"]] {
        assert_done(&run(again), &["state: dynamodb has schema version 1; there is nothing to migrate"]);
    }
    assert_done(&run(&["check"]), &["which is up to date", "Everything is in order"]);
}

#[test]
fn check_shows_what_locks_on_dynamodb_guarantee_and_creates_nothing() {
    let server = dynamodb();
    let finished = run(&toml(&server.url(), ""), &["check"]);
    assert_done(
        &finished,
        &[
            "Backend: dynamodb",
            "transactions:  over any keys, at most 100 operations",
            "Locks: dynamodb",
            "note: A lease does not stop a paused holder",
            "note: The endpoint is on this machine",
            "Schema of state on dynamodb: version 0: a start creates it in version 1",
        ],
    );
    assert_eq!(call(&server, "ListTables", &json!({}))["TableNames"], json!([]));
}

#[test]
fn a_server_starts_where_there_is_no_table_and_dispatches() {
    let server = dynamodb();
    let mut process = Process::start(&toml(&server.url(), "table_name = \"acteon-test\"\n"), &[]);
    let answer = dispatch(&process.url());
    assert!(answer.contains("\"executed\""), "{answer}");
    assert_eq!(call(&server, "ListTables", &json!({}))["TableNames"], json!(["acteon-test"]));
    process.signal(Signal::TERM);
    assert!(process.wait().success(), "{}", process.log());
}

#[test]
fn an_optional_service_that_comes_up_later_is_used_without_a_restart() {
    let mut server = dynamodb();
    server.stop();
    let mut process = Process::start(&toml(&server.url(), "optional = true\n"), &[]);
    let url = process.url();
    let answer = dispatch(&url);
    assert!(answer.contains("state_unavailable"), "{answer}");
    server.restart().unwrap_or_else(|error| panic!("{error}"));
    process.wait_for_log("the table is reached");
    // The circuit breaker opens for a second.
    let executed = (0..300).any(|_| {
        thread::sleep(std::time::Duration::from_millis(50));
        dispatch(&url).contains("\"executed\"")
    });
    assert!(executed, "{}", process.log());
}

#[test]
fn a_table_of_another_kind_is_refused_with_what_differs() {
    let server = dynamodb();
    let definition = json!({
        "TableName": "orders",
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    });
    call(&server, "CreateTable", &definition);
    let config = toml(&server.url(), "table_name = \"orders\"\n");
    for arguments in [&[][..], &["migrate"], &["migrate", "--check"]] {
        let refused = run(&config, arguments);
        assert_refused(
            &refused,
            &[
                "acteon.toml:6: state.table_name: ",
                "its key is id (S) and must be pk (S), sk (S)",
                "another table_name",
            ],
        );
    }
}

#[test]
fn other_numbers_of_shards_than_those_of_the_table_are_refused() {
    let server = dynamodb();
    assert_done(&run(&toml(&server.url(), ""), &["migrate"]), &[]);
    let refused = run(&toml(&server.url(), "[state.dynamodb]\nshards = 8\n"), &[]);
    assert_refused(&refused, &["acteon.toml:7: state.dynamodb.shards: ", "was set up with 4 shards", "set shards = 4"]);
}

#[test]
fn a_region_that_is_missing_is_asked_for() {
    let folder = folder("[server]\nport = 0\n[state]\nbackend = \"dynamodb\"\n");
    let refused = run_in(folder.path(), &[], NOTHING_CONFIGURED);
    assert_refused(&refused, &["state.region: ", "set region, or AWS_REGION"]);
}

#[test]
fn credentials_that_are_missing_say_how_to_provide_them() {
    let server = dynamodb();
    let folder = folder(&toml(&server.url(), "region = \"eu-central-1\"\n[state.dynamodb]\nprofile = \"nobody\"\n"));
    let refused = run_in(folder.path(), &[], NOTHING_CONFIGURED);
    assert_refused(&refused, &["there are no usable credentials", "AWS_ACCESS_KEY_ID", "a profile that has some"]);
    assert!(!refused.stderr.contains("acteon-server migrate"), "{}", refused.stderr);
}

/// An endpoint that answers every request with this error.
fn refusing(code: &str, message: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let body = json!({"__type": format!("com.amazon.coral.service#{code}"), "message": message}).to_string();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // Ends with the process of the test.
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A request of these tests arrives in one piece or two; what is left unread does not matter after the answer.
            let _ = stream.read(&mut [0; 16_384]);
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read(&mut [0; 16_384]);
        }
    });
    url
}

#[test]
fn a_right_that_is_missing_is_named_with_the_role_and_the_action() {
    let said = "User: arn:aws:iam::123456789012:user/app is not authorized to perform: dynamodb:GetItem";
    let refused = run(&toml(&refusing("AccessDeniedException", said), ""), &[]);
    assert_refused(
        &refused,
        &["table acteon could not be read", said, "allow this action on the table and on its index"],
    );
}

#[test]
fn keys_that_are_not_known_say_what_to_check() {
    let said = "The security token included in the request is invalid.";
    let folder = folder(&toml(&refusing("UnrecognizedClientException", said), ""));
    let keys = [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];
    let refused = run_in(folder.path(), &[], &keys);
    assert_refused(&refused, &[said, "the access key is not known here", "the profile and the region"]);
    for secret in ["hunter2", "AKIDEXAMPLE"] {
        assert!(!refused.stderr.contains(secret), "{}", refused.stderr);
    }
}
