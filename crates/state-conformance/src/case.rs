//! A row of the contract's table: one named case of one rule.

use std::future::Future;
use std::pin::Pin;

use acteon_state_core::Capabilities;

use crate::cases;
use crate::lab::Lab;
use crate::verdict::Verdict;

type Running = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// One named case of one rule.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The rule of the contract, such as `W4`.
    pub rule: &'static str,
    /// The fact that the case proves.
    pub name: &'static str,
    /// On which stores it runs.
    pub needs: &'static [Need],
    pub(crate) run: fn(Lab) -> Running,
}

/// What a store must declare, or must not, for a case to run on it. Names are those of [`Capabilities::NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The capability is declared.
    Has(&'static str),
    /// The capability is not declared: the case proves that it is refused.
    Lacks(&'static str),
    /// Both handles come from one driver.
    OneDriver,
}

impl Case {
    /// Whether it runs on a store that declares this, with handles that come from one driver or from several; otherwise it is ignored.
    #[must_use]
    pub fn applies(&self, capabilities: &Capabilities, is_one_driver: bool) -> bool {
        self.needs.iter().all(|need| match need {
            Need::Has(name) => capabilities.has(name) == Some(true),
            Need::Lacks(name) => capabilities.has(name) == Some(false),
            Need::OneDriver => is_one_driver,
        })
    }
}

/// All cases, in the order of the contract.
#[must_use]
pub fn all() -> Vec<Case> {
    [
        cases::keys::CASES,
        cases::values::CASES,
        cases::writes::CASES,
        cases::counters::CASES,
        cases::rates::CASES,
        cases::many::CASES,
        cases::gates::CASES,
        cases::scan::CASES,
        cases::due::CASES,
        cases::locks::CASES,
        cases::waiting::CASES,
        cases::guards::CASES,
        cases::errors::CASES,
        cases::undeclared::CASES,
        cases::lessons::CASES,
        cases::histories::CASES,
        cases::random::CASES,
    ]
    .concat()
}

/// A row: rule, function, and what it needs. The case has the function's name.
macro_rules! case {
    ($rule:literal, $name:ident) => {
        $crate::case::case!($rule, $name, [])
    };
    ($rule:literal, $name:ident, [$($need:expr),*]) => {
        $crate::case::Case { rule: $rule, name: stringify!($name), needs: &[$($need),*], run: |lab| Box::pin($name(lab)) }
    };
}
pub(crate) use case;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use acteon_state_core::Capabilities;

    use super::{Need, all};

    #[test]
    fn names_are_unique_and_needs_exist() {
        let mut names = HashSet::new();
        for case in all() {
            assert!(names.insert(case.name), "{} is there twice", case.name);
            for need in case.needs {
                if let Need::Has(name) | Need::Lacks(name) = need {
                    assert!(Capabilities::NAMES.contains(name), "{}: there is no capability {name}", case.name);
                }
            }
        }
    }

    #[test]
    fn every_rule_of_the_contract_that_a_store_can_break_has_a_case() {
        let rules: HashSet<&str> = all().iter().map(|case| case.rule).collect();
        let groups = [("K", 2), ("V", 5), ("W", 5), ("C", 4), ("M", 4), ("D", 3), ("L", 8), ("E", 2)];
        for (letter, count) in groups {
            for number in 1..=count {
                let rule = format!("{letter}{number}");
                assert!(rules.contains(rule.as_str()), "{rule} has no case");
            }
        }
    }
}
