//! Hashes.

use std::collections::BTreeMap;

use super::{Answer, Run, Value, integer};
use crate::wire::Reply;

impl Run<'_> {
    pub(super) fn hashes(&mut self) -> Answer<Option<Reply>> {
        let reply = match *self.args {
            ["HSET", key, ref pairs @ ..] => {
                self.hash(key)?;
                self.begin(key, Value::Hash(BTreeMap::new()));
                let fields = self.hash(key)?.expect("it is there");
                let is_new = |pair: &&[&str]| fields.insert(pair[0].to_owned(), pair[1].to_owned()).is_none();
                let added = pairs.chunks(2).filter(is_new).count();
                self.changed(key);
                Reply::len(added)
            }
            ["HSETNX", key, field, value] => {
                let is_new = !self.fields(key)?.contains_key(field);
                if is_new {
                    self.begin(key, Value::Hash(BTreeMap::new()));
                    self.hash(key)?.expect("it is there").insert(field.to_owned(), value.to_owned());
                    self.changed(key);
                }
                Reply::Int(is_new.into())
            }
            ["HGET", key, field] => self.fields(key)?.remove(field).map_or(Reply::Null, Reply::Bulk),
            ["HEXISTS", key, field] => Reply::Int(self.fields(key)?.contains_key(field).into()),
            ["HLEN", key] => Reply::len(self.fields(key)?.len()),
            ["HGETALL", key] => {
                let fields = self.fields(key)?.into_iter();
                Reply::Map(fields.map(|(field, value)| (Reply::Bulk(field), Reply::Bulk(value))).collect())
            }
            ["HDEL", key, ref fields @ ..] => {
                let Some(hash) = self.hash(key)? else { return Ok(Some(Reply::Int(0))) };
                let removed = fields.iter().filter(|field| hash.remove(**field).is_some()).count();
                if removed > 0 {
                    self.changed(key);
                }
                Reply::len(removed)
            }
            ["HINCRBY", key, field, by] => {
                let by = integer(by)?;
                let before = match self.fields(key)?.get(field) {
                    Some(text) => integer(text).map_err(|_| "ERR hash value is not an integer")?,
                    None => 0,
                };
                let sum = before.checked_add(by).ok_or("ERR increment or decrement would overflow")?;
                self.begin(key, Value::Hash(BTreeMap::new()));
                self.hash(key)?.expect("it is there").insert(field.to_owned(), sum.to_string());
                self.changed(key);
                Reply::Int(sum)
            }
            _ => return Ok(None),
        };
        Ok(Some(reply))
    }

    fn fields(&mut self, key: &str) -> Answer<BTreeMap<String, String>> {
        Ok(self.hash(key)?.cloned().unwrap_or_default())
    }
}
