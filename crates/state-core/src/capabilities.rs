//! What a connected backend can do, as data.
//!
//! Probed at connect where it depends on the server. What is not declared is refused by the driver with
//! `Unsupported`, before anything is sent.

use crate::error::{Error, Result};

/// Flags and limits of one connected backend.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "a list of independent facts, read by name")]
pub struct Capabilities {
    /// `Condition::Version`.
    pub cas: bool,
    /// `Condition::Fence`.
    pub fencing: bool,
    /// `increment`, with bounds and windows.
    pub counters: bool,
    /// `rate_limit`, all algorithms.
    pub rate_limits: bool,
    /// `transact`, and its limits.
    pub transact: Option<TransactLimits>,
    /// `admit`: gates in one round trip. Without it each of them is asked by itself.
    pub gates: bool,
    /// `scan` and `lock_list`.
    pub scan: bool,
    /// Pages of a scan are in byte order of the ids, and exactly as long as asked for except the last.
    pub ordered_scan: bool,
    /// `schedule`, `claim_due` and their kin.
    pub due: bool,
    /// Locks in exclusive mode.
    pub locks: bool,
    /// Locks in shared mode.
    pub shared_locks: bool,
    /// Locks in permit mode.
    pub semaphores: bool,
    /// The backend's clock decides about expiry.
    pub server_clock: bool,
    /// An acknowledged write survives a crash of the server, and is not evicted when memory is short.
    pub durable: bool,
    /// Several processes share the store.
    pub shared: bool,
    /// The largest value in bytes.
    pub value_bytes_max: u64,
}

/// Limits of `transact`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactLimits {
    /// Which keys may be combined.
    pub scope: TransactScope,
    /// The most operations.
    pub ops_max: usize,
}

/// Which keys one transaction may combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactScope {
    /// Any keys.
    AnyKeys,
    /// Only operations on one key.
    OneKey,
}

impl Capabilities {
    /// The names that `require` in the configuration may list.
    pub const NAMES: [&'static str; 14] = [
        "cas",
        "fencing",
        "counters",
        "rate_limits",
        "transact",
        "gates",
        "scan",
        "ordered_scan",
        "due",
        "locks",
        "shared_locks",
        "semaphores",
        "durable",
        "shared",
    ];

    /// Nothing at all: what a driver starts from when it declares.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            cas: false,
            fencing: false,
            counters: false,
            rate_limits: false,
            transact: None,
            gates: false,
            scan: false,
            ordered_scan: false,
            due: false,
            locks: false,
            shared_locks: false,
            semaphores: false,
            server_clock: false,
            durable: false,
            shared: false,
            value_bytes_max: 0,
        }
    }

    /// Whether the capability of this name is declared; `None` for a name that does not exist.
    #[must_use]
    pub fn has(&self, name: &str) -> Option<bool> {
        Some(match name {
            "cas" => self.cas,
            "fencing" => self.fencing,
            "counters" => self.counters,
            "rate_limits" => self.rate_limits,
            "transact" => self.transact.is_some(),
            "gates" => self.gates,
            "scan" => self.scan,
            "ordered_scan" => self.ordered_scan,
            "due" => self.due,
            "locks" => self.locks,
            "shared_locks" => self.shared_locks,
            "semaphores" => self.semaphores,
            "durable" => self.durable,
            "shared" => self.shared,
            _ => return None,
        })
    }

    /// Every name with whether it is declared, for output.
    pub fn list(&self) -> impl Iterator<Item = (&'static str, bool)> + '_ {
        Self::NAMES.into_iter().map(|name| (name, self.has(name).unwrap_or(false)))
    }

    /// Checks that all of these are declared.
    ///
    /// # Errors
    /// `Config` with the names that do not exist or that the backend lacks.
    pub fn require<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
        for name in names {
            match self.has(name) {
                Some(true) => {}
                Some(false) => {
                    return Err(Error::config(format!("require: the backend does not have the capability {name:?}")));
                }
                None => {
                    let known = Self::NAMES.join(", ");
                    return Err(Error::config(format!("require: there is no capability {name:?}; there are {known}")));
                }
            }
        }
        Ok(())
    }

    /// `Unsupported` unless the capability is declared: for drivers that lack some.
    ///
    /// # Errors
    /// `Unsupported` with the name.
    pub fn expect(&self, name: &'static str) -> Result<()> {
        match self.has(name) {
            Some(true) => Ok(()),
            _ => Err(Error::unsupported(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Capabilities;

    #[test]
    fn every_listed_name_exists() {
        let none = Capabilities::none();
        assert!(Capabilities::NAMES.iter().all(|name| none.has(name) == Some(false)));
    }

    #[test]
    fn a_missing_or_misspelt_requirement_is_named() {
        let none = Capabilities::none();
        assert!(none.require(["cas"]).unwrap_err().message().contains("\"cas\""));
        assert!(none.require(["cass"]).unwrap_err().message().contains("there are cas, fencing"));
    }
}
