//! Listings: pages of keys in byte order, and pages of locks.
//!
//! A cursor is the text of the last key of its page, so a page goes on there whatever has come or gone meanwhile, in any process.

use acteon_engine::Ref;
use acteon_state_core::key::Companion;
use acteon_state_core::lock::record::LockRecord;
use acteon_state_core::{Cursor, Error, LockState, Page, Result, Scan, ScanItem, StateKey};

use crate::error::foreign;
use crate::store::{Handle, Now};
use crate::value::entry;

impl Handle {
    pub(crate) fn scan(&self, scan: &Scan, now: Now) -> Result<Page<ScanItem>> {
        self.page(scan, "", "", now, |key, stored| {
            let entry = if scan.with_entries { Some(entry(&key, stored, None)?) } else { None };
            Ok(Some(ScanItem { key, entry }))
        })
    }

    /// Other companions of the same keys lie between the locks, so a page may hold fewer locks than asked for.
    pub(crate) fn lock_list(&self, scan: &Scan, now: Now) -> Result<Page<LockState>> {
        self.page(scan, "{", Companion::Lock.suffix(), now, |key, stored| {
            let record = stored.as_str().and_then(LockRecord::parse).ok_or_else(|| foreign(&key))?;
            Ok(record.state(&key, now.us()))
        })
    }

    /// One page of what lies under `{opening}{text of a key}{suffix}`.
    fn page<T>(
        &self,
        scan: &Scan,
        opening: &str,
        suffix: &str,
        now: Now,
        mut item: impl FnMut(StateKey, Ref<'_>) -> Result<Option<T>>,
    ) -> Result<Page<T>> {
        let begin = scan.check()?;
        let before_key = [opening, self.keyspace.prefix()].concat();
        let after = match &scan.cursor {
            Some(cursor) => Some([&before_key, check_cursor(cursor, &begin, suffix)?].concat()),
            None => None,
        };
        let prefix = [&*before_key, &*begin].concat();
        let limit = scan.page_size as usize;
        let (mut items, mut last, mut failed) = (Vec::new(), Vec::new(), None);
        let more = self.shared.engine.scan(
            prefix.as_bytes(),
            after.as_deref().map(str::as_bytes),
            limit,
            now.ms(),
            |text, stored| {
                last.clear();
                last.extend_from_slice(&text[before_key.len()..]);
                // What does not read as one of our keys was put here by someone else, and is not listed.
                let Some(key) = key_of(&last, suffix) else { return };
                match item(key, stored) {
                    Ok(found) => items.extend(found),
                    Err(error) => failed = failed.take().or(Some(error)),
                }
            },
        );
        if let Some(error) = failed {
            return Err(error);
        }
        let next = match (more, String::from_utf8(last)) {
            (true, Ok(last)) => Some(Cursor::new(last)?),
            (true, Err(_)) => {
                return Err(Error::invalid("the listing met a key that is not text, and cannot go on after it"));
            }
            (false, _) => None,
        };
        Ok(Page { items, next })
    }
}

fn key_of(text: &[u8], suffix: &str) -> Option<StateKey> {
    StateKey::from_text(std::str::from_utf8(text).ok()?.strip_suffix(suffix)?)
}

/// The text of the cursor, which must lie within the listing that begins with `begin`. A brace ends the key in the text of a
/// companion, and nothing else contains one.
fn check_cursor<'a>(cursor: &'a Cursor, begin: &str, suffix: &str) -> Result<&'a str> {
    let text = cursor.as_str();
    if !text.starts_with(begin) || text.contains('}') == suffix.is_empty() {
        return Err(Error::invalid(
            "the cursor does not belong to this listing: go on with the same scope and id prefix",
        ));
    }
    Ok(text)
}
