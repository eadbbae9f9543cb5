//! Who may connect, and what the others are told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::counters::Counters;
use crate::server::Shared;
use crate::wake::Wake;

/// What Redis says to those who come from elsewhere while nothing protects the data.
const PROTECTED: &str = "-DENIED Redis is running in protected mode because protected mode is enabled and no password is set \
    for the default user. In this mode connections are only accepted from the loopback interface. If you want to connect from \
    external computers to Redis you may adopt one of the following solutions: 1) Just disable protected mode sending the \
    command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from the same host the server \
    is running, however MAKE SURE Redis is not publicly accessible from internet if you do so. Use CONFIG REWRITE to make this \
    change permanent. 2) Alternatively you can just disable the protected mode by editing the Redis configuration file, and \
    setting the protected mode option to 'no', and then restarting the server. 3) If you started the server manually just for \
    testing, restart it with the '--protected-mode no' option. 4) Setup a an authentication password for the default user. \
    NOTE: You only need to do one of the above things in order for the server to start accepting connections from the \
    outside.\r\n";
const TOO_MANY: &str = "-ERR max number of clients reached\r\n";

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It comes from elsewhere, and no password is set.
    Protected,
    /// There are as many as there may be.
    TooMany,
}

impl Refusal {
    /// What it is told, encoded.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Protected => PROTECTED,
            Self::TooMany => TOO_MANY,
        }
    }
}

/// The place of one connection, which is free again when this is dropped.
pub(crate) struct Admission {
    pub(crate) wake: Arc<Wake>,
    id: u64,
    shared: Arc<Shared>,
}

impl Admission {
    /// Takes a place for a connection, or says why there is none. `is_local`: it comes from this machine.
    pub(crate) fn request(shared: &Arc<Shared>, is_local: bool) -> Result<Self, Refusal> {
        let counters = &*shared.counters;
        let admitted = Self::admit(shared, is_local);
        match &admitted {
            Ok(_) => Counters::add(&counters.received, 1),
            Err(_) => Counters::add(&counters.rejected, 1),
        }
        admitted
    }

    fn admit(shared: &Arc<Shared>, is_local: bool) -> Result<Self, Refusal> {
        let clients_max = shared.instance.network_settings().clients_max;
        let current = &shared.counters.current;
        current
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < clients_max).then_some(count + 1))
            .map_err(|_| Refusal::TooMany)?;
        let (id, wake) = shared.wakes.join();
        let admission = Self { wake, id, shared: shared.clone() };
        // In this order as Redis has it: whoever is one too many is told so first.
        if !is_local && shared.is_protected() {
            return Err(Refusal::Protected);
        }
        Ok(admission)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shared.wakes.leave(self.id);
        self.shared.counters.current.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig, NetworkSettings};

    use super::{Admission, Refusal};
    use crate::config::ListenConfig;
    use crate::server::{EngineServer, Shared};

    async fn shared(is_open_to_all: bool) -> Arc<Shared> {
        let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
        let config = ListenConfig { is_open_to_all, ..ListenConfig::default() };
        EngineServer::bind(instance, config, Arc::new(|| 1)).await.expect("nothing to bind").shared
    }

    #[tokio::test]
    async fn without_a_password_only_this_machine_is_let_in_unless_told_otherwise() {
        let protected = shared(false).await;
        let refusal = Admission::request(&protected, false).err().expect("refused");
        assert_eq!(refusal, Refusal::Protected);
        assert!(refusal.text().starts_with("-DENIED ") && refusal.text().ends_with("outside.\r\n"));
        assert!(Admission::request(&protected, true).is_ok());
        assert!(Admission::request(&shared(true).await, false).is_ok());
    }

    #[tokio::test]
    async fn protection_can_be_changed_while_it_runs() {
        let shared = shared(false).await;
        let settings = shared.instance.network_settings();
        assert!(settings.protected_mode);
        shared.instance.set_network_settings(NetworkSettings { protected_mode: false, ..settings });
        assert!(Admission::request(&shared, false).is_ok());
        shared.instance.set_network_settings(settings);
        assert!(Admission::request(&shared, false).is_err());
    }

    #[tokio::test]
    async fn who_was_refused_takes_no_place() {
        let shared = shared(false).await;
        assert!(Admission::request(&shared, false).is_err());
        let totals = shared.counters.totals();
        assert_eq!((totals.current, totals.rejected, totals.received), (0, 1, 0));
    }
}
