//! Strings and counters.

use super::{Answer, NOT_AN_INTEGER, Run, SYNTAX, Value, integer};
use crate::wire::Reply;

impl Run<'_> {
    pub(super) fn strings(&mut self) -> Answer<Option<Reply>> {
        let reply = match *self.args {
            ["GET", key] => self.get(key)?,
            ["SET", key, value, ref options @ ..] => self.set_text(key, value, options)?,
            ["SETNX", key, value] => {
                let is_new = !self.exists(key);
                if is_new {
                    self.put(key, Value::Text(value.to_owned()), None);
                }
                Reply::Int(is_new.into())
            }
            ["GETSET", key, value] => {
                let before = self.get(key)?;
                self.put(key, Value::Text(value.to_owned()), None);
                before
            }
            ["GETDEL", key] => {
                let before = self.get(key)?;
                self.remove(key);
                before
            }
            ["GETEX", key, ref options @ ..] => self.get_and_expire(key, options)?,
            ["APPEND", key, tail] => {
                self.text(key)?;
                self.begin(key, Value::Text(String::new()));
                let text = self.text(key)?.expect("it is there");
                text.push_str(tail);
                let len = text.len();
                self.changed(key);
                Reply::len(len)
            }
            ["STRLEN", key] => Reply::len(self.text(key)?.map_or(0, |text| text.len())),
            ["INCR", key] => self.add(key, 1)?,
            ["DECR", key] => self.add(key, -1)?,
            ["INCRBY", key, by] => self.add(key, integer(by)?)?,
            ["MSET", ref pairs @ ..] => {
                self.set_all(pairs);
                Reply::ok()
            }
            ["MSETNX", ref pairs @ ..] => {
                let is_free = pairs.chunks(2).all(|pair| !self.exists(pair[0]));
                if is_free {
                    self.set_all(pairs);
                }
                Reply::Int(is_free.into())
            }
            ["MGET", ref keys @ ..] => {
                Reply::Array(keys.iter().map(|key| self.get(key).unwrap_or(Reply::Null)).collect())
            }
            _ => return Ok(None),
        };
        Ok(Some(reply))
    }

    fn get(&mut self, key: &str) -> Answer<Reply> {
        Ok(self.text(key)?.map_or(Reply::Null, |text| Reply::bulk(text)))
    }

    fn set_text(&mut self, key: &str, value: &str, options: &[&str]) -> Answer<Reply> {
        let now_ms = self.data.now_ms;
        let mut expires_at_ms = None;
        let (mut must_exist, mut gets) = (None, false);
        let mut words = options.iter();
        while let Some(word) = words.next() {
            match *word {
                "NX" => must_exist = Some(false),
                "XX" => must_exist = Some(true),
                "GET" => gets = true,
                "KEEPTTL" => expires_at_ms = self.entry(key).and_then(|entry| entry.expires_at_ms),
                unit => expires_at_ms = Some(deadline_ms(unit, words.next(), now_ms, "set")?),
            }
        }
        let before = if gets { Some(self.get(key)?) } else { None };
        let is_met = must_exist.is_none_or(|must_exist| must_exist == self.exists(key));
        if is_met {
            self.put(key, Value::Text(value.to_owned()), expires_at_ms);
        }
        Ok(before.unwrap_or(if is_met { Reply::ok() } else { Reply::Null }))
    }

    fn get_and_expire(&mut self, key: &str, options: &[&str]) -> Answer<Reply> {
        let now_ms = self.data.now_ms;
        let before = self.get(key)?;
        let Some(entry) = self.entry(key) else { return Ok(before) };
        match options {
            [] => return Ok(before),
            ["PERSIST"] => {
                if entry.expires_at_ms.take().is_some() {
                    self.changed(key);
                }
            }
            [unit, time] => {
                entry.expires_at_ms = Some(deadline_ms(unit, Some(time), now_ms, "getex")?);
                self.changed(key);
            }
            _ => return Err(SYNTAX.to_owned()),
        }
        Ok(before)
    }

    fn add(&mut self, key: &str, by: i64) -> Answer<Reply> {
        let before = match self.text(key)? {
            Some(text) => integer(text)?,
            None => 0,
        };
        let sum = before.checked_add(by).ok_or("ERR increment or decrement would overflow")?;
        self.begin(key, Value::Text(String::new()));
        *self.text(key)?.ok_or(NOT_AN_INTEGER)? = sum.to_string();
        self.changed(key);
        Ok(Reply::Int(sum))
    }

    fn set_all(&mut self, pairs: &[&str]) {
        pairs.chunks(2).for_each(|pair| self.put(pair[0], Value::Text(pair[1].to_owned()), None));
    }
}

fn deadline_ms(unit: &str, time: Option<&&str>, now_ms: u64, command: &str) -> Answer<u64> {
    let time = integer(time.ok_or(SYNTAX)?)?;
    let time = u64::try_from(time).ok().filter(|time| *time > 0);
    let time = time.ok_or_else(|| format!("ERR invalid expire time in '{command}' command"))?;
    match unit {
        "EX" => Ok(now_ms + time * 1_000),
        "PX" => Ok(now_ms + time),
        "PXAT" => Ok(time),
        _ => Err(SYNTAX.to_owned()),
    }
}
