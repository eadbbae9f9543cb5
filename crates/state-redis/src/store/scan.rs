//! Listings by SCAN: bounded pages, never KEYS.
//!
//! SCAN walks the whole database and filters, so a page costs one round trip for each thousand keys that it visits, up to a
//! bound; with entries, or for locks, one more. A page may therefore be empty and still have a successor. It may also be
//! longer than asked for, by what one step of SCAN returns.
//!
//! # On a Cluster
//! The primaries are walked one after the other. A key that moves from one that was not visited yet to one that was would be
//! missed. So the cursor carries a digest of who had which slots when the walk began; when it is another one at the end, or
//! slots are on the move, the primaries are walked once more. Keys may then be listed twice, which listings may do.

use std::fmt;

use acteon_state_core::key::Companion;
use acteon_state_core::{Cursor, Error, LockState, Page, Result, Scan, ScanItem, StateKey};
use tokio::time::Instant;

use super::{Inner, settled};
use crate::cluster::Cluster;
use crate::error::Access;
use crate::link::Links;
use crate::lock::read_lock;
use crate::reply;
use crate::router::Servers;
use crate::script::{self, By};
use crate::wire::{Cmd, Value};

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
        let command = |index: usize, by| {
            let mut cmd = script::LOCK_READ.command(by, 1);
            cmd.parts(self.keyspace.companion_parts(&keys[index], Companion::Lock));
            cmd
        };
        let answers = self.router.run_each(keys.len(), Access::Read, command).await?;
        let mut items = Vec::with_capacity(keys.len());
        for (key, answer) in keys.iter().zip(answers) {
            // Gone in the meantime: not a lock any more.
            let Some((record, now_us)) = read_lock(key, settled(answer?)?)? else { continue };
            items.extend(record.state(key, now_us));
        }
        Ok(Page { items, next })
    }

    /// Steps of SCAN until the page is full, the end is reached, or enough was visited.
    async fn walk(&self, scan: &Scan, pattern: &str) -> Result<(Vec<String>, Option<Cursor>)> {
        let steps = Steps { pattern, page_size: scan.page_size as usize, texts: Vec::new(), left: STEPS_MAX };
        match self.router.servers() {
            Servers::One(links) => {
                let from = scan.cursor.as_ref().map_or(Ok(0), parse_cursor)?;
                let deadline = self.router.deadline();
                let mut steps = steps;
                let at = steps.walk(from, links, deadline).await?;
                let next = if at == 0 { None } else { Some(Cursor::new(at.to_string())?) };
                Ok((steps.texts, next))
            }
            Servers::Cluster(cluster) => self.walk_cluster(cluster, scan.cursor.as_ref(), steps).await,
        }
    }

    async fn walk_cluster(
        &self,
        cluster: &Cluster,
        cursor: Option<&Cursor>,
        mut steps: Steps<'_>,
    ) -> Result<(Vec<String>, Option<Cursor>)> {
        let deadline = self.router.deadline();
        let mut place = match cursor {
            Some(cursor) => Place::parse(cursor)?,
            None => Place { layout: cluster.layout(deadline).await?, shard: String::new(), cursor: 0 },
        };
        let shards = cluster.shards(deadline).await?;
        while !steps.is_over() {
            // The one that the cursor names, or that has come into its place.
            let Some(shard) = shards.iter().find(|shard| shard.id >= place.shard) else {
                let now = cluster.layout(deadline).await?;
                if now.is_some() && now == place.layout {
                    return Ok((steps.texts, None));
                }
                place = Place { layout: now, shard: String::new(), cursor: 0 };
                break;
            };
            let from = if shard.id == place.shard { place.cursor } else { 0 };
            let node = cluster.node(&shard.primary);
            let at = steps.walk(from, &node.links, deadline).await?;
            place.cursor = at;
            // Behind this one: no id has this character.
            place.shard = if at == 0 { format!("{}~", shard.id) } else { shard.id.clone() };
        }
        Ok((steps.texts, Some(Cursor::new(place.to_string())?)))
    }

    async fn with_entries(&self, keys: Vec<StateKey>) -> Result<Vec<ScanItem>> {
        let command = |index: usize, _: By| {
            let mut cmd = Cmd::new("GET");
            cmd.parts(self.keyspace.text_parts(&keys[index]));
            cmd
        };
        let answers = self.router.run_each(keys.len(), Access::Read, command).await?;
        let mut items = Vec::with_capacity(keys.len());
        for (key, answer) in keys.iter().zip(answers) {
            if let Some(entry) = reply::entry_or_nil(key, settled(answer?)?)? {
                items.push(ScanItem { key: key.clone(), entry: Some(entry) });
            }
        }
        Ok(items)
    }
}

/// The steps of one page, over one server or several.
struct Steps<'a> {
    pattern: &'a str,
    page_size: usize,
    texts: Vec<String>,
    left: u32,
}

impl Steps<'_> {
    fn is_over(&self) -> bool {
        self.left == 0 || self.texts.len() >= self.page_size
    }

    /// Walks one server from this place of it on; returns the place reached, 0 at the end.
    async fn walk(&mut self, from: u64, links: &Links, deadline: Instant) -> Result<u64> {
        let mut cursor = from;
        let mut count = STEP_KEYS_MAX.min(u32::try_from(self.page_size).unwrap_or(STEP_KEYS_MAX));
        while !self.is_over() {
            let mut cmd = Cmd::new("SCAN");
            cmd.number(cursor).arg("MATCH").arg(self.pattern).arg("COUNT").number(count).arg("TYPE").arg("string");
            let mut fields = reply::array(settled(links.send(deadline, &cmd, Access::Read).await?)?)?;
            let next = reply::text(reply::next(&mut fields)?)?;
            cursor = next.parse().map_err(|_| crate::error::unexpected(&Value::SimpleString(next)))?;
            for text in reply::array(reply::next(&mut fields)?)? {
                // A name that is not UTF-8 is none of ours.
                self.texts.extend(reply::bytes_or_nil(text)?.and_then(|bytes| String::from_utf8(bytes).ok()));
            }
            self.left -= 1;
            if cursor == 0 {
                break;
            }
            // Ours are rare among all keys: larger steps.
            count = (count * 4).min(STEP_KEYS_MAX);
        }
        Ok(cursor)
    }
}

/// Where a walk over a Cluster has got to: `<layout>.<shard>.<cursor>`.
#[derive(Debug, PartialEq)]
struct Place {
    /// Who had which slots when the walk began; `None` when that was not settled.
    layout: Option<u64>,
    /// The id of the primary, or something behind it; those before it were walked.
    shard: String,
    /// The place in it.
    cursor: u64,
}

impl Place {
    fn parse(cursor: &Cursor) -> Result<Self> {
        let place = || {
            let (layout, rest) = cursor.as_str().split_once('.')?;
            let (shard, cursor) = rest.rsplit_once('.')?;
            let layout = if layout == "-" { None } else { Some(u64::from_str_radix(layout, 16).ok()?) };
            Some(Self { layout, shard: shard.to_owned(), cursor: cursor.parse().ok()? })
        };
        place().ok_or_else(foreign_cursor)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layout {
            Some(layout) => write!(f, "{layout:x}")?,
            None => f.write_str("-")?,
        }
        write!(f, ".{}.{}", self.shard, self.cursor)
    }
}

/// A lock record that does not parse.
pub(crate) fn corrupt_lock(key: &StateKey) -> Error {
    Error::corrupt(key, "the lock record does not parse: something else writes under this prefix")
}

fn parse_cursor(cursor: &Cursor) -> Result<u64> {
    let text = cursor.as_str();
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(foreign_cursor)
}

fn foreign_cursor() -> Error {
    Error::invalid("the cursor is not one of this backend: start again without a cursor")
}

#[cfg(test)]
mod tests {
    use acteon_state_core::Cursor;

    use super::{Place, parse_cursor};

    #[test]
    fn a_place_in_a_cluster_survives_its_text() {
        for place in [
            Place { layout: None, shard: String::new(), cursor: 0 },
            Place { layout: Some(u64::MAX), shard: "07c37dfeb235213a872192d90877d0cd55635b91~".to_owned(), cursor: 7 },
            Place { layout: Some(1), shard: "10.0.0.1:6379".to_owned(), cursor: u64::MAX },
        ] {
            assert_eq!(Place::parse(&Cursor::new(place.to_string()).unwrap()).unwrap(), place);
        }
        assert!(Place::parse(&Cursor::new("12").unwrap()).is_err());
    }

    #[test]
    fn cursors_are_numbers() {
        assert_eq!(parse_cursor(&Cursor::new("18446744073709551615").unwrap()).unwrap(), u64::MAX);
        for bad in ["+1", "-1", "1a", " 1", "18446744073709551616", "*"] {
            assert!(parse_cursor(&Cursor::new(bad).unwrap()).is_err(), "{bad}");
        }
    }
}
