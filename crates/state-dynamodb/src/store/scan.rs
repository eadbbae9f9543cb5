//! Listings: pages of the keys of a scope, merged over its shards in byte order of the ids.
//!
//! # Guarantees
//! A page costs a read of each shard, and a second one of a shard whose answer was used up, however many keys there are. No read
//! begins before the cursor, so a listing reads each key about once. Where reads bring nothing but expired entries, each is twice
//! as long as the one before.
//!
//! # Failure
//! A page ends early, with a cursor, when 64 reads of a shard were not enough to fill it: over a long run of entries that have
//! expired and were not removed yet, or of values so large that a read returns a few. The service bills what it
//! reads, also what is left out here: expired entries, and the values of a listing of keys alone.
//!
//! # How it works
//! Each shard is read from the cursor on, by a little more than its even share of the page, all at the same time. As long
//! as every shard has an unused key or has come to its end, the smallest of them is the next of the page.

use std::collections::VecDeque;

use acteon_state_core::key::ID_BYTES_MAX;
use acteon_state_core::{Cursor, Error, ErrorKind, Operation, Page, Result, Scan, ScanItem};
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use futures_util::future::try_join_all;

use super::Inner;
use crate::address::Address;
use crate::condition::{Expression, NOT_EXPIRED};
use crate::error::Access;
use crate::item::{Item, SK, Stored, text};

/// What an id begins with in a cursor, so that one of another backend is recognised.
const CURSOR_MARK: &str = "after:";
/// How often the shards are read for one page. A read returns up to 1 MB, so a page of the largest values ends here.
const ROUNDS_MAX: usize = 64;
/// How many times its share a read may ask for in the end. What it returns is bounded by 1 MB in any case.
const STRETCH_MAX: usize = 1_024;

/// One shard of a scope, read in part.
struct Shard {
    pk: String,
    /// What was read and is not used, in order of the ids.
    unused: VecDeque<(String, Item)>,
    /// Up to where it was read: the last id, expired or not.
    read_to: Option<String>,
    is_read: bool,
}

impl Inner {
    pub(super) async fn scan(&self, scan: &Scan) -> Result<Page<ScanItem>> {
        scan.check()?;
        if !self.addresses.is_listable(&scan.scope) {
            let message = format!(
                "the kind {:?} is one of point_kinds: its keys have a partition each and cannot be listed",
                scan.scope.kind()
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let after = scan.cursor.as_ref().map(|cursor| id_of(cursor, &scan.id_prefix)).transpose()?;
        let mut shards: Vec<Shard> =
            self.addresses.scope_pks(&scan.scope).map(|pk| Shard::new(pk, after.clone())).collect();
        // One more than the page tells whether there is another.
        let wanted = scan.page_size as usize + 1;
        let now_ms = self.clock.now_ms();
        let mut found: Vec<ScanItem> = Vec::new();
        let mut stretch = 1;
        for _ in 0..ROUNDS_MAX {
            let found_before = found.len();
            let limit = share(wanted - found.len(), shards.len()) * stretch;
            let reads = shards.iter_mut().filter(|shard| shard.is_used_up());
            try_join_all(reads.map(|shard| self.read_shard(scan, shard, limit, now_ms))).await?;
            while found.len() < wanted
                && let Some((id, item)) = next_of(&mut shards)
            {
                found.extend(read_item(scan, &id, &item, now_ms)?);
            }
            if found.len() == wanted || !shards.iter().any(Shard::is_used_up) {
                break;
            }
            stretch = if found.len() == found_before { (stretch * 2).min(STRETCH_MAX) } else { 1 };
        }
        page_of(scan, found, &shards)
    }

    /// Reads on in a shard.
    async fn read_shard(&self, scan: &Scan, shard: &mut Shard, limit: usize, now_ms: u64) -> Result<()> {
        let Expression { text: condition, mut values } = key_condition(&shard.pk, &scan.id_prefix);
        values.extend(Expression::default().at(now_ms).values);
        let from = shard.read_to.clone().map(|sk| Address { pk: shard.pk.clone(), sk }.item());
        let request = self
            .client
            .query()
            .table_name(&*self.table)
            .key_condition_expression(condition)
            .filter_expression(NOT_EXPIRED)
            .set_expression_attribute_values(Some(values))
            .set_projection_expression((!scan.with_entries).then(|| SK.to_owned()))
            .set_exclusive_start_key(from)
            .consistent_read(self.consistent_reads)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = self.gate.call(Access::Read, request.send()).await?;
        self.capacity.add(Operation::Scan, Access::Read, output.consumed_capacity());
        let read_to =
            output.last_evaluated_key().filter(|key| !key.is_empty()).map(|key| sort_key(scan, key)).transpose()?;
        shard.is_read = read_to.is_none();
        shard.read_to = read_to;
        for item in output.items.unwrap_or_default() {
            shard.unused.push_back((sort_key(scan, &item)?, item));
        }
        Ok(())
    }
}

impl Shard {
    const fn new(pk: String, after: Option<String>) -> Self {
        Self { pk, unused: VecDeque::new(), read_to: after, is_read: false }
    }

    /// Whether it may have keys before the next one that is known of the other shards.
    fn is_used_up(&self) -> bool {
        self.unused.is_empty() && !self.is_read
    }
}

/// The smallest id that was read and not used; `None` where a shard must be read before that is known, or at the end.
fn next_of(shards: &mut [Shard]) -> Option<(String, Item)> {
    if shards.iter().any(Shard::is_used_up) {
        return None;
    }
    let first = shards.iter_mut().filter(|shard| !shard.unused.is_empty());
    first.min_by(|one, other| one.unused[0].0.cmp(&other.unused[0].0))?.unused.pop_front()
}

/// The page of what was found: one too many, all that there is, or all that 64 reads brought.
fn page_of(scan: &Scan, mut found: Vec<ScanItem>, shards: &[Shard]) -> Result<Page<ScanItem>> {
    if found.len() > scan.page_size as usize {
        found.truncate(scan.page_size as usize);
        let next = found.last().map(|last| cursor_after(&last.key.id())).transpose()?;
        return Ok(Page { items: found, next });
    }
    // Every shard was read at least to here; what others have beyond it is read again.
    let read_to = shards.iter().filter(|shard| shard.is_used_up()).filter_map(|shard| shard.read_to.as_deref()).min();
    let next = read_to.map(cursor_after).transpose()?;
    Ok(Page { items: found, next })
}

/// How much to read of each shard: its even share, and as much more as chance makes likely (two standard deviations).
fn share(wanted: usize, shards: usize) -> usize {
    let even = wanted.div_ceil(shards.max(1));
    let slack = if shards > 1 { 2 * even.isqrt() + 1 } else { 0 };
    (even + slack).min(wanted)
}

fn key_condition(pk: &str, id_prefix: &str) -> Expression {
    let of_shard = Expression::new("pk = :pk").with(":pk", text(pk));
    if id_prefix.is_empty() {
        return of_shard;
    }
    Expression { text: format!("{} AND begins_with(sk, :prefix)", of_shard.text).into(), ..of_shard }
        .with(":prefix", text(id_prefix))
}

fn sort_key(scan: &Scan, item: &Item) -> Result<String> {
    let id = item.get(SK).and_then(|id| id.as_s().ok()).cloned();
    id.ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("an item of the scope {:?} has no sort key", scan.scope)))
}

/// What is listed of an item; nothing when it has expired meanwhile.
fn read_item(scan: &Scan, id: &str, item: &Item, now_ms: u64) -> Result<Option<ScanItem>> {
    let key = scan.scope.key(id)?;
    if !scan.with_entries {
        return Ok(Some(ScanItem { key, entry: None }));
    }
    Ok(match Stored::read(&key, Some(item), now_ms)? {
        Stored::Absent => None,
        Stored::Live(live) => Some(ScanItem { key, entry: Some(live.entry) }),
    })
}

/// The cursor of the page after the one that ends with this id.
pub(crate) fn cursor_after(id: &str) -> Result<Cursor> {
    Cursor::new(format!("{CURSOR_MARK}{id}"))
}

/// The id that a cursor goes on after.
pub(crate) fn id_of(cursor: &Cursor, id_prefix: &str) -> Result<String> {
    let id = cursor
        .as_str()
        .strip_prefix(CURSOR_MARK)
        .filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX && id.starts_with(id_prefix) && !id.contains('\0'));
    id.map(str::to_owned)
        .ok_or_else(|| Error::invalid("the cursor is not one of this listing: start again without a cursor"))
}

#[cfg(test)]
mod tests {
    use acteon_state_core::{Cursor, Scan, Scope};

    use super::{Shard, cursor_after, id_of, key_condition, next_of, page_of, share};
    use crate::item::Item;

    fn shard(ids: &[&str], read_to: Option<&str>) -> Shard {
        let unused = ids.iter().map(|id| ((*id).to_owned(), Item::new())).collect();
        Shard { pk: "shard".to_owned(), unused, read_to: read_to.map(str::to_owned), is_read: read_to.is_none() }
    }

    fn drain(shards: &mut [Shard]) -> Vec<String> {
        std::iter::from_fn(|| next_of(shards)).map(|(id, _)| id).collect()
    }

    #[test]
    fn shards_merge_until_one_of_them_must_be_read_on() {
        let mut shards = [shard(&["a", "d", "e"], None), shard(&["b", "c"], Some("c"))];
        assert_eq!(drain(&mut shards), ["a", "b", "c"]);
        shards[1] = shard(&[], None);
        assert_eq!(drain(&mut shards), ["d", "e"]);
    }

    #[test]
    fn a_page_that_ends_early_goes_on_where_every_shard_was_read_to() {
        let scan = Scan::new(Scope::new("n", "t", "k").unwrap());
        let shards = [shard(&["x"], Some("y")), shard(&[], Some("f")), shard(&[], Some("g"))];
        assert_eq!(page_of(&scan, vec![], &shards).unwrap().next, Some(cursor_after("f").unwrap()));
        let shards = [shard(&[], None), shard(&[], None)];
        assert_eq!(page_of(&scan, vec![], &shards).unwrap().next, None);
    }

    #[test]
    fn shards_are_read_by_a_little_more_than_their_share() {
        assert_eq!(share(101, 4), 26 + 11);
        assert_eq!(share(1, 4), 1);
        assert_eq!(share(1_001, 1), 1_001);
    }

    #[test]
    fn a_prefix_is_only_asked_where_there_is_one() {
        assert_eq!(key_condition("p", "").text, "pk = :pk");
        assert_eq!(key_condition("p", "a").text, "pk = :pk AND begins_with(sk, :prefix)");
    }

    #[test]
    fn cursors_of_another_listing_are_refused() {
        let cursor = cursor_after("user:7").unwrap();
        assert_eq!(id_of(&cursor, "user:").unwrap(), "user:7");
        assert!(id_of(&cursor, "team:").is_err());
        for foreign in ["17", "after:", &format!("after:{}", "x".repeat(513))] {
            assert!(id_of(&Cursor::new(foreign).unwrap(), "").is_err(), "{foreign}");
        }
    }
}
