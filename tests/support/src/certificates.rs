//! Certificates for tests of TLS: an authority of the test's own, and what it signs.
//!
//! All files are in a folder that goes with the [`Authority`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::redis_server::RedisTls;

/// Signs certificates, and is trusted by whoever trusts its own.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

impl Authority {
    /// A new authority, which nobody trusts yet.
    ///
    /// # Errors
    /// Its files could not be written.
    pub fn new(name: &str) -> io::Result<Self> {
        let mut params = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Whoever looks for an issuer among several finds it by its name.
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, new_key()?).map_err(io::Error::other)?;
        let authority = Self { issuer, folder: tempfile::tempdir()? };
        fs::write(authority.ca_file(), authority.issuer.pem())?;
        Ok(authority)
    }

    /// The PEM file with its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A PEM file with its certificate and those of others.
    ///
    /// # Errors
    /// It could not be written.
    pub fn ca_file_with(&self, others: &[&Self]) -> io::Result<PathBuf> {
        let mut pem = self.issuer.pem();
        others.iter().for_each(|other| pem.push_str(&other.issuer.pem()));
        let file = self.folder.path().join("all.pem");
        fs::write(&file, pem)?;
        Ok(file)
    }

    /// A certificate for these host names and addresses, in files that begin with `name`.
    ///
    /// # Errors
    /// They could not be written.
    pub fn identity(&self, name: &str, hosts: &[&str]) -> io::Result<Identity> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let key = new_key()?;
        let mut params = CertificateParams::new(hosts).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        let path = |ending: &str| self.folder.path().join(format!("{name}.{ending}"));
        let identity = Identity { cert_file: path("pem"), key_file: path("key") };
        fs::write(&identity.cert_file, certificate.pem())?;
        fs::write(&identity.key_file, key.serialize_pem())?;
        Ok(identity)
    }

    /// The folder with all files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Identity {
    /// As the certificate of a server that trusts these authorities, asks clients for none and others by TLS.
    pub fn of_server(&self, ca_file: PathBuf) -> RedisTls {
        RedisTls {
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            ca_file,
            auth_clients: false,
            between_servers: true,
        }
    }
}

fn new_key() -> io::Result<KeyPair> {
    KeyPair::generate().map_err(io::Error::other)
}
