//! TLS: certificates are checked unless that is switched off by name.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use acteon_state_core::{ErrorKind, Get, Put, StateStore};
use acteon_state_redis::{RedisConfig, RedisStore};
use acteon_test_support::{RedisOptions, RedisServer};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use super::{key, refused, start};

/// A server whose certificate says `localhost`, and the authority that signed it.
struct Encrypted {
    _server: RedisServer,
    folder: TempDir,
    port: u16,
}

impl Encrypted {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_certificates(&folder);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let settings = vec![
            format!("tls-port {port}"),
            format!("tls-cert-file {}", path("server.pem")),
            format!("tls-key-file {}", path("server.key")),
            format!("tls-ca-cert-file {}", path("ca.pem")),
            "tls-auth-clients no".to_owned(),
        ];
        let server = start(RedisOptions { settings, ..RedisOptions::default() });
        Self { _server: server, folder, port }
    }

    fn config(&self, host: &str) -> RedisConfig {
        RedisConfig::from_url(&format!("rediss://{host}:{}", self.port)).unwrap()
    }

    fn ca_file(&self) -> Option<PathBuf> {
        Some(self.folder.path().join("ca.pem"))
    }
}

fn write_certificates(folder: &TempDir) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let server = server.signed_by(&server_key, &authority).unwrap();
    for (name, pem) in
        [("ca.pem", authority.pem()), ("server.pem", server.pem()), ("server.key", server_key.serialize_pem())]
    {
        fs::write(folder.path().join(name), pem).unwrap();
    }
}

#[tokio::test]
async fn a_server_whose_authority_is_named_is_trusted() {
    let server = Encrypted::start();
    let by_host = RedisConfig { ca_file: server.ca_file(), ..server.config("localhost") };
    let by_name = RedisConfig {
        ca_file: server.ca_file(),
        tls_server_name: Some("localhost".to_owned()),
        ..server.config("127.0.0.1")
    };
    for config in [by_host, by_name] {
        let store = RedisStore::connect(config).await.unwrap();
        let key = key("tls");
        let put = Put::new(vec![7; 300_000]);
        store.put(&key, &put).await.unwrap();
        assert_eq!(store.get(&key, Get::default()).await.unwrap().unwrap().value, put.value);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn an_unknown_authority_and_a_wrong_name_are_refused() {
    let server = Encrypted::start();
    let unknown = server.config("localhost");
    let wrong_name = RedisConfig { ca_file: server.ca_file(), ..server.config("127.0.0.1") };
    for config in [unknown, wrong_name] {
        let error = refused(config).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.message().contains("certificate"), "{error}");
    }
}

#[tokio::test]
async fn verification_can_be_switched_off_by_name() {
    let server = Encrypted::start();
    let config = RedisConfig { tls_verify: false, ..server.config("127.0.0.1") };
    RedisStore::connect(config).await.unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn plain_and_encrypted_ports_are_told_apart() {
    let server = Encrypted::start();
    let plain = RedisConfig::from_url(&format!("redis://localhost:{}", server.port)).unwrap();
    let error = refused(plain).await;
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("TLS"), "{error}");
}
