//! Random commands, family by family, to a real Redis and to the engine.

use acteon_engine_tests::differential::check;
use acteon_engine_tests::endpoint::RealRedis;
use acteon_engine_tests::options;

/// One test per family, so that they run beside each other and one can be run alone.
macro_rules! families {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                if let Err(differences) = check(stringify!($name)) {
                    panic!("{differences}");
                }
            }
        )*

        #[test]
        fn every_family_has_a_test() {
            let families: Vec<_> = acteon_engine_tests::families::families().iter().map(|family| family.name).collect();
            assert_eq!(families, [$(stringify!($name)),*]);
        }
    };
}

families!(
    strings,
    bitmaps,
    hyperloglog,
    keys,
    hashes,
    lists,
    sets,
    sorted_sets,
    geo,
    transactions,
    scripts,
    pubsub,
    server,
);

#[test]
fn every_option_that_redis_documents_is_generated() {
    let missing = options::missing(&mut RealRedis::start().unwrap()).unwrap();
    assert!(missing.is_empty(), "the templates make none of {missing:?}");
}
