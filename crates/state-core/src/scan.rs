//! Listing keys: bounded pages with a cursor that can be kept and resumed.

use std::fmt;

use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Scope, StateKey};

/// The largest page: at the largest key and without values it stays near 1 MiB.
pub const PAGE_SIZE_MAX: u32 = 1_000;
/// The longest text of a cursor.
pub const CURSOR_BYTES_MAX: usize = 2_048;

/// Which keys to list.
///
/// Every key that exists throughout the listing appears at least once. A key that comes or goes meanwhile may appear or
/// not; one may appear twice. Pages are in byte order of the ids where the capability `ordered_scan` says so. A page
/// may hold fewer keys than asked for, even none, and still have a successor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Keys of this namespace, tenant and kind.
    pub scope: Scope,
    /// Only ids that begin with this; empty for all.
    pub id_prefix: String,
    /// At most this many keys in a page: 1 to 1,000. Where the capability `ordered_scan` is missing, a hint.
    pub page_size: u32,
    /// Where the page before this one ended.
    pub cursor: Option<Cursor>,
    /// Also return the entries, read as of the moment of the page.
    pub with_entries: bool,
}

impl Scan {
    /// All keys of the scope, in pages of 100, without their entries.
    #[must_use]
    pub const fn new(scope: Scope) -> Self {
        Self { scope, id_prefix: String::new(), page_size: 100, cursor: None, with_entries: false }
    }

    /// Only ids that begin with this.
    #[must_use]
    pub fn id_prefix(mut self, id_prefix: impl Into<String>) -> Self {
        self.id_prefix = id_prefix.into();
        self
    }

    /// At most this many keys in a page.
    #[must_use]
    pub const fn page_size(mut self, page_size: u32) -> Self {
        self.page_size = page_size;
        self
    }

    /// Goes on where a page ended.
    #[must_use]
    pub fn from_cursor(mut self, cursor: Option<Cursor>) -> Self {
        self.cursor = cursor;
        self
    }

    /// Also returns the entries.
    #[must_use]
    pub const fn with_entries(mut self) -> Self {
        self.with_entries = true;
        self
    }

    /// Checks the bounds and returns what the texts of the keys begin with, without the keyspace's prefix.
    ///
    /// # Errors
    /// `Invalid` for a page size of zero or a prefix that no id can have, `TooLarge` for a page above 1,000.
    pub fn check(&self) -> Result<String> {
        if self.page_size == 0 || self.page_size > PAGE_SIZE_MAX {
            let kind = if self.page_size == 0 { ErrorKind::Invalid } else { ErrorKind::TooLarge };
            let message = format!("page size {} is out of range: allowed are 1 to {PAGE_SIZE_MAX}", self.page_size);
            return Err(Error::new(kind, message));
        }
        self.scope.text_with_id_prefix(&self.id_prefix)
    }
}

/// Where a page ended. Opaque; may be kept and used by another process on the same backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(Box<str>);

impl Cursor {
    /// A cursor with this text. Drivers make them; applications read back what they kept.
    ///
    /// # Errors
    /// `Invalid` for a text that is empty or longer than 2,048 bytes. The driver checks what it means.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self> {
        let text = text.into();
        if text.is_empty() || text.len() > CURSOR_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the cursor has {} bytes; allowed are 1 to {CURSOR_BYTES_MAX}",
                text.len()
            )));
        }
        Ok(Self(text))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What was found.
    pub items: Vec<T>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<Cursor>,
}

/// One key of a page, with its entry where that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanItem {
    /// The key.
    pub key: StateKey,
    /// Its entry, if asked for; without its time to live.
    pub entry: Option<Entry>,
}
