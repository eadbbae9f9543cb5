//! Confines a store to a namespace, and to a tenant in it if one is named.
//!
//! A call about any other key is `Denied` before it reaches the backend. Listings and every key of a batch, a transaction or gates
//! are checked. Right order: outside of everything that costs something. Inside of the concurrency limit,
//! refused calls would take places from those that may pass.

use std::future::{Future, ready};

use futures_util::future::{BoxFuture, Either};

use crate::error::{Error, ErrorKind, Result};
use crate::key::Scope;
use crate::layer::Around;
use crate::operation::{Call, Keys, Reply};

/// See the module.
#[derive(Clone, Debug)]
pub struct Guard {
    /// What the text of every allowed key begins with: `namespace:` or `namespace:tenant:`.
    beginning: String,
}

impl Guard {
    /// Allows one namespace, or one tenant of it.
    ///
    /// # Errors
    /// `Invalid` for names that no key can have.
    pub fn new(namespace: &str, tenant: Option<&str>) -> Result<Self> {
        const ANY: &str = "any";
        let scope = Scope::new(namespace, tenant.unwrap_or(ANY), ANY)?;
        let colons = if tenant.is_some() { 2 } else { 1 };
        let end = scope.text().match_indices(':').nth(colons - 1).map_or(0, |(at, _)| at + 1);
        Ok(Self { beginning: scope.text()[..end].to_owned() })
    }

    fn check(&self, call: &Call<'_>) -> Result<()> {
        match call.keys {
            Keys::None => Ok(()),
            Keys::One(key) => self.check_text(key.text()),
            Keys::Scope(scope) => self.check_text(scope.text()),
            Keys::Batch(ops) => ops.iter().try_for_each(|op| self.check_text(op.key().text())),
            Keys::Gates(gates) => gates.iter().try_for_each(|gate| self.check_text(gate.key().text())),
            Keys::Transact(ops) => ops.iter().try_for_each(|op| self.check_text(op.key().text())),
        }
        .map_err(|error| error.in_operation(call.operation.as_str()))
    }

    fn check_text(&self, text: &str) -> Result<()> {
        if text.starts_with(&self.beginning) {
            return Ok(());
        }
        let message = format!("key {text} is outside of {}*, which this store is confined to", self.beginning);
        Err(Error::new(ErrorKind::Denied, message))
    }
}

impl Around for Guard {
    fn around<'a, T: Reply + 'a>(
        &'a self,
        call: &'a Call<'a>,
        attempt: impl Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    ) -> impl Future<Output = Result<T>> + Send + 'a {
        match self.check(call) {
            Ok(()) => Either::Left(attempt()),
            Err(error) => Either::Right(ready(Err(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Guard;

    #[test]
    fn a_tenant_whose_name_begins_alike_is_outside() {
        let guard = Guard::new("mail", Some("acme")).unwrap();
        assert!(guard.check_text("mail:acme:k:i").is_ok());
        assert!(guard.check_text("mail:acme2:k:i").is_err());
        assert!(Guard::new("mail", None).unwrap().check_text("mail:other:k:i").is_ok());
        assert!(Guard::new("mail", None).unwrap().check_text("mail2:other:k:i").is_err());
    }
}
