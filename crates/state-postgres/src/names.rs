//! Where a deployment's tables are: one schema and one prefix, written into every statement.
//!
//! Names are always quoted and qualified, so nothing depends on the `search_path` of the role, which an attacker or a
//! migration tool may have set. The parts come from the configuration and are confined to characters that need no escaping.

use std::sync::Arc;

use acteon_state_core::{Error, Result};

/// The most characters of a schema or a prefix: the longest name that we append to a prefix stays below PostgreSQL's limit of 63.
const PART_CHARS_MAX: usize = 32;

/// The schema and the prefix of one deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    schema: Arc<str>,
    prefix: Arc<str>,
}

impl Names {
    /// # Errors
    /// `Config` unless both are 1 to 32 characters out of `a-z 0-9 _`.
    pub(crate) fn new(schema: &str, prefix: &str) -> Result<Self> {
        for (option, part) in [("schema", schema), ("prefix", prefix)] {
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if part.is_empty() || part.len() > PART_CHARS_MAX || !part.chars().all(allowed) {
                let message =
                    format!("{option}: {part:?} is not allowed: use 1 to {PART_CHARS_MAX} characters out of a-z 0-9 _");
                return Err(Error::config(message));
            }
        }
        Ok(Self { schema: schema.into(), prefix: prefix.into() })
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The statement with its names filled in: `{t}entries` becomes `"public"."acteon_entries"`.
    pub(crate) fn sql(&self, template: &str) -> Arc<str> {
        let mut sql = String::with_capacity(template.len() * 2);
        let mut parts = template.split("{t}");
        sql.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let name_end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
            let (name, rest) = part.split_at(name_end);
            sql.push_str(&self.qualified(name));
            sql.push_str(rest);
        }
        sql.into()
    }

    /// The quoted and qualified name of one of our tables or functions.
    pub(crate) fn qualified(&self, name: &str) -> String {
        format!("\"{}\".\"{}{name}\"", self.schema, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn names_are_quoted_and_qualified_wherever_they_stand() {
        let names = Names::new("blue", "acteon_").unwrap();
        assert_eq!(
            &*names.sql("SELECT * FROM {t}get($1) JOIN {t}entries e ON e.id = {t}entries.id"),
            "SELECT * FROM \"blue\".\"acteon_get\"($1) JOIN \"blue\".\"acteon_entries\" e ON e.id = \"blue\".\"acteon_entries\".id"
        );
    }

    #[test]
    fn what_would_need_escaping_is_refused_by_name() {
        for (schema, prefix, option) in [
            ("pub\"lic", "a_", "schema"),
            ("", "a_", "schema"),
            ("public", "A_", "prefix"),
            ("public", "a;b", "prefix"),
        ] {
            let error = Names::new(schema, prefix).unwrap_err();
            assert!(error.message().starts_with(option), "{error}");
        }
        assert!(Names::new("public", &"a".repeat(33)).is_err());
    }
}
