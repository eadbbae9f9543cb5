//! Whole databases: emptying one, exchanging two.
//!
//! # Guarantees
//! Both happen at once for everybody. Neither waits for memory to be freed.

use std::ops::DerefMut;

use super::{Engine, Keyspace};
use crate::change::Op;
use crate::segment::Segment;
use crate::store::Store;

impl Engine {
    /// Removes all keys in one atomic step; their memory is freed after the locks are released.
    pub fn clear(&self) {
        let keyspace = &*self.keyspace;
        let numbers: Vec<_> = (0..keyspace.segments.len()).collect();
        let mut guards = keyspace.lock_all(&numbers);
        let cleared = keyspace.clear(guards.iter_mut().map(|guard| &mut **guard));
        let mut group = Vec::new();
        keyspace.context.record(&[], &Op::ClearDatabase, &mut group);
        keyspace.context.outlet.commit_all(group, guards.iter_mut().map(|guard| &mut **guard));
        drop(guards);
        drop(cleared);
    }

    /// Exchanges all keys with another database in one atomic step.
    pub(crate) fn swap_with(&self, other: usize) {
        let own = self.keyspace.context.database;
        if own == other {
            return;
        }
        let (low, high) = (self.sibling(own.min(other)), self.sibling(own.max(other)));
        let numbers: Vec<_> = (0..low.keyspace.segments.len()).collect();
        let (mut lower, mut upper) = (low.keyspace.lock_all(&numbers), high.keyspace.lock_all(&numbers));
        low.keyspace.exchange(&mut lower, &high.keyspace, &mut upper);
    }
}

/// What was in a database.
#[derive(Default)]
pub(crate) struct Cleared {
    pub(crate) keys: u64,
    /// Those that nobody else will free.
    pub(crate) stores: Vec<Store>,
}

impl Keyspace {
    /// Takes everything out of all of the segments, which are held, for the caller to drop when they are not any more.
    pub(crate) fn clear<'s>(&self, segments: impl Iterator<Item = &'s mut Segment>) -> Cleared {
        let mut cleared = Cleared::default();
        for segment in segments {
            let (keys, store) = segment.take_all(&self.context);
            cleared.keys += keys as u64;
            if !store.is_empty() {
                cleared.stores.push(store);
            }
        }
        self.context.index.clear();
        self.set_ttl_average_ms(0);
        cleared
    }

    /// Exchanges the contents of two databases, all of whose segments are held and given in order.
    pub(crate) fn exchange<S: DerefMut<Target = Segment>>(&self, segments: &mut [S], other: &Self, others: &mut [S]) {
        // The index is all or nothing: a database with one lends it to the other, also when it is only being built.
        if segments.iter().chain(others.iter()).any(|segment| segment.is_indexed()) {
            for (keyspace, segments) in [(self, &mut *segments), (other, &mut *others)] {
                segments.iter_mut().for_each(|segment| segment.build_index(&keyspace.context));
                keyspace.set_indexed();
            }
        }
        self.context.index.exchange(&other.context.index);
        let ttls_ms = (self.ttl_average_ms(), other.ttl_average_ms());
        self.set_ttl_average_ms(ttls_ms.1);
        other.set_ttl_average_ms(ttls_ms.0);
        for (segment, other_segment) in segments.iter_mut().zip(others) {
            segment.exchange(&self.context, other_segment, &other.context);
        }
    }
}
