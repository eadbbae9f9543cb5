//! TLS to the server: whom we trust.
//!
//! Certificates are checked against the system's roots, or against `ca_file` alone where it is given. `tls_verify = false`
//! accepts every certificate; the connection is encrypted then, but nobody knows to whom, and a warning says so. A server that
//! asks who we are is shown `cert_file`.
//!
//! Data nodes and Sentinels have options of their own, whose names differ by what they begin with.

use std::io;
use std::path::Path;
use std::sync::Arc;

use acteon_state_core::{Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{AlertDescription, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use crate::topology::TlsOptions;

/// What turns a TCP stream into a TLS stream.
///
/// # Errors
/// `Config` when a file cannot be read or does not hold what it should, or the system has no roots.
pub(crate) fn connector(options: &TlsOptions) -> Result<TlsConnector> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::config("tls: no protocol version is available").with_source(error))?;
    let builder = if options.verify {
        let roots = match &options.ca_file {
            Some(path) => roots_from_file(options.prefix, path)?,
            None => roots_of_system()?,
        };
        builder.with_root_certificates(roots)
    } else {
        tracing::warn!(
            "{}tls_verify is off: certificates are not checked, anyone on the way to Redis can read and change everything",
            options.prefix
        );
        let anyone = Arc::new(AcceptAnyone(provider));
        builder.dangerous().with_custom_certificate_verifier(anyone)
    };
    let config = match &options.identity {
        Some((cert_file, key_file)) => {
            let prefix = options.prefix;
            let (chain, key) = identity(prefix, cert_file, key_file)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                let message = format!("{prefix}key_file {}: it does not fit {prefix}cert_file", key_file.display());
                Error::config(message).with_source(error)
            })?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What an error of a connection says about our own certificate, if the server did not accept that we showed none, or this one.
///
/// With TLS 1.3 the server looks at it when the handshake is over for us, so that the first read fails.
pub(crate) fn refusal_of_identity(prefix: &str, error: &io::Error) -> Option<String> {
    let Some(rustls::Error::AlertReceived(alert)) = error.get_ref()?.downcast_ref() else { return None };
    match alert {
        // TLS 1.2 has no alert of its own for it.
        AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure => {
            Some(format!("the server asks for a certificate of ours: set {prefix}cert_file and {prefix}key_file"))
        }
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => {
            Some(format!("the server does not accept our certificate: look at {prefix}cert_file"))
        }
        _ => None,
    }
}

/// Our own certificate, with those between it and its root, and its key.
fn identity(
    prefix: &str,
    cert_file: &Path,
    key_file: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let wrong =
        |name: &str, path: &Path, what: &str| Error::config(format!("{prefix}{name} {}: {what}", path.display()));
    let pem = std::fs::read(cert_file)
        .map_err(|error| wrong("cert_file", cert_file, "it cannot be read").with_source(error))?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| wrong("cert_file", cert_file, "it is not in PEM format"))?;
    if chain.is_empty() {
        return Err(wrong("cert_file", cert_file, "it holds no certificate"));
    }
    let pem =
        std::fs::read(key_file).map_err(|error| wrong("key_file", key_file, "it cannot be read").with_source(error))?;
    // The source could repeat a piece of the key.
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| wrong("key_file", key_file, "it holds no private key in PEM format"))?;
    Ok((chain, key))
}

fn roots_from_file(prefix: &str, path: &Path) -> Result<RootCertStore> {
    let wrong = |what: &str| Error::config(format!("{prefix}ca_file {}: {what}", path.display()));
    let pem = std::fs::read(path).map_err(|error| wrong("it cannot be read").with_source(error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| wrong("it is not in PEM format"))?;
        roots.add(certificate).map_err(|error| wrong("it holds a broken certificate").with_source(error))?;
    }
    if roots.is_empty() {
        return Err(wrong("it holds no certificate"));
    }
    Ok(roots)
}

fn roots_of_system() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system's store may hold oddities that rustls refuses; the others are good.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let error =
            Error::config("tls: this system has no trusted certificates; install ca-certificates or set ca_file");
        return Err(match found.errors.into_iter().next() {
            Some(source) => error.with_source(source),
            None => error,
        });
    }
    Ok(roots)
}

/// Accepts every certificate, on explicit request. Signatures are still checked, so the handshake itself is sound.
#[derive(Debug)]
struct AcceptAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use acteon_state_core::ErrorKind;

    use super::connector;
    use crate::topology::TlsOptions;

    #[test]
    fn a_ca_file_that_is_missing_or_empty_is_named() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        for path in [std::path::PathBuf::from("/nonexistent/ca.pem"), empty.path().to_owned()] {
            for prefix in ["", "sentinel_"] {
                let ca_file = Some(path.clone());
                let options = TlsOptions { prefix, verify: true, ca_file, server_name: None, identity: None };
                let error = connector(&options).err().unwrap();
                assert_eq!(error.kind(), ErrorKind::Config);
                let begin = format!("{prefix}ca_file {}: ", path.display());
                assert!(error.message().starts_with(&begin), "{error}");
            }
        }
    }
}
