//! Lists, and waiting for one.

use std::collections::VecDeque;

use super::{Answer, Kind, Outcome, Run, SYNTAX, Value, integer, milliseconds, positions};
use crate::wire::Reply;

impl<'r> Run<'r> {
    pub(super) fn lists(&mut self) -> Answer<Option<Reply>> {
        let reply = match *self.args {
            ["LPUSH", key, ref elements @ ..] => self.push(key, "LEFT", elements)?,
            ["RPUSH", key, ref elements @ ..] => self.push(key, "RIGHT", elements)?,
            ["LPUSHX", key, element] => self.push_if_there(key, "LEFT", element)?,
            ["RPUSHX", key, element] => self.push_if_there(key, "RIGHT", element)?,
            ["LPOP", key] => self.pop_one(key, "LEFT")?.unwrap_or(Reply::Null),
            ["RPOP", key] => self.pop_one(key, "RIGHT")?.unwrap_or(Reply::Null),
            ["LPOP", key, count] => self.pop_many(key, "LEFT", integer(count)?)?.unwrap_or(Reply::NullArray),
            ["RPOP", key, count] => self.pop_many(key, "RIGHT", integer(count)?)?.unwrap_or(Reply::NullArray),
            ["LLEN", key] => Reply::len(self.list(key)?.map_or(0, |list| list.len())),
            ["LINDEX", key, index] => {
                let index = integer(index)?;
                let list = self.list(key)?.cloned().unwrap_or_default();
                at(index, list.len()).map_or(Reply::Null, |at| Reply::bulk(&list[at]))
            }
            ["LRANGE", key, start, stop] => {
                let list = self.list(key)?.cloned().unwrap_or_default();
                let range = positions(integer(start)?, integer(stop)?, list.len());
                Reply::Array(list.range(range).map(|element| Reply::bulk(element)).collect())
            }
            ["LSET", key, index, element] => {
                let list = self.list(key)?.ok_or("ERR no such key")?;
                let at = at(integer(index)?, list.len()).ok_or("ERR index out of range")?;
                list[at] = element.to_owned();
                self.changed(key);
                Reply::ok()
            }
            ["LINSERT", key, place, pivot, element] => self.insert(key, place, pivot, element)?,
            ["LREM", key, count, element] => self.remove_elements(key, integer(count)?, element)?,
            ["LTRIM", key, start, stop] => {
                let (start, stop) = (integer(start)?, integer(stop)?);
                if let Some(list) = self.list(key)? {
                    *list = list.range(positions(start, stop, list.len())).cloned().collect();
                    self.changed(key);
                }
                Reply::ok()
            }
            ["LMOVE", from, to, from_end, to_end] => self.move_one(from, to, from_end, to_end)?.unwrap_or(Reply::Null),
            ["RPOPLPUSH", from, to] => self.move_one(from, to, "RIGHT", "LEFT")?.unwrap_or(Reply::Null),
            ["LMPOP", ref words @ ..] => self.pop_from_first(words)?.1.unwrap_or(Reply::NullArray),
            _ => return Ok(None),
        };
        Ok(Some(reply))
    }

    pub(super) fn lists_that_wait(&mut self) -> Answer<Option<Outcome>> {
        let (keys, timeout, denied, reply): (&[&str], _, _, _) = match *self.args {
            [name @ ("BLPOP" | "BRPOP"), ref keys @ .., timeout] => {
                let end = if name == "BLPOP" { "LEFT" } else { "RIGHT" };
                (keys, timeout, Reply::NullArray, self.pop_with_key(keys, end)?)
            }
            ["BLMOVE", from, to, from_end, to_end, timeout] => {
                (&self.args[1..2], timeout, Reply::Null, self.move_one(from, to, from_end, to_end)?)
            }
            ["BRPOPLPUSH", from, to, timeout] => {
                (&self.args[1..2], timeout, Reply::Null, self.move_one(from, to, "RIGHT", "LEFT")?)
            }
            ["BLMPOP", timeout, ref words @ ..] => {
                let (keys, reply) = self.pop_from_first(words)?;
                (keys, timeout, Reply::NullArray, reply)
            }
            _ => return Ok(None),
        };
        Ok(Some(match reply {
            Some(reply) => Outcome::Reply(reply),
            None => Outcome::Wait {
                keys: keys.iter().map(|key| (*key).to_owned()).collect(),
                kind: Kind::List,
                timeout_ms: milliseconds(timeout),
                denied,
            },
        }))
    }

    fn push(&mut self, key: &str, end: &str, elements: &[&str]) -> Answer<Reply> {
        self.list(key)?;
        self.begin(key, Value::List(VecDeque::new()));
        let list = self.list(key)?.expect("it is there");
        elements.iter().for_each(|element| push_to(list, end, (*element).to_owned()));
        let len = list.len();
        self.changed(key);
        Ok(Reply::len(len))
    }

    fn push_if_there(&mut self, key: &str, end: &str, element: &str) -> Answer<Reply> {
        if self.list(key)?.is_some() { self.push(key, end, &[element]) } else { Ok(Reply::Int(0)) }
    }

    fn pop_one(&mut self, key: &str, end: &str) -> Answer<Option<Reply>> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        let element = pop_from(list, end);
        self.changed(key);
        Ok(element.map(Reply::Bulk))
    }

    fn pop_many(&mut self, key: &str, end: &str, count: i64) -> Answer<Option<Reply>> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        let elements: Vec<_> = (0..count).map_while(|_| pop_from(list, end)).map(Reply::Bulk).collect();
        if !elements.is_empty() {
            self.changed(key);
        }
        Ok(Some(Reply::Array(elements)))
    }

    fn pop_with_key(&mut self, keys: &'r [&'r str], end: &str) -> Answer<Option<Reply>> {
        for key in self.candidates(keys) {
            if let Some(element) = self.pop_one(key, end)? {
                return Ok(Some(Reply::Array(vec![Reply::bulk(key), element])));
            }
        }
        Ok(None)
    }

    /// `count key .. LEFT | RIGHT COUNT count`
    fn pop_from_first(&mut self, words: &'r [&'r str]) -> Answer<(&'r [&'r str], Option<Reply>)> {
        let count = integer(words[0])? as usize;
        let (keys, words) = words[1..].split_at(count);
        let [end, "COUNT", count] = words else { return Err(SYNTAX.to_owned()) };
        for key in self.candidates(keys) {
            if let Some(elements) = self.pop_many(key, end, integer(count)?)? {
                return Ok((keys, Some(Reply::Array(vec![Reply::bulk(key), elements]))));
            }
        }
        Ok((keys, None))
    }

    /// Puts the element at its destination before it leaves its source.
    fn move_one(&mut self, from: &str, to: &str, from_end: &str, to_end: &str) -> Answer<Option<Reply>> {
        let Some(list) = self.list(from)? else { return Ok(None) };
        if from == to {
            let element = pop_from(list, from_end).expect("no list is empty");
            push_to(list, to_end, element.clone());
            self.changed(to);
            return Ok(Some(Reply::Bulk(element)));
        }
        let element = if from_end == "LEFT" { list.front() } else { list.back() };
        let element = element.expect("no list is empty").clone();
        self.push(to, to_end, &[&element])?;
        self.pop_one(from, from_end)?;
        Ok(Some(Reply::Bulk(element)))
    }

    fn insert(&mut self, key: &str, place: &str, pivot: &str, element: &str) -> Answer<Reply> {
        let Some(list) = self.list(key)? else { return Ok(Reply::Int(0)) };
        let Some(at) = list.iter().position(|other| other == pivot) else { return Ok(Reply::Int(-1)) };
        list.insert(at + usize::from(place == "AFTER"), element.to_owned());
        let len = list.len();
        self.changed(key);
        Ok(Reply::len(len))
    }

    fn remove_elements(&mut self, key: &str, count: i64, element: &str) -> Answer<Reply> {
        let Some(list) = self.list(key)? else { return Ok(Reply::Int(0)) };
        let mut found: Vec<usize> = (0..list.len()).filter(|at| list[*at] == element).collect();
        if count < 0 {
            found.reverse();
        }
        if count != 0 {
            found.truncate(count.unsigned_abs() as usize);
        }
        found.sort_unstable();
        found.iter().rev().for_each(|at| {
            list.remove(*at);
        });
        if !found.is_empty() {
            self.changed(key);
        }
        Ok(Reply::len(found.len()))
    }
}

fn push_to(list: &mut VecDeque<String>, end: &str, element: String) {
    if end == "LEFT" { list.push_front(element) } else { list.push_back(element) }
}

fn pop_from(list: &mut VecDeque<String>, end: &str) -> Option<String> {
    if end == "LEFT" { list.pop_front() } else { list.pop_back() }
}

fn at(index: i64, len: usize) -> Option<usize> {
    let len = i64::try_from(len).expect("a length");
    let at = if index < 0 { index + len } else { index };
    (0..len).contains(&at).then_some(at as usize)
}
