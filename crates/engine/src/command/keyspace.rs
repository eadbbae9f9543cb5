//! Whole databases: SCAN, KEYS, RANDOMKEY, DBSIZE, FLUSHDB, FLUSHALL, SWAPDB.
//!
//! # Guarantees
//! A key that has expired is never listed, nor drawn at random. FLUSHDB, FLUSHALL and SWAPDB happen at once for everybody; the others take
//! one segment after the other, so that nobody waits for long, and are one step only inside of transactions and scripts. A key that stays
//! throughout KEYS is listed once; one that is renamed meanwhile may be missing.

use std::mem;

use smallvec::SmallVec;

use super::call::Call;
use super::error::CommandError;
use super::key::{database_in_range, kind_name};
use super::options::is;
use super::row::{Flags, Group, Row, Scope};
use super::scan::{ScanOptions, cursor, write_page};
use crate::algorithm::glob;
use crate::algorithm::random::Random;
use crate::cursor::walk;
use crate::entry::{EntryRef, Ref, Removed, is_expired};
use crate::lock::Place;
use crate::segment::{Context, Segment};

/// Entries that RANDOMKEY removes at a time where they have expired.
const EXPIRE_VISITS: u32 = 256;

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`
fn scan(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let begin = cursor(call.args[1])?;
    let options = ScanOptions::parse(&call.args[2..], true)?;
    let places: Vec<Place> = call.keys.places().collect();
    let (now_ms, mut found) = (call.now_ms(), Vec::new());
    let next = walk(begin, places.len(), options.count, |segment, low, count| {
        call.keys.step(places[segment], |_, segment| {
            segment.page(low, count, |entry| {
                if !is_expired(entry.expires_at_ms(), now_ms) && shows(&options, entry) {
                    found.push(entry.key().to_vec());
                }
            })
        })
    })?;
    write_page(&mut call.reply, next, &found);
    Ok(())
}

fn shows(options: &ScanOptions<'_>, entry: EntryRef<'_>) -> bool {
    let kind = Ref::new(entry, entry.key().len()).kind();
    options.kind.is_none_or(|wanted| is(wanted, kind_name(kind))) && options.shows(entry.key())
}

fn keys(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (pattern, now_ms) = (call.args[1], call.now_ms());
    let matches = |key: &[u8]| pattern == b"*" || glob::matches(pattern, key, glob::Case::Sensitive);
    let header = call.reply.array_deferred();
    let mut count = 0;
    for place in call.keys.places() {
        let reply = &mut call.reply;
        call.keys.step(place, |_, segment| {
            for entry in segment.store.iter() {
                if !is_expired(entry.expires_at_ms(), now_ms) && matches(entry.key()) {
                    reply.bulk(entry.key());
                    count += 1;
                }
            }
        })?;
    }
    call.reply.close(header, count);
    Ok(())
}

/// Every key is drawn equally often.
fn randomkey(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let now_ms = call.now_ms();
    loop {
        let total = count_keys(call)?;
        if total == 0 {
            call.reply.null();
            return Ok(());
        }
        // A segment is drawn by its share of the keys. If it has none when it comes to it, others have removed them meanwhile, or
        // they had expired: the next round has fewer keys.
        let mut rest = call.session.random.index(total);
        for place in call.keys.places() {
            let len = call.keys.step(place, |_, segment| segment.store.len())?;
            if rest >= len {
                rest -= len;
                continue;
            }
            let (random, garbage) = (&mut call.session.random, &mut call.effects.garbage);
            let drawn = call.keys.step(place, |context, segment| draw(context, segment, now_ms, random, garbage))?;
            if let Some(key) = drawn {
                call.reply.bulk(&key);
                return Ok(());
            }
            break;
        }
    }
}

/// A key of the segment, which is rid of expired ones first; `None` if it has none.
fn draw(
    context: &Context,
    segment: &mut Segment,
    now_ms: u64,
    random: &mut Random,
    garbage: &mut Vec<Removed>,
) -> Option<Vec<u8>> {
    if segment.deadlines.is_due(now_ms) {
        while !segment.expire_step(context, now_ms, EXPIRE_VISITS, garbage).is_done {}
    }
    if segment.store.is_empty() {
        return None;
    }
    // Sparse tables shrink, so this takes a few attempts on average.
    loop {
        if let Some(entry) = segment.get(random.index(segment.store.buckets())) {
            return Some(entry.key().to_vec());
        }
    }
}

/// Counts keys that have expired and were not removed yet, as Redis does.
fn dbsize(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let count = count_keys(call)?;
    call.reply.integer(count as i64);
    Ok(())
}

fn count_keys(call: &mut Call<'_, '_>) -> Result<usize, CommandError> {
    call.keys.places().map(|place| call.keys.step(place, |_, segment| segment.store.len())).sum()
}

fn flushdb(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let is_async = parse_flush(&call.args[1..])?;
    let database = call.keys.database;
    flush(call, &[database], is_async);
    call.reply.simple("OK");
    Ok(())
}

fn flushall(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let is_async = parse_flush(&call.args[1..])?;
    let databases = call.keys.locked.databases();
    // One that is not held came into use after all others were held: whatever it has came later than this.
    let is_held = |number: usize| call.keys.locked.holds(Place::new(number, 0));
    let numbers: Vec<usize> = databases.used().map(|(number, _)| number).filter(|number| is_held(*number)).collect();
    flush(call, &numbers, is_async);
    call.effects.changes += 1;
    call.reply.simple("OK");
    Ok(())
}

/// `[ASYNC | SYNC]`; returns whether memory may be freed later.
fn parse_flush(words: &[&[u8]]) -> Result<bool, CommandError> {
    match words {
        [] => Ok(false),
        [word] if is(word, "SYNC") => Ok(false),
        [word] if is(word, "ASYNC") => Ok(true),
        _ => Err(CommandError::Syntax),
    }
}

/// Removes all keys of these databases, which are held. Their memory is freed when they are held no more: before the next command
/// of this client, or by housekeeping.
fn flush(call: &mut Call<'_, '_>, numbers: &[usize], is_async: bool) {
    let mut stores = Vec::new();
    for number in numbers {
        let mut cleared = call.keys.locked.clear(*number);
        call.effects.changes += cleared.keys;
        stores.append(&mut cleared.stores);
    }
    if is_async {
        call.instance.free_later(mem::take(&mut stores));
    }
    call.effects.stores.append(&mut stores);
}

fn swapdb(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let number = |at: usize, error| swap_number(call.args[at]).ok_or(CommandError::text(error));
    let first = number(1, "ERR invalid first DB index")?;
    let second = number(2, "ERR invalid second DB index")?;
    let count = call.instance.databases.count();
    let (first, second) = (database_in_range(first, count)?, database_in_range(second, count)?);
    call.keys.locked.exchange(first, second);
    call.effects.changes += 1;
    call.reply.simple("OK");
    Ok(())
}

/// A number that could be one of a database.
fn swap_number(text: &[u8]) -> Option<i64> {
    acteon_resp::parse_i64(text).filter(|number| i32::try_from(*number).is_ok())
}

fn swapped(args: &[&[u8]]) -> SmallVec<[usize; 2]> {
    let numbers = args.iter().skip(1).filter_map(|text| swap_number(text));
    numbers.filter_map(|number| usize::try_from(number).ok()).collect()
}

const DANGEROUS_WRITE: &[Flags] = &[Flags::WRITE, Flags::KEYSPACE, Flags::DANGEROUS];

pub(super) const ROWS: &[Row] = &[
    Row::new("scan", -2, Group::Generic, scan)
        .flags(&[Flags::READONLY])
        .scope(Scope::Stepwise)
        .docs("2.8.0", "A page of the keys of the database."),
    Row::new("keys", 2, Group::Generic, keys)
        .flags(&[Flags::READONLY, Flags::DANGEROUS])
        .scope(Scope::Stepwise)
        .docs("1.0.0", "All keys that match a pattern."),
    Row::new("randomkey", 1, Group::Generic, randomkey)
        .flags(&[Flags::READONLY])
        .scope(Scope::Stepwise)
        .docs("1.0.0", "A key drawn at random."),
    Row::new("dbsize", 1, Group::Server, dbsize)
        .flags(&[Flags::READONLY, Flags::FAST, Flags::KEYSPACE])
        .scope(Scope::Stepwise)
        .docs("1.0.0", "The number of keys of the database."),
    Row::new("flushdb", -1, Group::Server, flushdb)
        .flags(DANGEROUS_WRITE)
        .scope(Scope::Database)
        .docs("1.0.0", "Removes all keys of the database."),
    Row::new("flushall", -1, Group::Server, flushall)
        .flags(DANGEROUS_WRITE)
        .scope(Scope::Everything)
        .docs("1.0.0", "Removes all keys of all databases."),
    Row::new("swapdb", 3, Group::Server, swapdb)
        .flags(&[Flags::WRITE, Flags::FAST, Flags::KEYSPACE, Flags::DANGEROUS])
        .scope(Scope::Databases(swapped))
        .docs("4.0.0", "Exchanges the contents of two databases."),
];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{Client, ClientOptions, Engine, EngineConfig, Instance, InstanceConfig};

    fn instance() -> Arc<Instance> {
        let engine = Engine::new(EngineConfig { segments: 16, hash_seed: Some(7), ..EngineConfig::default() });
        Instance::new(engine, InstanceConfig::default())
    }

    /// The reply to `line`, whose words are separated by blanks, at `now_ms`.
    fn ask(client: &mut Client, now_ms: u64, line: &str) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut reply = Vec::new();
        client.execute(&args, now_ms * 1_000, &mut reply);
        String::from_utf8(reply).expect("the tests store text only")
    }

    #[test]
    fn expired_keys_are_neither_listed_nor_drawn_but_counted_until_removed() {
        let instance = instance();
        let mut client = Client::connect(&instance, ClientOptions::default());
        for number in 0..50 {
            ask(&mut client, 1_000, &format!("PSETEX passing:{number} 1 v"));
        }
        ask(&mut client, 1_000, "SET staying v");
        assert_eq!(ask(&mut client, 1_001, "DBSIZE"), ":51\r\n");
        assert!(ask(&mut client, 1_001, "KEYS *").starts_with("*51\r\n"), "they live to the end of their millisecond");
        assert_eq!(ask(&mut client, 1_002, "KEYS *"), "*1\r\n$7\r\nstaying\r\n");
        assert_eq!(ask(&mut client, 1_002, "SCAN 0 COUNT 1000"), "*2\r\n$1\r\n0\r\n*1\r\n$7\r\nstaying\r\n");
        assert_eq!(ask(&mut client, 1_002, "DBSIZE"), ":51\r\n");
        for _ in 0..100 {
            assert_eq!(ask(&mut client, 1_002, "RANDOMKEY"), "$7\r\nstaying\r\n");
        }
    }

    #[test]
    fn randomkey_of_expired_keys_alone_is_null() {
        let instance = instance();
        let mut client = Client::connect(&instance, ClientOptions::default());
        for number in 0..50 {
            ask(&mut client, 1_000, &format!("PSETEX k:{number} 1 v"));
        }
        assert_eq!(ask(&mut client, 1_002, "RANDOMKEY"), "$-1\r\n");
    }

    #[test]
    fn databases_are_exchanged_although_one_was_never_used() {
        let instance = instance();
        let mut client = Client::connect(&instance, ClientOptions::default());
        ask(&mut client, 1, "PSETEX k 100 v");
        assert_eq!(ask(&mut client, 1, "SWAPDB 0 9"), "+OK\r\n");
        assert_eq!(ask(&mut client, 1, "DBSIZE"), ":0\r\n");
        ask(&mut client, 1, "SELECT 9");
        assert_eq!(ask(&mut client, 1, "KEYS *"), "*1\r\n$1\r\nk\r\n");
        assert_eq!(ask(&mut client, 102, "GET k"), "$-1\r\n", "its deadline went with it");
    }

    #[test]
    fn keys_that_were_flushed_are_freed_bit_by_bit() {
        let instance = instance();
        let mut client = Client::connect(&instance, ClientOptions::default());
        for number in 0..1_000 {
            ask(&mut client, 1, &format!("SET k:{number} v"));
        }
        ask(&mut client, 1, "FLUSHALL ASYNC");
        let mut rounds = 1;
        while instance.housekeeping(1_000, 100) {
            rounds += 1;
        }
        assert!((5..=16).contains(&rounds), "{rounds} rounds");
    }

    #[test]
    fn flush_spoils_a_transaction_only_if_a_watched_key_was_there() {
        let instance = instance();
        let mut client = Client::connect(&instance, ClientOptions::default());
        for (setup, reply) in [("PING", "*1\r\n+PONG\r\n"), ("SET watched v", "*-1\r\n")] {
            for flush in ["FLUSHALL", "FLUSHALL ASYNC", "FLUSHDB SYNC"] {
                ask(&mut client, 1, setup);
                ask(&mut client, 1, "WATCH watched");
                assert_eq!(ask(&mut client, 1, flush), "+OK\r\n");
                ask(&mut client, 1, "MULTI");
                ask(&mut client, 1, "PING");
                assert_eq!(ask(&mut client, 1, "EXEC"), reply, "{setup}, {flush}");
            }
        }
    }
}
