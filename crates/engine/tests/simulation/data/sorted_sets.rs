//! Sorted sets, and waiting for one.

use std::collections::BTreeMap;

use super::{Answer, Kind, Outcome, Run, SYNTAX, Value, integer, milliseconds, positions};
use crate::wire::Reply;

impl<'r> Run<'r> {
    pub(super) fn sorted_sets(&mut self) -> Answer<Option<Reply>> {
        let reply = match *self.args {
            ["ZADD", key, ref words @ ..] => self.add_members(key, words)?,
            ["ZINCRBY", key, by, member] => self.add_members(key, &["INCR", by, member])?,
            ["ZREM", key, ref members @ ..] => {
                let members: Vec<_> = members.iter().map(|member| (*member).to_owned()).collect();
                self.remove_members(key, |member, _| members.iter().any(|other| other == member))?
            }
            ["ZREMRANGEBYSCORE", key, min, max] => {
                let scores = integer(min)?..=integer(max)?;
                self.remove_members(key, |_, score| scores.contains(&score))?
            }
            ["ZSCORE", key, member] => {
                self.sorted(key)?.and_then(|members| members.get(member)).map_or(Reply::Null, |at| Reply::Score(*at))
            }
            ["ZCARD", key] => Reply::len(self.sorted(key)?.map_or(0, |members| members.len())),
            ["ZRANK", key, member] => {
                let rank = self.in_order(key)?.iter().position(|(other, _)| other == member);
                rank.map_or(Reply::Null, Reply::len)
            }
            ["ZRANGE", key, start, stop, "WITHSCORES"] => {
                let members = self.in_order(key)?;
                let range = positions(integer(start)?, integer(stop)?, members.len());
                Reply::Scored(members[range].to_vec())
            }
            ["ZPOPMIN", key] => self.pop_flat(key, "MIN")?,
            ["ZPOPMAX", key] => self.pop_flat(key, "MAX")?,
            ["ZPOPMIN", key, count] => {
                Reply::Scored(self.pop_members(key, "MIN", integer(count)?)?.unwrap_or_default())
            }
            ["ZPOPMAX", key, count] => {
                Reply::Scored(self.pop_members(key, "MAX", integer(count)?)?.unwrap_or_default())
            }
            ["ZMPOP", ref words @ ..] => self.pop_from_first_sorted(words)?.1.unwrap_or(Reply::NullArray),
            ["ZUNIONSTORE", to, _, ref keys @ ..] => {
                let mut union = BTreeMap::<String, i64>::new();
                for key in keys {
                    for (member, score) in self.scored(key)? {
                        *union.entry(member).or_default() += score;
                    }
                }
                let len = union.len();
                self.store(to, Value::Sorted(union));
                Reply::len(len)
            }
            _ => return Ok(None),
        };
        Ok(Some(reply))
    }

    pub(super) fn sorted_sets_that_wait(&mut self) -> Answer<Option<Outcome>> {
        let (keys, timeout, reply): (&[&str], _, _) = match *self.args {
            [name @ ("BZPOPMIN" | "BZPOPMAX"), ref keys @ .., timeout] => {
                let end = if name == "BZPOPMIN" { "MIN" } else { "MAX" };
                (keys, timeout, self.pop_sorted_with_key(keys, end)?)
            }
            ["BZMPOP", timeout, ref words @ ..] => {
                let (keys, reply) = self.pop_from_first_sorted(words)?;
                (keys, timeout, reply)
            }
            _ => return Ok(None),
        };
        Ok(Some(match reply {
            Some(reply) => Outcome::Reply(reply),
            None => Outcome::Wait {
                keys: keys.iter().map(|key| (*key).to_owned()).collect(),
                kind: Kind::Sorted,
                timeout_ms: milliseconds(timeout),
                denied: Reply::NullArray,
            },
        }))
    }

    /// Members of a plain set count one each.
    fn scored(&mut self, key: &str) -> Answer<Vec<(String, i64)>> {
        match self.set(key) {
            Ok(Some(set)) => Ok(set.iter().map(|member| (member.clone(), 1)).collect()),
            _ => self.in_order(key),
        }
    }

    /// By score, and by name where scores are equal.
    fn in_order(&mut self, key: &str) -> Answer<Vec<(String, i64)>> {
        let mut members: Vec<_> = self.sorted(key)?.cloned().unwrap_or_default().into_iter().collect();
        members.sort_by_key(|(_, score)| *score);
        Ok(members)
    }

    /// `[NX | XX] [GT | LT] [CH] [INCR] score member ..`
    fn add_members(&mut self, key: &str, words: &[&str]) -> Answer<Reply> {
        let pairs_at = words.iter().position(|word| integer(word).is_ok()).ok_or(SYNTAX)?;
        let (options, pairs) = words.split_at(pairs_at);
        let has = |option: &str| options.contains(&option);
        if self.sorted(key)?.is_none() && has("XX") {
            return Ok(if has("INCR") { Reply::Null } else { Reply::Int(0) });
        }
        self.begin(key, Value::Sorted(BTreeMap::new()));
        let members = self.sorted(key)?.expect("it is there");
        let (mut added, mut updated, mut score_after) = (0, 0, None);
        for pair in pairs.chunks(2) {
            let (mut score, before) = (integer(pair[0])?, members.get(pair[1]).copied());
            match before {
                None if has("XX") => continue,
                None => added += 1,
                Some(before) => {
                    score += if has("INCR") { before } else { 0 };
                    if has("NX") || has("GT") && score <= before || has("LT") && score >= before {
                        continue;
                    }
                    updated += usize::from(score != before);
                }
            }
            members.insert(pair[1].to_owned(), score);
            score_after = Some(score);
        }
        if added + updated > 0 {
            self.changed(key);
        }
        Ok(match score_after {
            _ if !has("INCR") => Reply::len(if has("CH") { added + updated } else { added }),
            Some(score) => Reply::Score(score),
            None => Reply::Null,
        })
    }

    fn remove_members(&mut self, key: &str, is_chosen: impl Fn(&str, i64) -> bool) -> Answer<Reply> {
        let Some(members) = self.sorted(key)? else { return Ok(Reply::Int(0)) };
        let len = members.len();
        members.retain(|member, score| !is_chosen(member, *score));
        let removed = len - members.len();
        if removed > 0 {
            self.changed(key);
        }
        Ok(Reply::len(removed))
    }

    /// `None` without a sorted set.
    fn pop_members(&mut self, key: &str, end: &str, count: i64) -> Answer<Option<Vec<(String, i64)>>> {
        if self.sorted(key)?.is_none() {
            return Ok(None);
        }
        let mut members = self.in_order(key)?;
        if end == "MAX" {
            members.reverse();
        }
        members.truncate(count as usize);
        let set = self.sorted(key)?.expect("it is there");
        members.iter().for_each(|(member, _)| {
            set.remove(member);
        });
        if !members.is_empty() {
            self.changed(key);
        }
        Ok(Some(members))
    }

    fn pop_flat(&mut self, key: &str, end: &str) -> Answer<Reply> {
        let popped = self.pop_members(key, end, 1)?.and_then(|mut members| members.pop());
        Ok(Reply::Array(popped.map_or(vec![], |(member, score)| vec![Reply::Bulk(member), Reply::Score(score)])))
    }

    fn pop_sorted_with_key(&mut self, keys: &'r [&'r str], end: &str) -> Answer<Option<Reply>> {
        for key in self.candidates(keys) {
            if let Some((member, score)) = self.pop_members(key, end, 1)?.and_then(|mut members| members.pop()) {
                return Ok(Some(Reply::Array(vec![Reply::bulk(key), Reply::Bulk(member), Reply::Score(score)])));
            }
        }
        Ok(None)
    }

    /// `count key .. MIN | MAX COUNT count`
    fn pop_from_first_sorted(&mut self, words: &'r [&'r str]) -> Answer<(&'r [&'r str], Option<Reply>)> {
        let count = integer(words[0])? as usize;
        let (keys, words) = words[1..].split_at(count);
        let [end, "COUNT", count] = words else { return Err(SYNTAX.to_owned()) };
        for key in self.candidates(keys) {
            if let Some(members) = self.pop_members(key, end, integer(count)?)? {
                let pair = |(member, score)| Reply::Array(vec![Reply::Bulk(member), Reply::Score(score)]);
                let members = Reply::Array(members.into_iter().map(pair).collect());
                return Ok((keys, Some(Reply::Array(vec![Reply::bulk(key), members]))));
            }
        }
        Ok((keys, None))
    }
}
