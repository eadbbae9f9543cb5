//! Sets.

use std::collections::BTreeSet;

use super::{Answer, Run, Value};
use crate::wire::Reply;

impl Run<'_> {
    pub(super) fn sets(&mut self) -> Answer<Option<Reply>> {
        let reply = match *self.args {
            ["SADD", key, ref members @ ..] => {
                self.set(key)?;
                self.begin(key, Value::Set(BTreeSet::new()));
                let set = self.set(key)?.expect("it is there");
                let added = members.iter().filter(|member| set.insert((**member).to_owned())).count();
                if added > 0 {
                    self.changed(key);
                }
                Reply::len(added)
            }
            ["SREM", key, ref members @ ..] => {
                let Some(set) = self.set(key)? else { return Ok(Some(Reply::Int(0))) };
                let removed = members.iter().filter(|member| set.remove(**member)).count();
                if removed > 0 {
                    self.changed(key);
                }
                Reply::len(removed)
            }
            ["SMOVE", from, to, member] => self.move_member(from, to, member)?,
            ["SISMEMBER", key, member] => Reply::Int(self.members(key)?.contains(member).into()),
            ["SCARD", key] => Reply::len(self.members(key)?.len()),
            ["SMEMBERS", key] => Reply::Set(self.members(key)?.into_iter().map(Reply::Bulk).collect()),
            ["SRANDMEMBER", key] => {
                let members: Vec<_> = self.members(key)?.into_iter().map(Reply::Bulk).collect();
                if members.is_empty() { Reply::Null } else { Reply::OneOf(members) }
            }
            [name @ ("SINTER" | "SUNION" | "SDIFF"), ref keys @ ..] => {
                Reply::Set(self.combine(name, keys)?.into_iter().map(Reply::Bulk).collect())
            }
            [name @ ("SINTERSTORE" | "SUNIONSTORE" | "SDIFFSTORE"), to, ref keys @ ..] => {
                let members = self.combine(&name[..name.len() - "STORE".len()], keys)?;
                let len = members.len();
                self.store(to, Value::Set(members));
                Reply::len(len)
            }
            _ => return Ok(None),
        };
        Ok(Some(reply))
    }

    fn members(&mut self, key: &str) -> Answer<BTreeSet<String>> {
        Ok(self.set(key)?.cloned().unwrap_or_default())
    }

    fn combine(&mut self, name: &str, keys: &[&str]) -> Answer<BTreeSet<String>> {
        let mut sets = keys.iter().map(|key| self.members(key)).collect::<Answer<Vec<_>>>()?.into_iter();
        let first = sets.next().unwrap_or_default();
        Ok(sets.fold(first, |all, next| match name {
            "SINTER" => &all & &next,
            "SUNION" => &all | &next,
            _ => &all - &next,
        }))
    }

    fn move_member(&mut self, from: &str, to: &str, member: &str) -> Answer<Reply> {
        // Without a source, the destination is not looked at.
        if self.set(from)?.is_none() {
            return Ok(Reply::Int(0));
        }
        self.set(to)?;
        if !self.members(from)?.contains(member) {
            return Ok(Reply::Int(0));
        }
        if from != to {
            self.set(from)?.expect("it is there").remove(member);
            self.changed(from);
            self.begin(to, Value::Set(BTreeSet::new()));
            if self.set(to)?.expect("it is there").insert(member.to_owned()) {
                self.changed(to);
            }
        }
        Ok(Reply::Int(1))
    }
}
