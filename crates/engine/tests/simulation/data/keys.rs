//! Keys of any kind, and their times to live.

use super::{Answer, DATABASES, Run, integer};
use crate::wire::Reply;

const NO_SUCH_KEY: &str = "ERR no such key";

impl Run<'_> {
    pub(super) fn keys(&mut self) -> Answer<Option<Reply>> {
        let reply = match *self.args {
            ["DEL" | "UNLINK", ref keys @ ..] => {
                Reply::len(keys.iter().filter(|key| self.remove(key).is_some()).count())
            }
            ["EXISTS", ref keys @ ..] => Reply::len(keys.iter().filter(|key| self.exists(key)).count()),
            ["TYPE", key] => Reply::Simple(self.data.kind(self.database, key).map_or("none", super::Kind::name)),
            ["KEYS", "*"] => {
                Reply::Unordered(self.data.database(self.database).keys().map(|key| Reply::bulk(key)).collect())
            }
            ["RANDOMKEY"] => {
                let keys: Vec<_> = self.data.database(self.database).keys().map(|key| Reply::bulk(key)).collect();
                if keys.is_empty() { Reply::Null } else { Reply::OneOf(keys) }
            }
            ["EXPIRE", key, time, ref conditions @ ..] => self.expire(key, integer(time)? * 1_000, conditions),
            ["PEXPIRE", key, time, ref conditions @ ..] => self.expire(key, integer(time)?, conditions),
            ["PERSIST", key] => {
                let had_one = self.entry(key).is_some_and(|entry| entry.expires_at_ms.take().is_some());
                if had_one {
                    self.changed(key);
                }
                Reply::Int(had_one.into())
            }
            ["TTL", key] => self.deadline(key, |at_ms, now_ms| (at_ms - now_ms + 500) / 1_000),
            ["PTTL", key] => self.deadline(key, |at_ms, now_ms| at_ms - now_ms),
            ["PEXPIRETIME", key] => self.deadline(key, |at_ms, _| at_ms),
            ["RENAME", from, to] => {
                if !self.exists(from) {
                    return Err(NO_SUCH_KEY.to_owned());
                }
                self.rename(from, to);
                Reply::ok()
            }
            ["RENAMENX", from, to] => {
                if !self.exists(from) {
                    return Err(NO_SUCH_KEY.to_owned());
                }
                let is_free = !self.exists(to);
                if is_free {
                    self.rename(from, to);
                }
                Reply::Int(is_free.into())
            }
            ["COPY", from, to, ref options @ ..] => {
                let (is_free, found) = (options == ["REPLACE"] || !self.exists(to), self.entry(from).cloned());
                let is_done = is_free && found.is_some();
                if let Some(entry) = found.filter(|_| is_free) {
                    self.put(to, entry.value, entry.expires_at_ms);
                }
                Reply::Int(is_done.into())
            }
            ["FLUSHDB"] => {
                self.data.clear(self.database);
                Reply::ok()
            }
            ["FLUSHALL"] => {
                (0..DATABASES).for_each(|database| self.data.clear(database));
                Reply::ok()
            }
            _ => return Ok(None),
        };
        Ok(Some(reply))
    }

    fn rename(&mut self, from: &str, to: &str) {
        if from != to
            && let Some(entry) = self.remove(from)
        {
            self.put(to, entry.value, entry.expires_at_ms);
        }
    }

    /// A deadline that is not later than now removes the key.
    fn expire(&mut self, key: &str, in_ms: i64, conditions: &[&str]) -> Reply {
        let now_ms = self.data.now_ms;
        let at_ms = now_ms.saturating_add_signed(in_ms);
        let Some(entry) = self.entry(key) else { return Reply::Int(0) };
        let before_ms = entry.expires_at_ms;
        let is_met = conditions.iter().all(|condition| match (*condition, before_ms) {
            ("NX", before_ms) => before_ms.is_none(),
            ("XX", before_ms) => before_ms.is_some(),
            ("GT", before_ms) => before_ms.is_some_and(|before_ms| at_ms > before_ms),
            ("LT", before_ms) => before_ms.is_none_or(|before_ms| at_ms < before_ms),
            (other, _) => panic!("the plan has written {other}"),
        });
        if !is_met {
            return Reply::Int(0);
        }
        entry.expires_at_ms = Some(at_ms);
        if at_ms > now_ms {
            self.changed(key);
        } else {
            self.remove(key);
        }
        Reply::Int(1)
    }

    fn deadline(&mut self, key: &str, show: impl FnOnce(u64, u64) -> u64) -> Reply {
        let now_ms = self.data.now_ms;
        match self.entry(key).map(|entry| entry.expires_at_ms) {
            None => Reply::Int(-2),
            Some(None) => Reply::Int(-1),
            Some(Some(at_ms)) => Reply::Int(i64::try_from(show(at_ms, now_ms)).expect("a time")),
        }
    }
}
