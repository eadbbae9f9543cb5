//! Conditions and updates as DynamoDB spells them.
//!
//! Only placeholders that an expression uses may be sent along, so an expression and its values are put together here.

use std::borrow::Cow;
use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::item::number;

/// Values that an update and its condition name at most, nearly always: a table of them is made once and does not grow.
const VALUES_USUAL: usize = 8;

/// Text of an expression with the values that it names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expression {
    pub(crate) text: Cow<'static, str>,
    pub(crate) values: HashMap<String, AttributeValue>,
}

/// A condition: there is no live item. Needs `:now`.
pub(crate) const ABSENT: &str = "(attribute_not_exists(pk) OR e <= :now)";
/// A condition: there is a live item. Needs `:now`.
pub(crate) const LIVE: &str = "(attribute_exists(pk) AND (attribute_not_exists(e) OR e > :now))";
/// A condition: there is no item, or a live one. Needs `:now`.
pub(crate) const NOT_EXPIRED: &str = "(attribute_not_exists(e) OR e > :now)";

impl Expression {
    pub(crate) fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), values: HashMap::new() }
    }

    /// With a value for a placeholder, such as `:now`.
    #[must_use]
    pub(crate) fn with(mut self, placeholder: &str, value: AttributeValue) -> Self {
        if self.values.capacity() == 0 {
            self.values.reserve(VALUES_USUAL);
        }
        self.values.insert(placeholder.to_owned(), value);
        self
    }

    /// With the time that conditions compare with.
    #[must_use]
    pub(crate) fn at(self, now_ms: u64) -> Self {
        self.with(":now", number(now_ms))
    }

    /// The texts of an update and of its condition, and the values of both.
    pub(crate) fn under(self, condition: Self) -> (String, String, Option<HashMap<String, AttributeValue>>) {
        let (mut values, more) = (self.values, condition.values);
        values.extend(more);
        // An empty map is refused by the service.
        let values = (!values.is_empty()).then_some(values);
        (self.text.into_owned(), condition.text.into_owned(), values)
    }
}
