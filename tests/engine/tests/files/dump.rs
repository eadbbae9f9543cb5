//! Payloads of `DUMP`.

use acteon_engine_tests::command::Command;
use acteon_engine_tests::endpoint::{Client, Endpoint};
use acteon_engine_tests::reply::Reply;

use crate::data::data_set;
use crate::{Ours, Redis, assert_same, tell};

/// Every key as a payload: its database, its name, and the reply of `DUMP`.
fn dump_all(endpoint: &mut dyn Endpoint) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let mut client = Client::connect(endpoint).unwrap();
    let mut dumped = Vec::new();
    for database in ["0", "1", "3"] {
        client.call(&Command::words(&format!("SELECT {database}"))).unwrap();
        let keys = client.call(&Command::words("KEYS *")).unwrap();
        for key in keys.items().iter().filter_map(Reply::bytes) {
            let reply = client.call(&Command::new(vec![b"DUMP".to_vec(), key.to_vec()])).unwrap();
            dumped.push((database.to_owned(), key.to_vec(), reply.bytes().expect("a payload").to_vec()));
        }
    }
    dumped
}

fn restore_all(endpoint: &mut dyn Endpoint, dumped: &[(String, Vec<u8>, Vec<u8>)]) {
    let commands = dumped.iter().flat_map(|(database, key, payload)| {
        let select = Command::words(&format!("SELECT {database}"));
        let restore = vec![b"RESTORE".to_vec(), key.clone(), b"0".to_vec(), payload.clone(), b"REPLACE".to_vec()];
        [select, Command::new(restore)]
    });
    tell(endpoint, &commands.collect::<Vec<_>>());
}

#[test]
fn payloads_go_both_ways_for_every_type_and_size() {
    let (mut redis, mut ours) = (Redis::start(&[], false), Ours::new());
    tell(&mut redis, &data_set());
    tell(&mut ours.endpoint, &data_set());
    for dumped in [dump_all(&mut redis), dump_all(&mut ours.endpoint)] {
        assert!(dumped.len() > 200, "{}", dumped.len());
        let (mut redis, mut ours) = (Redis::start(&[], false), Ours::new());
        restore_all(&mut redis, &dumped);
        restore_all(&mut ours.endpoint, &dumped);
        assert_same(&mut redis, &mut ours.endpoint, false, "restored");
    }
}

#[test]
fn damaged_payloads_get_the_same_answers() {
    let (mut redis, mut ours) = (Redis::start(&[], false), Ours::new());
    let setup = ["SET string value", "RPUSH list a 1 b", "SADD set 1 2", "HSET hash a 1", "ZADD sorted 1 a"]
        .map(Command::words);
    tell(&mut redis, &setup);
    let mut here = Client::connect(&mut ours.endpoint).unwrap();
    let mut there = Client::connect(&mut redis).unwrap();
    for name in ["string", "list", "set", "hash", "sorted"] {
        let reply = there.call(&Command::words(&format!("DUMP {name}"))).unwrap();
        let payload = reply.bytes().expect("a payload").to_vec();
        let mut variants = vec![payload.clone(), Vec::new(), b"short".to_vec(), payload[1..].to_vec()];
        variants.extend((0..payload.len()).map(|len| payload[..len].to_vec()));
        variants.extend((0..payload.len()).map(|at| {
            let mut wrong = payload.clone();
            wrong[at] ^= 0x10;
            wrong
        }));
        for variant in variants {
            let arguments = ["RESTORE", "target", "0", "", "REPLACE"].map(|word| word.as_bytes().to_vec());
            let mut command = Command::new(arguments.into());
            command.arguments[3] = variant;
            assert_eq!(here.call(&command).unwrap(), there.call(&command).unwrap(), "{command}");
        }
    }
}
