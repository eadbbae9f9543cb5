//! Listing locks: from the index, shard by shard, each lock then read from the table.
//!
//! A page ends when it is full, at the end of the last shard, or after some queries, so that a prefix that few ids have does not
//! make one call read the whole index. The index follows the table a moment later; what it names is read as it is.

use acteon_state_core::key::Companion;
use acteon_state_core::{Cursor, Error, ErrorKind, LockState, Operation, Page, Result, Scan, Scope, StateKey};
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::address::ALONE;
use crate::error::Access;
use crate::item::{Item, PK, SK, number, text};
use crate::store::Inner;
use crate::table::{INDEX, INDEX_PK, INDEX_SK};

/// How many queries a page may take.
const QUERIES_MAX: usize = 16;
/// How many locks are read at the same time.
const READS_AT_ONCE: usize = 16;

/// Where a page begins: in a shard, behind a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Position {
    shard: u8,
    after: Option<StateKey>,
}

impl Inner {
    pub(crate) async fn lock_list(&self, scan: &Scan) -> Result<Page<LockState>> {
        scan.check()?;
        let (keys, next) = self.lock_keys(scan).await?;
        let reads = keys.into_iter().map(|key| async move { self.lock_state(Operation::LockList, &key).await });
        let states = stream::iter(reads).buffered(READS_AT_ONCE).try_collect::<Vec<_>>().await?;
        let next = next.map(|position| position.cursor()).transpose()?;
        Ok(Page { items: states.into_iter().flatten().collect(), next })
    }

    /// The names of a page, and where the next one begins.
    async fn lock_keys(&self, scan: &Scan) -> Result<(Vec<StateKey>, Option<Position>)> {
        let shards = self.addresses.list_shards().count();
        let page_size = scan.page_size as usize;
        let mut at = Position::from_cursor(scan.cursor.as_ref(), &scan.scope, shards)?;
        let mut keys = Vec::new();
        for _ in 0..QUERIES_MAX {
            let (found, has_more) = self.lock_keys_of_shard(&at, &scan.scope, page_size - keys.len()).await?;
            let last = found.last().cloned();
            keys.extend(found.into_iter().filter(|key| key.id().starts_with(&scan.id_prefix)));
            at = match last {
                Some(last) if has_more => Position { after: Some(last), ..at },
                _ if usize::from(at.shard) + 1 == shards => return Ok((keys, None)),
                _ => Position { shard: at.shard + 1, after: None },
            };
            if keys.len() == page_size {
                break;
            }
        }
        Ok((keys, Some(at)))
    }

    /// Some locks of a shard, and whether it may have more.
    async fn lock_keys_of_shard(&self, at: &Position, scope: &Scope, limit: usize) -> Result<(Vec<StateKey>, bool)> {
        let shard = self.addresses.lock_list_pk(scope, at.shard);
        let request = self
            .client
            .query()
            .table_name(&*self.table)
            .index_name(INDEX)
            .key_condition_expression("iq = :iq")
            .expression_attribute_values(":iq", text(&shard))
            .set_exclusive_start_key(at.after.as_ref().map(|key| self.index_key(key, &shard)))
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = self.gate.call(Access::Read, request.send()).await?;
        self.capacity.add(Operation::LockList, Access::Read, output.consumed_capacity());
        let keys = output.items().iter().map(|item| self.key_of(item)).collect::<Result<Vec<_>>>()?;
        Ok((keys, output.last_evaluated_key.is_some()))
    }

    /// The key of a lock in the index.
    fn index_key(&self, key: &StateKey, shard: &str) -> Item {
        let mut item = self.addresses.companion(key, Companion::Lock).item();
        item.insert(INDEX_PK.to_owned(), text(shard));
        item.insert(INDEX_SK.to_owned(), number(0));
        item
    }

    fn key_of(&self, item: &Item) -> Result<StateKey> {
        let text = |name: &str| item.get(name).map(AttributeValue::as_s).and_then(std::result::Result::ok);
        let key = text(PK).filter(|_| text(SK).is_some_and(|sk| sk == ALONE));
        let key = key.and_then(|pk| self.addresses.keyspace().parse_companion(pk, Companion::Lock));
        key.ok_or_else(|| {
            let found = text(PK).map_or("?", String::as_str);
            let message = format!("the index lists {found:?} among the locks: something else writes to this table");
            Error::new(ErrorKind::Corrupt, message)
        })
    }
}

impl Position {
    fn cursor(&self) -> Result<Cursor> {
        let after = self.after.as_ref().map_or("", StateKey::text);
        Cursor::new(format!("{}.{after}", self.shard))
    }

    fn from_cursor(cursor: Option<&Cursor>, scope: &Scope, shards: usize) -> Result<Self> {
        let Some(cursor) = cursor else { return Ok(Self { shard: 0, after: None }) };
        Self::parse(cursor.as_str())
            .filter(|at| usize::from(at.shard) < shards)
            .filter(|at| at.after.as_ref().is_none_or(|key| key.scope() == *scope))
            .ok_or_else(|| Error::invalid("the cursor is none of a listing of these locks"))
    }

    fn parse(text: &str) -> Option<Self> {
        let (shard, after) = text.split_once('.')?;
        let after = match after {
            "" => None,
            text => Some(StateKey::from_text(text)?),
        };
        Some(Self { shard: shard.parse().ok()?, after })
    }
}

#[cfg(test)]
mod tests {
    use acteon_state_core::{Cursor, Scope};

    use super::Position;

    #[test]
    fn cursors_read_back_and_those_of_other_listings_are_refused() {
        let scope = Scope::new("n", "t", "k").unwrap();
        for after in [None, Some(scope.key("a.b:c").unwrap())] {
            let position = Position { shard: 3, after };
            let cursor = position.cursor().unwrap();
            assert_eq!(Position::from_cursor(Some(&cursor), &scope, 4).unwrap(), position);
            assert!(Position::from_cursor(Some(&cursor), &scope, 3).is_err());
        }
        for text in ["", "x", "1", "1.n:t", "1.n:t:other:i", "-1.n:t:k:i"].into_iter().skip(1) {
            let cursor = Cursor::new(text).unwrap();
            assert!(Position::from_cursor(Some(&cursor), &scope, 4).is_err(), "{text}");
        }
    }
}
