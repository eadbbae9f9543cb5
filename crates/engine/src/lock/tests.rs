use std::thread;
use std::time::Duration;

use super::{Contended, Databases, Locked, PATIENCE, Place, Places};
use crate::{Engine, EngineConfig, Expiry};

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn databases() -> Databases {
    Databases::new(Engine::new(EngineConfig { segments: 4, ..EngineConfig::default() }), 16)
}

fn acquire(databases: &Databases, place: Place) -> Result<Locked<'_>, Contended> {
    Locked::acquire(databases, Places::from_slice(&[place]), PATIENCE)
}

/// FLUSHALL once let escape what had been written to a database that came into use while it took the others, although it removed what the
/// same client wrote later.
#[test]
fn whoever_takes_everything_notices_a_database_that_comes_into_use_meanwhile() {
    let databases = databases();
    let last = acquire(&databases, Place::new(0, 3)).expect("it is free");
    thread::scope(|scope| {
        let taking = scope.spawn(|| Locked::acquire_everything(&databases, LONG).map(|_| ()));
        // Then it knows which databases there are.
        while acquire(&databases, Place::new(0, 0)).is_ok() {
            thread::yield_now();
        }
        databases.get(5);
        drop(last);
        assert_eq!(taking.join().expect("it does not panic"), Err(Contended));
    });
    let locked =
        Locked::acquire_everything(&databases, LONG).map_err(|Contended| "it is free").expect("nobody else is there");
    assert!(locked.holds_database(5) && locked.holds_everything());
}

/// The first scan of a database orders its keys, segment by segment. When databases were exchanged in the middle of that, some keys
/// were in no order for good.
#[test]
fn databases_can_be_exchanged_while_one_is_being_ordered() {
    let databases = databases();
    for (database, prefix) in [(0, "a"), (1, "b")] {
        for number in 0..100 {
            let key = format!("{prefix}{number}");
            let engine = databases.get(database);
            engine.update(key.as_bytes(), 0, |slot| slot.set_str(&[b"v"], Expiry::Clear)).expect("there is room");
        }
    }
    let order = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let step =
                Locked::none(&databases).step(Place::new(0, number), |context, segment| segment.build_index(context));
            step.map_err(|Contended| "it is free").expect("nobody else is there");
        }
    };
    order(0..2);
    let mut locked = Locked::acquire_databases(&databases, &[0, 1], LONG).map_err(|Contended| "free").expect("nobody");
    locked.exchange(0, 1);
    drop(locked);
    order(2..4);
    databases.get(0).keyspace().set_indexed();
    for database in [0, 1] {
        let mut count = 0;
        databases.get(database).scan(b"", None, 1_000, 0, |_, _| count += 1);
        assert_eq!(count, 100, "database {database}");
    }
}
