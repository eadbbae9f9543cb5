//! The contract of Acteon's state layer: StateStore, keys, values, locks, errors, layers
