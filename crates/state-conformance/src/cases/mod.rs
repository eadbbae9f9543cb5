//! The cases, a file per family of rules; each file ends in its table of rows.

pub(crate) mod counters;
pub(crate) mod due;
pub(crate) mod errors;
pub(crate) mod gates;
pub(crate) mod guards;
pub(crate) mod histories;
pub(crate) mod keys;
pub(crate) mod lessons;
pub(crate) mod locks;
pub(crate) mod many;
pub(crate) mod random;
pub(crate) mod rates;
pub(crate) mod scan;
pub(crate) mod undeclared;
pub(crate) mod values;
pub(crate) mod waiting;
pub(crate) mod writes;
