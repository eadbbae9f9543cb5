//! Listings: each page is a range of the primary key, in byte order of the ids.
//!
//! The first page costs the same however many keys there are; the cursor is the last id of the page before it. Expired
//! entries that were not swept yet are stepped over inside of the range.

use std::sync::Arc;

use acteon_state_core::key::ID_BYTES_MAX;
use acteon_state_core::{Cursor, Error, Page, Result, Scan, ScanItem};
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, Row as _};

use super::value::read_entry_columns;
use super::{Inner, unexpected};
use crate::names::Names;

/// $4 is where the range begins, $5 whether that id itself is left out, $6 where it ends: the first text after all that
/// begin with the prefix. There is always one: with "or null" in the condition, a plan that is made for any arguments would
/// read on to the end of the kind.
const SCAN: &str = "
    SELECT e.id, {columns}
      FROM {t}entries e
     WHERE e.namespace = $1 AND e.tenant = $2 AND e.kind = $3
       AND e.id >= $4 AND (NOT $5 OR e.id > $4) AND e.id < $6
       AND (e.expires_at_us IS NULL OR e.expires_at_us > (SELECT {t}now_us()))
     ORDER BY e.id
     LIMIT $7";

const ENTRY: &str = "e.value, e.version, e.fence, e.counter";
/// The last of all in Unicode, and by bytes.
const LAST_CHARACTER: char = char::MAX;
/// What an id begins with in a cursor, so that one of another backend is recognised.
const CURSOR_MARK: &str = "after:";

/// The statements of listings.
pub(super) struct ScanSql {
    ids: Arc<str>,
    entries: Arc<str>,
}

impl ScanSql {
    pub(super) fn new(names: &Names) -> Self {
        let sql = |columns: &str| names.sql(&SCAN.replace("{columns}", columns));
        Self { ids: sql("true"), entries: sql(ENTRY) }
    }
}

impl Inner {
    pub(super) async fn scan(&self, scan: &Scan) -> Result<Page<ScanItem>> {
        scan.check()?;
        let arguments = range_arguments(scan)?;
        let sql = if scan.with_entries { &self.scan_sql.entries } else { &self.scan_sql.ids };
        let rows = self.read(sql, arguments).await?;
        let mut items = Vec::with_capacity(rows.len());
        let mut last = None;
        for row in rows.iter().take(scan.page_size as usize) {
            let id: String = row.try_get(0).map_err(unexpected)?;
            let key = scan.scope.key(&id)?;
            let entry = if scan.with_entries { Some(read_entry_columns(&key, row, 1)?) } else { None };
            items.push(ScanItem { key, entry });
            last = Some(id);
        }
        let has_more = rows.len() > scan.page_size as usize;
        let next = last.filter(|_| has_more).map(|id| cursor_after(&id)).transpose()?;
        Ok(Page { items, next })
    }
}

/// The seven parameters of a range of ids. One row more than the page tells whether there is another.
pub(crate) fn range_arguments(scan: &Scan) -> Result<PgArguments> {
    let (from, is_after) = match &scan.cursor {
        None => (scan.id_prefix.clone(), false),
        Some(cursor) => (id_of(cursor, &scan.id_prefix)?, true),
    };
    let bind = || -> Result<PgArguments, BoxDynError> {
        let mut arguments = PgArguments::default();
        arguments.add(scan.scope.namespace())?;
        arguments.add(scan.scope.tenant())?;
        arguments.add(scan.scope.kind())?;
        arguments.add(from)?;
        arguments.add(is_after)?;
        arguments.add(end_of(&scan.id_prefix))?;
        arguments.add(i64::from(scan.page_size) + 1)?;
        Ok(arguments)
    };
    bind().map_err(|error| Error::invalid("the listing cannot be encoded").with_source(error))
}

/// The cursor of the page after the one that ends with this id.
pub(crate) fn cursor_after(id: &str) -> Result<Cursor> {
    Cursor::new(format!("{CURSOR_MARK}{id}"))
}

fn id_of(cursor: &Cursor, id_prefix: &str) -> Result<String> {
    let id = cursor.as_str().strip_prefix(CURSOR_MARK).filter(|id| id.starts_with(id_prefix) && !id.contains('\0'));
    id.map(str::to_owned)
        .ok_or_else(|| Error::invalid("the cursor is not one of this listing: start again without a cursor"))
}

/// The first text after all ids that begin with `prefix`, by bytes.
fn end_of(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // The order of UTF-8 bytes is the order of characters. No text has the surrogates.
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            last => char::from_u32(u32::from(last) + 1),
        };
        if let Some(next) = next {
            end.push(next);
            return end;
        }
    }
    // No id is as long, and no character is above this one.
    LAST_CHARACTER.to_string().repeat(ID_BYTES_MAX / LAST_CHARACTER.len_utf8() + 1)
}

#[cfg(test)]
mod tests {
    use acteon_state_core::key::ID_BYTES_MAX;
    use acteon_state_core::{Cursor, StateKey};

    use super::{cursor_after, end_of, id_of};

    #[test]
    fn the_end_of_a_prefix_comes_after_all_that_begin_with_it() {
        assert_eq!(end_of("ab"), "ac");
        assert_eq!(end_of("a\u{7f}"), "a\u{80}");
        assert_eq!(end_of("a\u{D7FF}"), "a\u{E000}");
        assert_eq!(end_of("a\u{10FFFF}"), "b");
        let last_id = "\u{10FFFF}".repeat(ID_BYTES_MAX / 4);
        assert!(StateKey::new("n", "t", "k", &last_id).is_ok());
        assert!(end_of("\u{10FFFF}") > last_id && end_of("") > last_id);
    }

    #[test]
    fn cursors_of_another_listing_are_refused() {
        let cursor = cursor_after("user:7").unwrap();
        assert_eq!(id_of(&cursor, "user:").unwrap(), "user:7");
        assert!(id_of(&cursor, "team:").is_err());
        assert!(id_of(&Cursor::new("17").unwrap(), "").is_err());
    }
}
