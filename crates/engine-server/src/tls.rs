//! Certificates: from files to what accepts encrypted connections.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;

/// What accepts connections with the configured certificates.
///
/// # Errors
/// A file cannot be read, or holds nothing of use; the text names it.
pub(crate) fn acceptor(config: &TlsConfig) -> io::Result<TlsAcceptor> {
    let chain = certificates(&config.certificate_file)?;
    let key = PrivateKeyDer::from_pem_file(&config.key_file).map_err(|error| match error {
        PemError::NoItemsFound => unusable(&config.key_file, "it holds no private key"),
        error => unusable(&config.key_file, error),
    })?;
    // Named, so that it does not matter which provider the process has chosen.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match &config.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| unusable(file, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unusable(file, error))?)
        }
    };
    let config = builder.with_single_cert(chain, key).map_err(|error| unusable(&config.certificate_file, error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unusable(file, error))?;
    if certificates.is_empty() {
        return Err(unusable(file, "it holds no certificate"));
    }
    Ok(certificates)
}

fn unusable(file: &Path, why: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {why}", file.display()))
}
