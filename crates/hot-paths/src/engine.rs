//! The engine by typed calls: no driver, no protocol.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use acteon_engine::{Engine, EngineConfig, Expiry};
use acteon_engine_disk::{Disk, DiskConfig, Files, Fsync};

use crate::meter::{KEYS, must, repeat, walk};
use crate::{Outcome, Path};

pub(crate) const PATHS: &[Path] = &[
    Path { name: "engine-get", run: get },
    Path { name: "engine-put", run: put },
    Path { name: "engine-put-journal", run: put_journal },
    Path { name: "engine-put-ttl", run: put_ttl },
    Path { name: "engine-increment", run: increment },
];

const NOW_MS: u64 = 1_000_000;
const VALUE: [u8; 64] = [b'x'; 64];
/// More than a disk needs for some megabytes.
const PATIENCE: Duration = Duration::from_secs(60);

fn get() -> Outcome {
    let (engine, keys) = filled(&VALUE)?;
    repeat(|turn| {
        let value =
            engine.read(&keys[walk(turn)], NOW_MS, |entry| entry.and_then(|it| it.as_str().map(<[u8]>::to_vec)));
        assert_eq!(value.map_or(0, |value| value.len()), VALUE.len());
    });
    Ok(())
}

fn put() -> Outcome {
    let (engine, keys) = filled(&VALUE)?;
    repeat(|turn| must(engine.update(&keys[walk(turn)], NOW_MS, |slot| slot.set_str(&[&VALUE], Expiry::Clear))));
    Ok(())
}

/// As `put`, into a journal that nobody waits for. What its thread does is not counted.
fn put_journal() -> Outcome {
    let folder = tempfile::tempdir()?;
    let config = DiskConfig { fsync: Fsync::No, ..DiskConfig::default() };
    let engine = Engine::new(EngineConfig::default());
    let (disk, _) = Disk::open(Arc::new(Files::create(folder.path().join("data"))?), &engine, config, NOW_MS)?;
    let keys = fill(&engine, &VALUE)?;
    // The buffers that the engine and the journal hand to each other are as large as they will be.
    for _ in 0..4 {
        engine.update(b"large", NOW_MS, |slot| slot.set_str(&[&vec![b'x'; 1 << 20]], Expiry::Clear))?;
        disk.sync(PATIENCE)?;
    }
    repeat(|turn| must(engine.update(&keys[walk(turn)], NOW_MS, |slot| slot.set_str(&[&VALUE], Expiry::Clear))));
    Ok(disk.close()?)
}

/// A value with a deadline in the place of another one: what a key that is put again and again costs. The first deadlines of all segments, for
/// which they make lists and chunks, come before.
fn put_ttl() -> Outcome {
    let (engine, keys) = filled(&VALUE)?;
    for key in &keys {
        engine.update(key, NOW_MS, |slot| slot.set_str(&[&VALUE], Expiry::At(NOW_MS + 60_000)))?;
    }
    repeat(|turn| {
        let expiry = Expiry::At(NOW_MS + 60_000 + u64::from(turn));
        must(engine.update(&keys[walk(turn)], NOW_MS, |slot| slot.set_str(&[&VALUE], expiry)));
    });
    Ok(())
}

/// A counter of eight bytes, changed where it lies.
fn increment() -> Outcome {
    let (engine, keys) = filled(&0_u64.to_le_bytes())?;
    repeat(|turn| {
        let next = engine.update(&keys[walk(turn)], NOW_MS, |slot| {
            let bytes = slot.get()?.as_str()?;
            let next = u64::from_le_bytes(bytes.try_into().ok()?) + 1;
            slot.overwrite(0, &next.to_le_bytes()).then_some(next)
        });
        assert!(black_box(next).is_some());
    });
    Ok(())
}

fn filled(value: &[u8]) -> Outcome<(Engine, Vec<Vec<u8>>)> {
    let engine = Engine::new(EngineConfig::default());
    let keys = fill(&engine, value)?;
    Ok((engine, keys))
}

fn fill(engine: &Engine, value: &[u8]) -> Outcome<Vec<Vec<u8>>> {
    let keys: Vec<Vec<u8>> = (0..KEYS).map(|at| format!("acteon:bench:acme:value:{at:012}").into_bytes()).collect();
    for key in &keys {
        engine.update(key, NOW_MS, |slot| slot.set_str(&[value], Expiry::Clear))?;
    }
    Ok(keys)
}
