//! Keys as four columns of an array statement.

use std::borrow::Cow;

use acteon_state_core::StateKey;
use sqlx::Arguments as _;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;

/// The key columns of many rows.
pub(crate) struct KeyColumns<'a>([Vec<Cow<'a, str>>; 4]);

impl<'a> KeyColumns<'a> {
    pub(crate) fn new(keys: impl ExactSizeIterator<Item = &'a StateKey>) -> Self {
        let mut columns = [(); 4].map(|()| Vec::with_capacity(keys.len()));
        for key in keys {
            columns.iter_mut().zip(key.parts()).for_each(|(column, part)| column.push(part));
        }
        Self(columns)
    }

    /// Adds four parameters: namespaces, tenants, kinds, ids.
    pub(crate) fn bind(self, arguments: &mut PgArguments) -> Result<(), BoxDynError> {
        self.0.into_iter().try_for_each(|column| arguments.add(column))
    }
}
