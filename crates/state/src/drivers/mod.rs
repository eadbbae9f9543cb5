//! The drivers that come with this crate: a file for each, which says what its section holds.

#[cfg(feature = "dynamodb")]
mod dynamodb;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;

#[cfg(feature = "memory")]
pub use memory::{open_memory, open_memory_kept};

use crate::registry::Registry;

/// Names that mean the same backend in every build. Each is that of the feature which brings it, too.
pub(crate) const RESERVED: [&str; 4] = ["memory", "redis", "postgres", "dynamodb"];

/// Adds the drivers whose features are on.
pub(crate) fn register(registry: Registry) -> Registry {
    #[cfg(feature = "memory")]
    let registry = registry.with("memory", memory::open);
    #[cfg(feature = "redis")]
    let registry = registry.with("redis", redis::open);
    #[cfg(feature = "postgres")]
    let registry = registry.with("postgres", postgres::open).with_schema("postgres", postgres::migrate);
    #[cfg(feature = "dynamodb")]
    let registry = registry.with("dynamodb", dynamodb::open).with_schema("dynamodb", dynamodb::migrate);
    registry
}

/// Why a reserved name is not registered; `None` for a name that is not reserved.
pub(crate) fn why_absent(name: &str) -> Option<String> {
    RESERVED.contains(&name).then(|| {
        format!("the backend `{name}` was not compiled in; build with the cargo feature `{name}` (--features {name})")
    })
}
