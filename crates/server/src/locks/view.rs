//! How locks are shown: as JSON, the same on the command line and over HTTP, and as a table for people.
//!
//! Names and descriptions of holders are up to applications. In a table, control characters of theirs are escaped: a terminal would
//! obey them.

use std::time::Duration;

use acteon_state::config::HumanDuration;
use acteon_state::{LockHolder, LockMode, LockState, Page};
use serde::Serialize;

/// One page of locks.
#[derive(Debug, Serialize)]
pub struct LockPage {
    /// What was found; a page may be empty and still have a successor.
    pub locks: Vec<LockView>,
    /// Where the next page begins; absent after the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// One lock.
#[derive(Debug, Serialize)]
pub struct LockView {
    /// Its name: `namespace:tenant:kind:id`, escaped.
    pub key: String,
    /// The parts of the name, as the application gave them.
    pub namespace: String,
    /// See above.
    pub tenant: String,
    /// See above.
    pub kind: String,
    /// See above.
    pub id: String,
    /// The newest token that was granted.
    pub last_token: u64,
    /// Who holds it now; nobody when it is free.
    pub holders: Vec<HolderView>,
}

/// One holder of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HolderView {
    /// Names the acquisition.
    pub owner: String,
    /// `exclusive`, `shared` or `permit`.
    pub mode: &'static str,
    /// The number of permits that there are, of a semaphore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permits: Option<u32>,
    /// The fencing token.
    pub token: u64,
    /// How long it has held the lock.
    pub held_for_ms: u64,
    /// How long its lease lasts, unless it is extended.
    pub expires_in_ms: u64,
    /// What it said of itself.
    pub meta: String,
}

/// What a release by force has ended.
#[derive(Debug, Serialize)]
pub struct Released {
    /// The lock.
    pub key: String,
    /// Why, in the words of whoever asked.
    pub reason: String,
    /// How many leases were ended.
    pub released: usize,
    /// Who held it just before.
    pub holders: Vec<HolderView>,
}

impl LockPage {
    /// A page as it is shown; of locks that nobody holds only if all are wanted.
    #[must_use]
    pub fn new(page: Page<LockState>, held_only: bool) -> Self {
        let shown = page.items.iter().filter(|lock| !held_only || !lock.holders.is_empty());
        Self {
            locks: shown.map(LockView::new).collect(),
            next_cursor: page.next.map(|cursor| cursor.as_str().to_owned()),
        }
    }

    /// A line for each holder, and one for each free lock, below a head.
    #[must_use]
    pub fn table(&self) -> String {
        let mut rows = vec![["LOCK", "TOKEN", "MODE", "HELD FOR", "ENDS IN", "HOLDER"].map(str::to_owned)];
        for lock in &self.locks {
            if lock.holders.is_empty() {
                let (name, token) = (printable(&lock.key), lock.last_token.to_string());
                rows.push([name, token, "free".to_owned(), String::new(), String::new(), String::new()]);
            }
            rows.extend(lock.holders.iter().map(|holder| row(&lock.key, holder)));
        }
        aligned(&rows)
    }
}

impl LockView {
    /// A lock as it is shown.
    #[must_use]
    pub fn new(lock: &LockState) -> Self {
        let [namespace, tenant, kind, id] = lock.key.parts().map(std::borrow::Cow::into_owned);
        Self {
            key: lock.key.text().to_owned(),
            namespace,
            tenant,
            kind,
            id,
            last_token: lock.last_token.get(),
            holders: lock.holders.iter().map(HolderView::new).collect(),
        }
    }

    /// All that is known of it, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("{}\n  last token: {}\n", printable(&self.key), self.last_token);
        if self.holders.is_empty() {
            text.push_str("  held by:    nobody\n");
        }
        for holder in &self.holders {
            text.push_str(&format!("  held by:    {}\n", holder.describe()));
        }
        text
    }
}

impl HolderView {
    fn new(holder: &LockHolder) -> Self {
        let (mode, permits) = match holder.mode {
            LockMode::Exclusive => ("exclusive", None),
            LockMode::Shared => ("shared", None),
            LockMode::Permit { of } => ("permit", Some(of)),
        };
        Self {
            owner: holder.owner.to_string(),
            mode,
            permits,
            token: holder.token.get(),
            held_for_ms: millis(holder.held_for),
            expires_in_ms: millis(holder.expires_in),
            meta: holder.meta.clone(),
        }
    }

    /// Who it is and how it holds the lock, in one line.
    #[must_use]
    pub fn describe(&self) -> String {
        let (held_for, ends_in) = (duration(self.held_for_ms), duration(self.expires_in_ms));
        let (mode, token, owner) = (self.mode_text(), self.token, &self.owner);
        let who = if self.meta.is_empty() { String::new() } else { format!("{}, ", printable(&self.meta)) };
        format!("{who}owner {owner}, {mode}, token {token}, for {held_for}, lease ends in {ends_in} unless extended")
    }

    fn mode_text(&self) -> String {
        match self.permits {
            Some(permits) => format!("permit of {permits}"),
            None => self.mode.to_owned(),
        }
    }
}

impl Released {
    /// Says who held the lock just before, and how many leases were ended.
    #[must_use]
    pub fn new(before: LockView, reason: &str, released: usize) -> Self {
        Self { key: before.key, reason: reason.to_owned(), released, holders: before.holders }
    }

    /// The same for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let key = printable(&self.key);
        if self.released == 0 {
            return format!("Nobody held {key}.\n");
        }
        let mut text = format!("Released {key}, leases ended: {}\n", self.released);
        for holder in &self.holders {
            text.push_str(&format!("  {}\n", holder.describe()));
        }
        text.push_str(
            "Holders notice at their next extension. Until then only fenced writes keep them from doing harm.\n",
        );
        text
    }
}

fn row(key: &str, holder: &HolderView) -> [String; 6] {
    let who = if holder.meta.is_empty() { &holder.owner } else { &holder.meta };
    [
        printable(key),
        holder.token.to_string(),
        holder.mode_text(),
        duration(holder.held_for_ms),
        duration(holder.expires_in_ms),
        printable(who),
    ]
}

/// The rows as lines whose columns stand below each other.
fn aligned(rows: &[[String; 6]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

/// Whole seconds, as far as there are any: nobody reads the nanoseconds of a lease.
fn duration(ms: u64) -> String {
    let rounded_ms = if ms < 1_000 { ms } else { ms - ms % 1_000 };
    HumanDuration(Duration::from_millis(rounded_ms)).to_string()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use acteon_state::{FencingToken, LockHolder, LockMode, LockState, OwnerId, Page, StateKey};

    use super::{LockPage, LockView, Released};

    fn lock(id: &str, holders: Vec<LockHolder>) -> LockState {
        let key = StateKey::new("shop", "acme", "till", id).expect("valid");
        LockState { key, last_token: FencingToken::new(17).expect("valid"), holders }
    }

    fn holder(mode: LockMode, meta: &str) -> LockHolder {
        LockHolder {
            owner: OwnerId::from_u128(0),
            mode,
            token: FencingToken::new(9).expect("valid"),
            expires_in: Duration::from_millis(61_999),
            held_for: Duration::from_millis(250),
            meta: meta.to_owned(),
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_holder_and_each_free_lock() {
        let two = vec![holder(LockMode::Permit { of: 2 }, "node 1"), holder(LockMode::Permit { of: 2 }, "")];
        let page = Page { items: vec![lock("a", two), lock("b:c", Vec::new())], next: None };
        let table = LockPage::new(page.clone(), false).table();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
        let cells = |line: usize| lines[line].iter().copied().filter(|cell| !cell.is_empty()).collect::<Vec<_>>();
        assert_eq!(cells(0), ["LOCK", "TOKEN", "MODE", "HELD FOR", "ENDS IN", "HOLDER"]);
        assert_eq!(cells(1), ["shop:acme:till:a", "9", "permit of 2", "250ms", "1m 1s", "node 1"]);
        assert_eq!(cells(2)[5], "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(cells(3), ["shop:acme:till:b;0c", "17", "free"]);
        assert_eq!(lines.len(), 4);
        assert_eq!(LockPage::new(page, true).table().lines().count(), 3, "without the free one");
    }

    #[test]
    fn what_applications_write_cannot_speak_to_the_terminal() {
        let view = LockView::new(&lock("a\u{1b}[2J", vec![holder(LockMode::Exclusive, "\u{7}ring\n")]));
        let released = Released::new(LockView::new(&lock("a\u{1b}", Vec::new())), "stuck", 0);
        for text in [view.describe(), LockPage { locks: vec![view], next_cursor: None }.table(), released.describe()] {
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
            assert!(text.contains("\\u{1b}"), "{text}");
        }
    }
}
