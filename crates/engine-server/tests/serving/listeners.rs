//! TLS, unix sockets, and addresses that cannot be had.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use acteon_engine::{Engine, EngineConfig, Instance, InstanceConfig};
use acteon_engine_server::{EngineServer, ListenConfig, TlsConfig, UnixConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Connection, TestServer};

/// An authority with the certificates of a server and of a client.
struct Certificates {
    directory: TempDir,
}

impl Certificates {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut params = CertificateParams::new([]).expect("valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("signed");
        fs::write(directory.path().join("ca.pem"), authority.pem()).expect("writable");
        for name in ["server", "client"] {
            let key = KeyPair::generate().expect("key");
            let params = CertificateParams::new(["localhost".to_owned()]).expect("valid");
            let certificate = params.signed_by(&key, &authority).expect("signed");
            fs::write(directory.path().join(format!("{name}.pem")), certificate.pem()).expect("writable");
            fs::write(directory.path().join(format!("{name}.key")), key.serialize_pem()).expect("writable");
        }
        Self { directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn tls(&self, asks_clients: bool) -> TlsConfig {
        TlsConfig {
            listen: vec!["127.0.0.1:0".to_owned()],
            certificate_file: self.file("server.pem"),
            key_file: self.file("server.key"),
            client_ca_file: asks_clients.then(|| self.file("ca.pem")),
        }
    }

    /// Connects, with the client's certificate if wanted.
    async fn connect(&self, server: &TestServer, shows_certificate: bool) -> Connection<TlsStream<TcpStream>> {
        let certificate = |name: &str| CertificateDer::from_pem_file(self.file(name)).expect("PEM");
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca.pem")).expect("valid");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_root_certificates(roots);
        let config = if shows_certificate {
            let key = PrivateKeyDer::from_pem_file(self.file("client.key")).expect("PEM");
            builder.with_client_auth_cert(vec![certificate("client.pem")], key).expect("valid")
        } else {
            builder.with_no_client_auth()
        };
        let stream = TcpStream::connect(server.tls_address.expect("TLS")).await.expect("listening");
        let name = ServerName::try_from("localhost").expect("a name");
        Connection(TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("handshake"))
    }
}

#[tokio::test]
async fn commands_and_large_replies_travel_encrypted() {
    let certificates = Certificates::new();
    let server = TestServer::start(|config| config.tls = Some(certificates.tls(false))).await;
    let mut connection = certificates.connect(&server, false).await;
    connection.call("SETRANGE a 999999 x\r\n", ":1000000\r\n").await;
    connection.send("GET a\r\nGET a\r\n").await;
    assert_eq!(connection.receive(2 * 1_000_012).await.len(), 2_000_024);
    // The same data without encryption.
    server.connect().await.call("STRLEN a\r\n", ":1000000\r\n").await;
}

#[tokio::test]
async fn only_clients_with_a_certificate_are_let_in_where_one_is_asked_for() {
    let certificates = Certificates::new();
    let server = TestServer::start(|config| config.tls = Some(certificates.tls(true))).await;
    certificates.connect(&server, true).await.call("SET a 1\r\n", "+OK\r\n").await;
    // The handshake of TLS 1.3 is over for the client before the server has looked for its certificate.
    let mut without = certificates.connect(&server, false).await;
    assert_eq!(without.rest().await, b"");
}

#[tokio::test]
async fn a_handshake_that_does_not_come_holds_up_nobody_and_ends() {
    let certificates = Certificates::new();
    let server = TestServer::start(|config| {
        config.tls = Some(certificates.tls(false));
        config.limits.handshake_timeout = Duration::from_millis(100);
    })
    .await;
    let silent = TcpStream::connect(server.tls_address.expect("TLS")).await.expect("listening");
    certificates.connect(&server, false).await.call("SET a 1\r\n", "+OK\r\n").await;
    assert_eq!(Connection(silent).rest().await, b"");
}

#[tokio::test]
async fn a_unix_socket_has_its_permissions_and_goes_with_the_server() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("engine.sock");
    // As a server that was killed leaves it.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("free"));
    let server = TestServer::start(|config| config.unix = Some(unix(&path))).await;
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    let mut connection = Connection(UnixStream::connect(&path).await.expect("listening"));
    connection.call("SET a 1\r\n", "+OK\r\n").await;
    server.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_place_that_is_taken_is_named() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("engine.sock");
    let server = TestServer::start(|config| config.unix = Some(unix(&path))).await;
    let file = directory.path().join("file");
    fs::write(&file, "precious").expect("writable");
    for (config, place) in [
        (ListenConfig { tcp: vec![server.address.to_string()], ..ListenConfig::default() }, server.address.to_string()),
        (ListenConfig { unix: Some(unix(&path)), ..ListenConfig::default() }, path.display().to_string()),
        (ListenConfig { unix: Some(unix(&file)), ..ListenConfig::default() }, file.display().to_string()),
    ] {
        let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
        let error = EngineServer::bind(instance, config, Arc::new(|| 1)).await.expect_err("taken").to_string();
        assert!(error.contains(&place), "{place} is not in: {error}");
    }
    assert_eq!(fs::read(&file).expect("still there"), b"precious");
    assert!(path.exists());
}

#[tokio::test]
async fn a_program_that_listens_but_does_not_accept_has_its_place_and_holds_up_nobody() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("engine.sock");
    let address = SockAddr::unix(&path).expect("short");
    let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    let busy = socket();
    busy.bind(&address).expect("free");
    busy.listen(0).expect("bound");
    let mut waiting = Vec::new();
    loop {
        let socket = socket();
        socket.set_nonblocking(true).expect("a socket");
        if socket.connect(&address).is_err() {
            break;
        }
        waiting.push(socket);
    }
    let config = ListenConfig { unix: Some(unix(&path)), ..ListenConfig::default() };
    let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
    let error = EngineServer::bind(instance, config, Arc::new(|| 1)).await.expect_err("taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_named() {
    let certificates = Certificates::new();
    let tls = TlsConfig { certificate_file: certificates.file("none.pem"), ..certificates.tls(false) };
    let config = ListenConfig { tls: Some(tls), ..ListenConfig::default() };
    let instance = Instance::new(Engine::new(EngineConfig::default()), InstanceConfig::default());
    let error = EngineServer::bind(instance, config, Arc::new(|| 1)).await.expect_err("no file").to_string();
    assert!(error.contains("none.pem"), "{error}");
}

fn unix(path: &Path) -> UnixConfig {
    UnixConfig { path: path.to_owned(), mode: Some(0o600) }
}
