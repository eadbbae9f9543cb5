//! Lists as queues: nothing is lost, nothing is taken twice, and nobody overtakes.

use std::collections::BTreeSet;

use acteon_engine::SEGMENTS_DEFAULT;
use acteon_engine_tests::random::Random;
use acteon_engine_tests::reply::Reply;

use crate::plan;
use crate::worker::{Worker, instance, run};

const PRODUCERS: usize = 3;
const CONSUMERS: usize = 3;
const ELEMENTS: usize = 300;

/// Tells a consumer that there is nothing more.
const END: &str = "end";

/// How a consumer takes an element; `None` if there was none yet.
type Take = fn(&mut Worker) -> Option<String>;

#[test]
fn consumers_that_look_take_every_element_once_and_in_order() {
    check(|worker| text(&worker.line("LPOP queue")));
}

#[test]
fn consumers_that_wait_take_every_element_once_and_in_order() {
    check(|worker| text(worker.line("BLPOP nothing queue 10").items().get(1)?));
}

#[test]
fn elements_that_move_on_to_another_list_are_moved_once_and_in_order() {
    check(|worker| text(&worker.line("BLMOVE queue done LEFT RIGHT 10")));
}

#[test]
fn consumers_of_both_kinds_take_every_element_once_and_in_order() {
    check(|worker| match worker.line("LMPOP 1 queue LEFT").items().get(1) {
        Some(elements) => text(elements.items().first()?),
        None => text(worker.line("BLMPOP 10 1 queue LEFT").items().get(1)?.items().first()?),
    });
}

fn check(take: Take) {
    let (seed, rounds) = plan(3);
    for round in 0..rounds {
        let instance = instance([1, SEGMENTS_DEFAULT][round as usize % 2], seed);
        let taken = run(&instance, PRODUCERS + CONSUMERS, |thread, worker| {
            if thread < PRODUCERS {
                produce(worker, thread, &mut Random::new(seed.wrapping_add(round << 8) + thread as u64));
                return Vec::new();
            }
            consume(worker, take)
        });
        let count = taken.iter().map(Vec::len).sum::<usize>();
        let distinct: BTreeSet<_> = taken.iter().flatten().collect();
        assert_eq!(count, PRODUCERS * ELEMENTS, "ACTEON_SEED={seed}, round {round}");
        assert_eq!(distinct.len(), count, "ACTEON_SEED={seed}, round {round}: something was taken twice");
        for (consumer, elements) in taken.iter().enumerate() {
            for producer in 0..PRODUCERS {
                let numbers = elements.iter().filter(|(from, _)| *from == producer).map(|(_, number)| *number);
                assert!(numbers.is_sorted(), "ACTEON_SEED={seed}, round {round}: {consumer} got {elements:?}");
            }
        }
    }
}

/// Pushes its elements in every way that there is, and as many ends as it takes for the consumers to end when all producers have.
fn produce(worker: &mut Worker, producer: usize, random: &mut Random) {
    let mut next = 0;
    while next < ELEMENTS {
        let count = (1 + random.below(3)).min(ELEMENTS - next);
        let elements: Vec<String> = (next..next + count).map(|number| format!("{producer}:{number}")).collect();
        next += count;
        match random.below(4) {
            0 => {
                worker.line("MULTI");
                elements.iter().for_each(|element| drop(worker.line(&format!("RPUSH queue {element}"))));
                worker.line("EXEC");
            }
            1 => {
                let script = "for _, element in ipairs(ARGV) do redis.call('RPUSH', KEYS[1], element) end";
                let mut arguments = vec!["EVAL".to_owned(), script.to_owned(), "1".to_owned(), "queue".to_owned()];
                arguments.extend(elements);
                worker.call(&arguments);
            }
            _ => drop(worker.line(&format!("RPUSH queue {}", elements.join(" ")))),
        }
    }
    (0..CONSUMERS).for_each(|_| drop(worker.line(&format!("RPUSH queue {END}"))));
}

/// Takes elements until it has met the end of every producer: by producer and number.
fn consume(worker: &mut Worker, take: Take) -> Vec<(usize, usize)> {
    let (mut taken, mut ends) = (Vec::new(), 0);
    while ends < PRODUCERS {
        match take(worker).as_deref() {
            Some(END) => ends += 1,
            Some(element) => {
                let (producer, number) = element.split_once(':').expect("an element");
                taken.push((producer.parse().expect("a producer"), number.parse().expect("a number")));
            }
            None => std::thread::yield_now(),
        }
    }
    taken
}

fn text(reply: &Reply) -> Option<String> {
    reply.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}
