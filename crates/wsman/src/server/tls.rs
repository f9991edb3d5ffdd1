//! TLS: versions 1.2 and 1.3, a certificate that is made when there is none, and client certificates.
//!
//! A client may show a certificate. Nobody vouches for it: it is not looked up in any chain, only that the client has its
//! key is proven, and its thumbprint then is the user's or is nobody's. So a certificate of one's own making is as good
//! as any, and a certificate authority cannot make itself a user.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use sha2::{Digest as _, Sha256};

/// Largest file of certificates or keys that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot {doing} `{}`", path.display())]
    File {
        /// `read`, `write`…
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("`{}` holds no {what} in PEM", path.display())]
    Content {
        /// `certificate` or `private key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The certificate and its key do not go together, or cannot be used.
    #[error("the certificate cannot be used")]
    Unusable(#[source] rustls::Error),
    /// A certificate cannot be made.
    #[error("a certificate cannot be made")]
    Make(#[source] rcgen::Error),
}

/// What a server shows its clients. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) server: Arc<ServerConfig>,
    /// What ties a proof to the certificate.
    pub(super) binding: negotiate::Binding,
}

/// What a server with that certificate and key shows its clients.
///
/// # Errors
/// A file cannot be read, is not PEM, or the two do not go together.
pub fn config(certificate: &Path, key: &Path) -> Result<Config, TlsError> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&read(certificate)?).filter_map(Result::ok).collect();
    let Some(shown) = chain.first() else {
        return Err(TlsError::Content { what: "certificate", path: certificate.to_owned() });
    };
    let binding = negotiate::Binding::to_server(shown);
    let private = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| TlsError::Content { what: "private key", path: key.to_owned() })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(AnyWithItsKey { algorithms: provider.signature_verification_algorithms });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, private)
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Config { server: Arc::new(config), binding })
}

/// Makes a certificate for this host that nobody vouches for, and its key, unless both are there. The key is its owner's
/// only; both are whole or not there, the key first, so that a certificate without its key is never left.
///
/// # Errors
/// They cannot be made or written.
pub fn make(certificate: &Path, key: &Path, names: &[String], addresses: &[IpAddr]) -> Result<(), TlsError> {
    if certificate.exists() && key.exists() {
        return Ok(());
    }
    let mut params = rcgen::CertificateParams::new(names.to_vec()).map_err(TlsError::Make)?;
    params.subject_alt_names.extend(addresses.iter().map(|address| rcgen::SanType::IpAddress(*address)));
    params.distinguished_name = rcgen::DistinguishedName::new();
    let common = names.first().map_or("slipway", String::as_str);
    params.distinguished_name.push(rcgen::DnType::CommonName, common);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let pair = rcgen::KeyPair::generate().map_err(TlsError::Make)?;
    let made = params.self_signed(&pair).map_err(TlsError::Make)?;
    write(key, &pair.serialize_pem(), 0o600)?;
    write(certificate, &made.pem(), 0o644)
}

/// The SHA-256 of a certificate in lower-case hexadecimal.
pub(super) fn thumbprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::File { doing: "read", path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(failed(io::Error::other(format!("larger than {MAX_FILE} bytes"))));
    }
    fs::read(path).map_err(failed)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let failed = |source| TlsError::File { doing: "write", path: path.to_owned(), source };
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    // One of an earlier death may be there, with another mode.
    match fs::remove_file(&partial) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let mut file =
        fs::File::options().write(true).create_new(true).mode(mode).open(&partial).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&partial, path).map_err(failed)?;
    match path.parent().map(fs::File::open) {
        Some(dir) => dir.and_then(|dir| dir.sync_all()).map_err(failed),
        None => Ok(()),
    }
}

/// Accepts any certificate whose key the client proves to have, and no certificate.
#[derive(Debug)]
struct AnyWithItsKey {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyWithItsKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::{config, make};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        std::fs::write(dir.path().join("k.pem.partial"), "left by a death").unwrap();
        make(&certificate, &key, &["host.example".to_owned()], &["127.0.0.1".parse().unwrap()]).unwrap();
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let before = std::fs::read(&certificate).unwrap();
        config(&certificate, &key).unwrap();
        make(&certificate, &key, &["host.example".to_owned()], &[]).unwrap();
        assert_eq!(std::fs::read(&certificate).unwrap(), before);
        // Died between the two: both anew.
        std::fs::remove_file(&certificate).unwrap();
        make(&certificate, &key, &["host.example".to_owned()], &[]).unwrap();
        config(&certificate, &key).unwrap();
    }

    #[test]
    fn what_is_no_certificate_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        make(&certificate, &key, &["a".to_owned()], &[]).unwrap();
        let wrong = dir.path().join("wrong.pem");
        for text in ["", "noise", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&wrong, text).unwrap();
            for error in [config(&wrong, &key).unwrap_err(), config(&certificate, &wrong).unwrap_err()] {
                assert!(error.to_string().contains("wrong.pem"), "{error}");
            }
        }
        let (other, its_key) = (dir.path().join("o.pem"), dir.path().join("ok.pem"));
        make(&other, &its_key, &["b".to_owned()], &[]).unwrap();
        config(&certificate, &its_key).unwrap_err();
        config(&dir.path().join("missing"), &key).unwrap_err();
    }
}
