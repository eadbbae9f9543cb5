//! Configuration: from text, environment and command line to types, with precise errors.
//!
//! [`StateConfig`] is the section `[state]`. [`Document`] reads it, and any other type of the application, from one file; an
//! application with its own way of reading configuration can deserialize [`StateConfig`] by that instead.
//!
//! | what | where |
//! |---|---|
//! | the section `[state]` and what contradicts itself in it | [`StateConfig`] |
//! | `[state.layers]`, defaults and why | [`layers`] |
//! | what to do without an answer | [`degradation`] |
//! | file, environment, command line | [`Document`], [`mod@env`] |
//! | durations and sizes with units | [`units`] |
//! | secrets that do not print | [`Secret`], [`ConnectionUrl`] |
//! | what was probably meant | [`closest`] |

mod de;
pub mod degradation;
mod document;
pub mod env;
mod error;
pub mod layers;
pub(crate) mod node;
mod secret;
mod state;
pub(crate) mod suggest;
pub mod units;

pub use degradation::{Degradation, DegradationPolicy, FallbackConfig};
pub use document::Document;
pub use env::ENV_PREFIX;
pub use error::{ConfigError, Origin};
pub use layers::{CircuitBreakerConfig, ConcurrencyConfig, LayersConfig, RetryConfig, Setting};
pub use secret::{ConnectionUrl, Secret, is_secret_key};
pub use state::{BACKEND_DEFAULT, Connect, Places, StateConfig};
pub use suggest::closest;
pub use units::{ByteSize, HumanDuration, UnitError};

pub(crate) use de::read;
pub(crate) use secret::redacted_table;
pub(crate) use state::KEYS;
