//! Listings by SCAN: bounded pages, never KEYS.
//!
//! SCAN walks the whole database and filters, so a page costs one round trip for each thousand keys that it visits, up to a
//! bound; with entries, or for locks, one more. A page may therefore be empty and still have a successor. It may also be
//! longer than asked for, by what one step of SCAN returns.

use acteon_state_core::key::Companion;
use acteon_state_core::lock::record::LockRecord;
use acteon_state_core::{Cursor, Error, LockState, Page, Result, Scan, ScanItem, StateKey};
use redis::{Pipeline, Value};

use super::{Inner, settled};
use crate::error::Access;
use crate::reply;

/// The most keys that one step of SCAN visits: about a millisecond of the server's time, which everyone else waits for.
const STEP_KEYS_MAX: u32 = 1_000;
/// The most steps of one page.
const STEPS_MAX: u32 = 16;

impl Inner {
    pub(super) async fn scan(&self, scan: &Scan) -> Result<Page<ScanItem>> {
        let pattern = format!("{}{}*", self.keyspace.prefix(), scan.check()?);
        let (texts, next) = self.walk(scan, &pattern).await?;
        // A text that is no key of ours is somebody else's.
        let keys = texts.iter().filter_map(|text| self.keyspace.parse(text));
        let items = if scan.with_entries {
            self.with_entries(keys.collect()).await?
        } else {
            keys.map(|key| ScanItem { key, entry: None }).collect()
        };
        Ok(Page { items, next })
    }

    pub(crate) async fn lock_list(&self, scan: &Scan) -> Result<Page<LockState>> {
        let suffix = Companion::Lock.suffix();
        let pattern = format!("{{{}{}*{suffix}", self.keyspace.prefix(), scan.check()?);
        let (texts, next) = self.walk(scan, &pattern).await?;
        let keys: Vec<StateKey> =
            texts.iter().filter_map(|text| self.keyspace.parse_companion(text, Companion::Lock)).collect();
        let texts = keys.iter().map(|key| self.keyspace.companion(key, Companion::Lock));
        let (records, now_us) = self.read_all(texts).await?;
        let mut items = Vec::with_capacity(keys.len());
        for (key, record) in keys.iter().zip(records) {
            // Gone in the meantime: not a lock any more.
            let Some(bytes) = record else { continue };
            let record = LockRecord::parse(&bytes).ok_or_else(|| corrupt_lock(key))?;
            items.extend(record.state(key, now_us));
        }
        Ok(Page { items, next })
    }

    /// Steps of SCAN until the page is full, the end is reached, or enough was visited.
    async fn walk(&self, scan: &Scan, pattern: &str) -> Result<(Vec<String>, Option<Cursor>)> {
        let mut cursor = scan.cursor.as_ref().map_or(Ok(0), parse_cursor)?;
        let mut texts = Vec::new();
        let mut count = scan.page_size.min(STEP_KEYS_MAX);
        for _ in 0..STEPS_MAX {
            let mut cmd = redis::cmd("SCAN");
            cmd.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(count).arg("TYPE").arg("string");
            let mut fields = reply::array(self.send(&cmd, Access::Read).await?)?;
            let next = reply::text(reply::next(&mut fields)?)?;
            cursor = next.parse().map_err(|_| crate::error::unexpected(&Value::SimpleString(next)))?;
            for text in reply::array(reply::next(&mut fields)?)? {
                // A name that is not UTF-8 is none of ours.
                texts.extend(reply::bytes_or_nil(text)?.and_then(|bytes| String::from_utf8(bytes).ok()));
            }
            if cursor == 0 || texts.len() >= scan.page_size as usize {
                break;
            }
            // Ours are rare among all keys: larger steps.
            count = (count * 4).min(STEP_KEYS_MAX);
        }
        let next = if cursor == 0 { None } else { Some(Cursor::new(cursor.to_string())?) };
        Ok((texts, next))
    }

    async fn with_entries(&self, keys: Vec<StateKey>) -> Result<Vec<ScanItem>> {
        let (records, _) = self.read_all(keys.iter().map(|key| self.keyspace.text(key))).await?;
        let mut items = Vec::with_capacity(keys.len());
        for (key, record) in keys.into_iter().zip(records) {
            if let Some(bytes) = record {
                let entry = reply::entry(&key, bytes, None)?;
                items.push(ScanItem { key, entry: Some(entry) });
            }
        }
        Ok(items)
    }

    /// Many strings and the server's time, in one round trip.
    async fn read_all(&self, texts: impl ExactSizeIterator<Item = String>) -> Result<(Vec<Option<Vec<u8>>>, u64)> {
        if texts.len() == 0 {
            return Ok((Vec::new(), 0));
        }
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("TIME").cmd("MGET");
        for text in texts {
            pipeline.arg(text);
        }
        let mut replies = self.links.send_all(&pipeline, Access::Read).await?.into_iter();
        let now_us = reply::time_us(settled(reply::next(&mut replies)?)?)?;
        let records = reply::array(settled(reply::next(&mut replies)?)?)?;
        Ok((records.map(reply::bytes_or_nil).collect::<Result<_>>()?, now_us))
    }
}

/// A lock record that does not parse.
pub(crate) fn corrupt_lock(key: &StateKey) -> Error {
    Error::corrupt(key, "the lock record does not parse: something else writes under this prefix")
}

fn parse_cursor(cursor: &Cursor) -> Result<u64> {
    let text = cursor.as_str();
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| Error::invalid("the cursor is not one of this backend: start again without a cursor"))
}

#[cfg(test)]
mod tests {
    use acteon_state_core::Cursor;

    use super::parse_cursor;

    #[test]
    fn cursors_are_numbers() {
        assert_eq!(parse_cursor(&Cursor::new("18446744073709551615").unwrap()).unwrap(), u64::MAX);
        for bad in ["+1", "-1", "1a", " 1", "18446744073709551616", "*"] {
            assert!(parse_cursor(&Cursor::new(bad).unwrap()).is_err(), "{bad}");
        }
    }
}
