//! Actions, rules, providers and the dispatch pipeline over a State
