//! TLS: each option has an effect, for data nodes and for Sentinels apart, on every topology.
//!
//! The certificates carry names that are not the addresses, so that a name that is not checked, or not the one of the
//! options, shows.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use acteon_state_core::{ErrorKind, Get, Put, StateStore};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{
    Authority, Identity, RedisCluster, RedisOptions, RedisSentinels, RedisServer, RedisTls, SentinelOptions,
    SentinelTls,
};
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Metadata, Subscriber};

use super::{key, refused, start};

/// A server whose certificate says `localhost`, and the authority that signed it.
struct Encrypted {
    server: RedisServer,
    authority: Authority,
}

impl Encrypted {
    fn start() -> Self {
        Self::start_with(|tls| tls)
    }

    fn start_with(change: impl FnOnce(RedisTls) -> RedisTls) -> Self {
        let authority = Authority::new("data").unwrap();
        let tls = authority.identity("server", &["localhost"]).unwrap().of_server(authority.ca_file());
        let server = start(RedisOptions { tls: Some(change(tls)), ..RedisOptions::default() });
        Self { server, authority }
    }

    fn config(&self, host: &str) -> RedisConfig {
        RedisConfig::from_url(&format!("rediss://{host}:{}", self.server.tls_port().unwrap())).unwrap()
    }

    fn ca_file(&self) -> Option<PathBuf> {
        Some(self.authority.ca_file())
    }

    /// With all that a server needs that asks for a certificate.
    fn config_with(&self, identity: &Identity) -> RedisConfig {
        RedisConfig {
            ca_file: self.ca_file(),
            cert_file: Some(identity.cert_file.clone()),
            key_file: Some(identity.key_file.clone()),
            ..self.config("localhost")
        }
    }
}

/// The store writes and reads, more than fits into one record of TLS.
async fn works(config: RedisConfig) {
    let store = RedisStore::connect(config).await.unwrap();
    let put = Put::new(vec![7; 300_000]);
    // On a Cluster, several nodes.
    for id in ["a", "b", "c", "d", "e"] {
        let key = key(id);
        store.put(&key, &put).await.unwrap();
        assert_eq!(store.get(&key, Get::default()).await.unwrap().unwrap().value, put.value);
    }
    store.close().await.unwrap();
}

/// It is refused for a reason that trying again would not mend, with this in the message.
async fn refused_saying(config: RedisConfig, part: &str) {
    let error = refused(config).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains(part), "{part:?} is not in: {error}");
}

#[tokio::test]
async fn a_server_whose_authority_is_named_is_trusted() {
    let server = Encrypted::start();
    works(RedisConfig { ca_file: server.ca_file(), ..server.config("localhost") }).await;
    let field = RedisConfig { host: Some("localhost".into()), port: server.server.tls_port(), ..Default::default() };
    works(RedisConfig { tls: Some(true), ca_file: server.ca_file(), ..field }).await;
}

#[tokio::test]
async fn an_unknown_authority_is_refused() {
    let server = Encrypted::start();
    refused_saying(server.config("localhost"), "certificate").await;
    let other = Authority::new("other").unwrap();
    let wrong = RedisConfig { ca_file: Some(other.ca_file()), ..server.config("localhost") };
    refused_saying(wrong, "certificate").await;
}

#[tokio::test]
async fn the_certificate_must_carry_the_host_or_the_name_that_is_given() {
    let server = Encrypted::start();
    let by_address = RedisConfig { ca_file: server.ca_file(), ..server.config("127.0.0.1") };
    refused_saying(by_address.clone(), "certificate").await;
    works(RedisConfig { tls_server_name: Some("localhost".into()), ..by_address }).await;
    let wrong = RedisConfig {
        ca_file: server.ca_file(),
        tls_server_name: Some("other.internal".into()),
        ..server.config("localhost")
    };
    refused_saying(wrong, "certificate").await;
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_ours() {
    let server = Encrypted::start_with(|tls| RedisTls { auth_clients: true, ..tls });
    let ours = server.authority.identity("client", &[]).unwrap();
    works(server.config_with(&ours)).await;
    let without = RedisConfig { ca_file: server.ca_file(), ..server.config("localhost") };
    refused_saying(without, "cert_file").await;
    let strange = Authority::new("data").unwrap().identity("client", &[]).unwrap();
    // The folder with its files is gone, which is a fault of its own.
    refused_saying(server.config_with(&strange), "cannot be read").await;
    let other = Authority::new("other").unwrap();
    refused_saying(server.config_with(&other.identity("client", &[]).unwrap()), "cert_file").await;
    let not_its_key = Identity { key_file: other.identity("client", &[]).unwrap().key_file, ..ours };
    refused_saying(server.config_with(&not_its_key), "does not fit").await;
}

/// The two say it at different moments, and in different words.
#[tokio::test]
async fn both_versions_of_tls_are_spoken_and_say_that_a_certificate_is_missing() {
    for version in ["TLSv1.2", "TLSv1.3"] {
        let authority = Authority::new("data").unwrap();
        let tls = authority.identity("server", &["localhost"]).unwrap().of_server(authority.ca_file());
        let tls = Some(RedisTls { auth_clients: true, ..tls });
        let settings = vec![format!("tls-protocols {version}")];
        let server = Encrypted { server: start(RedisOptions { tls, settings, ..Default::default() }), authority };
        works(server.config_with(&server.authority.identity("client", &[]).unwrap())).await;
        let without = RedisConfig { ca_file: server.ca_file(), ..server.config("localhost") };
        refused_saying(without, "set cert_file and key_file").await;
        let other = Authority::new("other").unwrap();
        refused_saying(server.config_with(&other.identity("client", &[]).unwrap()), "look at cert_file").await;
    }
}

#[tokio::test]
async fn verification_can_be_switched_off_by_name_and_that_is_loud() {
    let server = Encrypted::start();
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    let config = RedisConfig { tls_verify: false, ..server.config("127.0.0.1") };
    let store = RedisStore::connect(config).await.unwrap();
    drop(guard);
    store.ping().await.unwrap();
    assert!(log.text().contains("tls_verify is off"), "{}", log.text());
    let notes = store.lock_semantics().notes;
    assert!(notes.iter().any(|note| note.contains("CERTIFICATES ARE NOT CHECKED")), "{notes:?}");
    let checked = RedisConfig { ca_file: server.ca_file(), ..server.config("localhost") };
    let notes = RedisStore::connect(checked).await.unwrap().lock_semantics().notes;
    assert!(notes.iter().any(|note| note == "Encryption: TLS, and certificates are checked."), "{notes:?}");
}

#[tokio::test]
async fn plain_and_encrypted_ports_are_told_apart() {
    let server = Encrypted::start();
    let port = server.server.tls_port().unwrap();
    let plain = RedisConfig::from_url(&format!("redis://localhost:{port}")).unwrap();
    let error = refused(plain).await;
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("TLS"), "{error}");
    let plain_port = RedisConfig {
        ca_file: server.ca_file(),
        ..RedisConfig::from_url(&format!("rediss://localhost:{}", server.server.port())).unwrap()
    };
    let error = refused(plain_port).await;
    assert!(error.message().contains("TLS"), "{error}");
}

/// Sentinels and data nodes with an authority each, who ask for certificates of that authority.
struct EncryptedSentinels {
    group: RedisSentinels,
    data: Authority,
    watch: Authority,
}

impl EncryptedSentinels {
    fn start() -> Self {
        let (data, watch) = (Authority::new("data").unwrap(), Authority::new("watch").unwrap());
        // Between themselves the servers trust both.
        let both = data.ca_file_with(&[&watch]).unwrap();
        let node = data.identity("node", &["data.internal"]).unwrap().of_server(both.clone());
        let sentinel = watch.identity("sentinel", &["watch.internal"]).unwrap().of_server(both);
        let tls = SentinelTls {
            data: RedisTls { auth_clients: true, ..node },
            sentinels: RedisTls { auth_clients: true, ..sentinel },
        };
        let options = SentinelOptions {
            password: Some("data1".to_owned()),
            sentinel_password: Some("watch2".to_owned()),
            tls: Some(tls),
            ..SentinelOptions::default()
        };
        let group = RedisSentinels::start(options).unwrap_or_else(|error| panic!("{error}"));
        Self { group, data, watch }
    }

    /// All options as they must be.
    fn config(&self) -> RedisConfig {
        let data = self.data.identity("client", &[]).unwrap();
        let watch = self.watch.identity("client", &[]).unwrap();
        RedisConfig {
            ca_file: Some(self.data.ca_file()),
            tls_server_name: Some("data.internal".into()),
            cert_file: Some(data.cert_file),
            key_file: Some(data.key_file),
            sentinel_ca_file: Some(self.watch.ca_file()),
            sentinel_tls_server_name: Some("watch.internal".into()),
            sentinel_cert_file: Some(watch.cert_file),
            sentinel_key_file: Some(watch.key_file),
            ..RedisConfig::from_url(&self.group.url()).unwrap()
        }
    }
}

#[tokio::test]
async fn sentinels_and_data_nodes_have_options_of_their_own() {
    let servers = EncryptedSentinels::start();
    works(servers.config()).await;
    for (config, part) in [
        (RedisConfig { ca_file: Some(servers.watch.ca_file()), ..servers.config() }, "certificate"),
        (RedisConfig { tls_server_name: Some("watch.internal".into()), ..servers.config() }, "certificate"),
        (RedisConfig { cert_file: None, key_file: None, ..servers.config() }, "cert_file"),
        (RedisConfig { sentinel_ca_file: Some(servers.data.ca_file()), ..servers.config() }, "certificate"),
        (RedisConfig { sentinel_tls_server_name: Some("data.internal".into()), ..servers.config() }, "certificate"),
        (RedisConfig { sentinel_tls_server_name: None, ..servers.config() }, "certificate"),
        (RedisConfig { sentinel_cert_file: None, sentinel_key_file: None, ..servers.config() }, "sentinel_cert_file"),
    ] {
        refused_saying(config, part).await;
    }
    let unchecked = RedisConfig { sentinel_ca_file: None, sentinel_tls_verify: false, ..servers.config() };
    works(RedisConfig { sentinel_tls_server_name: None, ..unchecked }).await;
}

#[tokio::test]
async fn sentinels_without_tls_lead_to_data_nodes_with_it_and_the_other_way_round() {
    let servers = EncryptedSentinels::start();
    let hosts = |port: fn(&RedisServer) -> u16| {
        let sentinels = servers.group.sentinels.iter();
        sentinels.map(|sentinel| format!("127.0.0.1:{}", port(sentinel))).collect::<Vec<_>>()
    };
    let fields = RedisConfig {
        url: None,
        sentinel_master: Some("mymaster".into()),
        password: Some("data1".into()),
        sentinel_password: Some("watch2".into()),
        ..servers.config()
    };
    let plain = RedisConfig {
        hosts: hosts(|sentinel| sentinel.port()),
        tls: Some(true),
        sentinel_tls: Some(false),
        sentinel_ca_file: None,
        sentinel_tls_server_name: None,
        sentinel_cert_file: None,
        sentinel_key_file: None,
        ..fields.clone()
    };
    works(plain.clone()).await;
    // The port of the Sentinels without TLS, where they are spoken to with it.
    let error = refused(RedisConfig { sentinel_tls: None, ..plain }).await;
    assert!(error.message().contains("TLS"), "{error}");
    // The data nodes speak TLS only at the address that the Sentinels name, so it fails there and not before.
    let encrypted = RedisConfig {
        hosts: hosts(|sentinel| sentinel.tls_port().unwrap()),
        tls: Some(false),
        sentinel_tls: Some(true),
        ca_file: None,
        tls_server_name: None,
        cert_file: None,
        key_file: None,
        ..fields
    };
    let error = refused(encrypted).await;
    let primary = servers.group.nodes[0].tls_port().unwrap();
    assert!(error.message().contains(&format!("cannot connect to 127.0.0.1:{primary}: the server hung up")), "{error}");
}

#[tokio::test]
async fn what_is_given_for_data_nodes_stands_for_sentinels_too() {
    let authority = Authority::new("all").unwrap();
    let tls = authority.identity("server", &["127.0.0.1"]).unwrap().of_server(authority.ca_file());
    let tls = SentinelTls { data: tls.clone(), sentinels: tls };
    let options = SentinelOptions { tls: Some(tls), ..SentinelOptions::default() };
    let group = RedisSentinels::start(options).unwrap_or_else(|error| panic!("{error}"));
    let config = RedisConfig::from_url(&group.url()).unwrap();
    refused_saying(config.clone(), "certificate").await;
    works(RedisConfig { ca_file: Some(authority.ca_file()), ..config.clone() }).await;
    works(RedisConfig { tls_verify: false, ..config }).await;
}

#[tokio::test]
async fn a_cluster_is_encrypted_from_node_to_node() {
    let authority = Authority::new("nodes").unwrap();
    let tls = authority.identity("node", &["node.internal"]).unwrap().of_server(authority.ca_file());
    let cluster = RedisCluster::start_encrypted(Some("data1"), &RedisTls { auth_clients: true, ..tls })
        .unwrap_or_else(|error| panic!("{error}"));
    let ours = authority.identity("client", &[]).unwrap();
    let config = RedisConfig {
        ca_file: Some(authority.ca_file()),
        tls_server_name: Some("node.internal".into()),
        cert_file: Some(ours.cert_file),
        key_file: Some(ours.key_file),
        ..RedisConfig::from_url(&cluster.url()).unwrap()
    };
    works(config.clone()).await;
    refused_saying(RedisConfig { ca_file: None, ..config.clone() }, "certificate").await;
    refused_saying(RedisConfig { tls_server_name: None, ..config.clone() }, "certificate").await;
    refused_saying(RedisConfig { cert_file: None, key_file: None, ..config }, "cert_file").await;
}

/// What is logged while it is in force, on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Text<'a>(&'a mut String);
        impl Visit for Text<'_> {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }
        }
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        event.record(&mut Text(&mut text));
        text.push('\n');
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
