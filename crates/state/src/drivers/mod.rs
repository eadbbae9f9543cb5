//! The drivers that come with this crate: a file for each, which says what its section holds.

#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;

use crate::registry::Registry;

/// Names that mean the same backend in every build, with the feature that brings it; `None` for those of later versions.
pub(crate) const RESERVED: [(&str, Option<&str>); 4] =
    [("memory", Some("memory")), ("redis", Some("redis")), ("postgres", Some("postgres")), ("dynamodb", None)];

/// Adds the drivers whose features are on.
pub(crate) fn register(registry: Registry) -> Registry {
    #[cfg(feature = "memory")]
    let registry = registry.with("memory", memory::open);
    #[cfg(feature = "redis")]
    let registry = registry.with("redis", redis::open);
    #[cfg(feature = "postgres")]
    let registry = registry.with("postgres", postgres::open).with_schema("postgres", postgres::migrate);
    registry
}

/// Why a reserved name is not registered; `None` for a name that is not reserved.
pub(crate) fn why_absent(name: &str) -> Option<String> {
    let (_, feature) = RESERVED.iter().find(|(reserved, _)| *reserved == name)?;
    Some(match feature {
        Some(feature) => format!(
            "the backend `{name}` was not compiled in; build with the cargo feature `{feature}` (--features {feature})"
        ),
        None => format!("the backend `{name}` is not available in this version; the name is reserved for a later one"),
    })
}
