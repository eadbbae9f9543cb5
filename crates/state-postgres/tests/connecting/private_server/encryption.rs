//! TLS: what each `sslmode` insists on.

use std::fs;
use std::path::PathBuf;

use acteon_state_core::{ErrorKind, StateStore};
use acteon_state_postgres::PostgresConfig;
use acteon_state_postgres::config::SslMode;
use acteon_test_support::{PostgresOptions, PostgresServer, PostgresTls};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use tempfile::TempDir;

use super::{ask, config, connect, refused, start};

/// A server whose certificate says `localhost`, the authority that signed it, and a client's certificates.
struct Encrypted {
    server: PostgresServer,
    folder: TempDir,
}

impl Encrypted {
    /// Starts it with these first lines of `pg_hba.conf`.
    fn start(hba: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_certificates(&folder);
        let path = |name: &str| folder.path().join(name);
        let tls = PostgresTls { certificate: path("server.pem"), key: path("server.key"), ca: Some(path("ca.pem")) };
        let hba = hba.iter().map(|line| (*line).to_owned()).collect();
        let server = PostgresServer::start(PostgresOptions { tls: Some(tls), hba, ..PostgresOptions::default() });
        Self { server: server.unwrap(), folder }
    }

    fn config(&self, host: &str, sslmode: SslMode) -> PostgresConfig {
        let (user, password, port) = (self.server.user(), self.server.password(), self.server.port());
        let url = format!("postgres://{user}:{password}@{host}:{port}/postgres");
        PostgresConfig { sslmode: Some(sslmode), ..config(&url) }
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder.path().join(name))
    }

    /// Connects and says whether the connections are encrypted.
    async fn is_encrypted(&self, config: PostgresConfig) -> bool {
        let store = connect(PostgresConfig { application_name: "under test".to_owned(), ..config }).await;
        let encrypted = ask(
            &self.server,
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'under test'",
        );
        store.close().await.unwrap();
        encrypted == "t"
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// The server's certificate and key, and a client's by the trusted authority and by another one.
fn write_certificates(folder: &TempDir) {
    let write = |name: &str, pem: String| fs::write(folder.path().join(name), pem).unwrap();
    let (trusted, other) = (authority(), authority());
    write("ca.pem", trusted.pem());
    write("other_ca.pem", other.pem());
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    write("server.pem", params.signed_by(&key, &trusted).unwrap().pem());
    write("server.key", key.serialize_pem());
    for (name, authority) in [("client", &trusted), ("stranger", &other)] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "acteon");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        write(&format!("{name}.pem"), params.signed_by(&key, authority).unwrap().pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

#[tokio::test]
async fn verify_full_trusts_the_named_authority_for_the_right_host_only() {
    let server = Encrypted::start(&[]);
    let named = |host| PostgresConfig { ca_file: server.file("ca.pem"), ..server.config(host, SslMode::VerifyFull) };
    assert!(server.is_encrypted(named("localhost")).await);
    let other = PostgresConfig { ca_file: server.file("other_ca.pem"), ..named("localhost") };
    let system = PostgresConfig { ca_file: None, ..named("localhost") };
    for config in [other, system, named("127.0.0.1")] {
        let error = refused(config).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.message().contains("TLS could not be agreed on: invalid peer certificate"), "{error}");
    }
}

#[tokio::test]
async fn verify_ca_and_require_with_an_authority_do_not_look_at_the_name() {
    let server = Encrypted::start(&[]);
    for sslmode in [SslMode::VerifyCa, SslMode::Require] {
        let config = server.config("127.0.0.1", sslmode);
        assert!(server.is_encrypted(PostgresConfig { ca_file: server.file("ca.pem"), ..config.clone() }).await);
        let error = refused(PostgresConfig { ca_file: server.file("other_ca.pem"), ..config }).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
}

#[tokio::test]
async fn without_verification_tls_is_used_as_the_mode_says() {
    let server = Encrypted::start(&[]);
    for (sslmode, encrypted) in
        [(SslMode::Disable, false), (SslMode::Allow, false), (SslMode::Prefer, true), (SslMode::Require, true)]
    {
        assert_eq!(server.is_encrypted(server.config("127.0.0.1", sslmode)).await, encrypted, "{sslmode:?}");
    }
}

#[tokio::test]
async fn allow_and_prefer_take_the_other_way_where_the_server_wants_it() {
    let only_with = Encrypted::start(&["hostnossl all all all reject"]);
    assert!(only_with.is_encrypted(only_with.config("127.0.0.1", SslMode::Allow)).await);
    let only_without = Encrypted::start(&["hostssl all all all reject"]);
    assert!(!only_without.is_encrypted(only_without.config("127.0.0.1", SslMode::Prefer)).await);

    let error = refused(only_with.config("127.0.0.1", SslMode::Disable)).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.message().contains("sslmode"), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_required() {
    let server = start();
    let config = PostgresConfig { sslmode: Some(SslMode::Require), ..config(&server.url()) };
    let error = refused(config).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains("does not support TLS"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_opens_the_door_and_its_absence_does_not() {
    let server = Encrypted::start(&["hostssl all all all cert"]);
    let port = server.server.port();
    // No password: the certificate is enough.
    let without = PostgresConfig {
        sslmode: Some(SslMode::VerifyFull),
        ca_file: server.file("ca.pem"),
        ..config(&format!("postgres://acteon@localhost:{port}/postgres"))
    };
    let with = |name: &str| PostgresConfig {
        client_cert_file: server.file(&format!("{name}.pem")),
        client_key_file: server.file(&format!("{name}.key")),
        ..without.clone()
    };
    let store = connect(with("client")).await;
    store.close().await.unwrap();
    let error = refused(without.clone()).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.message().contains("client certificate"), "{error}");
    let error = refused(with("stranger")).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains("client certificate"), "{error}");
}
