//! Approximate counting of distinct elements: PFADD, PFCOUNT, PFMERGE.
//!
//! Stored as strings whose bytes are Redis's, so a value may move between both. See `algorithm/hyperloglog.rs`.

use super::call::Call;
use super::error::CommandError;
use super::options::is;
use super::row::{Flags, Group, Row};
use crate::algorithm::hyperloglog::{self, Corrupt, Encoding, Union};
use crate::entry::StrEncoding;
use crate::observe::EventClass;
use crate::slot::{Expiry, Slot};

const CORRUPT: CommandError = CommandError::text("INVALIDOBJ Corrupted HLL object detected");

/// The value of a key, if it has one.
fn stored<'s>(slot: &'s Slot<'_>) -> Result<Option<&'s [u8]>, CommandError> {
    let Some(bytes) = slot.str()? else { return Ok(None) };
    match hyperloglog::validate(bytes) {
        Ok(_) => Ok(Some(bytes)),
        Err(hyperloglog::Invalid) => Err(CommandError::text("WRONGTYPE Key is not a valid HyperLogLog string value.")),
    }
}

fn write(slot: &mut Slot<'_>, bytes: &[u8]) -> Result<(), CommandError> {
    slot.set_text(&[bytes], Expiry::Keep)?;
    slot.set_encoding(StrEncoding::Raw);
    Ok(())
}

fn pfadd(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let mut slot = call.keys.slot(call.args[1]);
    let before = stored(&slot)?.map(<[u8]>::to_vec);
    let mut is_changed = before.is_none();
    let mut bytes = before.unwrap_or_else(hyperloglog::create);
    let sparse_bytes_max = call.session.limits.hll_sparse_max_bytes;
    for element in &call.args[2..] {
        is_changed |= hyperloglog::add(&mut bytes, element, sparse_bytes_max).map_err(|Corrupt| CORRUPT)?;
    }
    if is_changed {
        hyperloglog::mark_stale(&mut bytes);
        write(&mut slot, &bytes)?;
        slot.event(EventClass::STRING, "pfadd");
        call.effects.changes += 1;
    } else {
        // Redis takes the value to be changed before it knows.
        slot.set_encoding(StrEncoding::Raw);
    }
    call.reply.integer(i64::from(is_changed));
    Ok(())
}

/// Of one key the estimate is kept with the value; of several it is computed each time.
fn pfcount(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    if call.args.len() > 2 {
        let mut union = Union::new();
        for key in &call.args[1..] {
            if let Some(bytes) = stored(&call.keys.read(key))? {
                union.include(bytes).map_err(|Corrupt| CORRUPT)?;
            }
        }
        call.reply.integer(union.estimate() as i64);
        return Ok(());
    }
    let mut slot = call.keys.read(call.args[1]);
    if stored(&slot)?.is_some() {
        // As for PFADD.
        slot.set_encoding(StrEncoding::Raw);
    }
    let Some(bytes) = stored(&slot)? else {
        call.reply.integer(0);
        return Ok(());
    };
    if let Some(estimate) = hyperloglog::cached(bytes) {
        call.reply.integer(estimate as i64);
        return Ok(());
    }
    let estimate = hyperloglog::estimate(bytes).map_err(|Corrupt| CORRUPT)?;
    // No reason to refuse the answer where nothing may be written.
    if call.instance.databases.first().check_writable().is_ok() {
        let mut bytes = bytes.to_vec();
        hyperloglog::set_cached(&mut bytes, estimate);
        slot.overwrite(0, &bytes[..hyperloglog::HEADER_BYTES]);
        call.effects.changes += 1;
    }
    call.reply.integer(estimate as i64);
    Ok(())
}

fn pfmerge(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let mut union = Union::new();
    for key in &call.args[1..] {
        if let Some(bytes) = stored(&call.keys.read(key))? {
            union.include(bytes).map_err(|Corrupt| CORRUPT)?;
        }
    }
    let mut slot = call.keys.slot(call.args[1]);
    let mut bytes = stored(&slot)?.map_or_else(hyperloglog::create, <[u8]>::to_vec);
    union.store(&mut bytes, call.session.limits.hll_sparse_max_bytes).map_err(|Corrupt| CORRUPT)?;
    write(&mut slot, &bytes)?;
    slot.event(EventClass::STRING, "pfadd");
    call.effects.changes += 1;
    call.reply.simple("OK");
    Ok(())
}

/// `PFDEBUG GETREG | DECODE | ENCODING | TODENSE key`
fn pfdebug(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let (word, key) = (call.args[1], call.args[2]);
    let mut slot = call.keys.slot(key);
    let Some(bytes) = stored(&slot)? else {
        return Err(CommandError::text("ERR The specified key does not exist"));
    };
    let mut bytes = bytes.to_vec();
    let encoding = hyperloglog::encoding(&bytes);
    if is(word, "GETREG") {
        if hyperloglog::make_dense(&mut bytes).map_err(|Corrupt| CORRUPT)? {
            write(&mut slot, &bytes)?;
        }
        call.reply.array(hyperloglog::REGISTERS);
        hyperloglog::dense_registers(&bytes).for_each(|register| call.reply.integer(i64::from(register)));
    } else if is(word, "DECODE") {
        if encoding != Encoding::Sparse {
            return Err(CommandError::text("ERR HLL encoding is not sparse"));
        }
        call.reply.simple(&hyperloglog::decode(&bytes));
    } else if is(word, "ENCODING") {
        call.reply.simple(encoding.name());
    } else if is(word, "TODENSE") {
        let was_sparse = hyperloglog::make_dense(&mut bytes).map_err(|Corrupt| CORRUPT)?;
        if was_sparse {
            write(&mut slot, &bytes)?;
        }
        call.reply.integer(i64::from(was_sparse));
    } else {
        return Err(CommandError::Text(
            format!("ERR Unknown PFDEBUG subcommand '{}'", String::from_utf8_lossy(word)).into(),
        ));
    }
    Ok(())
}

fn pfselftest(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    let session = &mut *call.session;
    hyperloglog::self_test(|| session.random.next_u64()).map_err(|error| CommandError::Text(error.into()))?;
    call.reply.simple("OK");
    Ok(())
}

pub(super) const ROWS: &[Row] = &[
    Row::new("pfadd", -2, Group::HyperLogLog, pfadd)
        .flags(&[Flags::WRITE, Flags::DENYOOM, Flags::FAST])
        .keys(1, 1, 1)
        .docs("2.8.9", "Counts elements approximately: adds some."),
    Row::new("pfcount", -2, Group::HyperLogLog, pfcount)
        .flags(&[Flags::READONLY, Flags::MAY_REPLICATE])
        .keys(1, -1, 1)
        .docs("2.8.9", "About how many different elements were added to the keys."),
    Row::new("pfmerge", -2, Group::HyperLogLog, pfmerge)
        .flags(&[Flags::WRITE, Flags::DENYOOM])
        .keys(1, -1, 1)
        .docs("2.8.9", "Makes a key count what several keys count."),
    Row::new("pfdebug", 3, Group::HyperLogLog, pfdebug)
        .flags(&[Flags::WRITE, Flags::DENYOOM, Flags::ADMIN])
        .keys(2, 2, 1)
        .docs("2.8.9", "How a count is stored; for tests."),
    Row::new("pfselftest", 1, Group::HyperLogLog, pfselftest)
        .flags(&[Flags::ADMIN])
        .docs("2.8.9", "Checks the counting; for tests."),
];
