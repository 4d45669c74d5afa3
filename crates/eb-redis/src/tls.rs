//! TLS: rustls with ring, always with verification of certificate and host name.

use std::path::Path;
use std::sync::Arc;

use eb_contract::{Error, ErrorKind, Result};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::config::TlsConfig;

const OP: &str = "open redis";

/// What makes encrypted connections. Reads files: not for a runtime's thread.
pub(crate) fn connector(tls: &TlsConfig) -> Result<TlsConnector> {
    let roots = match &tls.ca_file {
        Some(file) => roots_of(file)?,
        None => system_roots()?,
    };
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(ErrorKind::Unsupported, OP, "no TLS version is usable").with_source(e))?
        .with_root_certificates(roots);
    let config = match (&tls.client_certificate, &tls.client_key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates_of(certificate)?;
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|e| unusable(key, "our key cannot be read as PEM").with_source(e))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|e| unusable(certificate, "our certificate cannot be used").with_source(e))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn unusable(file: &Path, message: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, OP, message).at(file.display())
}

fn certificates_of(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(file)
        .map_err(|e| unusable(file, "the certificates cannot be read").with_source(e))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| unusable(file, "a certificate is not PEM").with_source(e))?;
    if all.is_empty() {
        return Err(unusable(file, "there is no certificate in it"));
    }
    Ok(all)
}

fn roots_of(file: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_of(file)? {
        roots
            .add(certificate)
            .map_err(|e| unusable(file, "a trusted certificate is unusable").with_source(e))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems carry certificates that no library takes; what counts is that some are usable.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(|| "none are there".to_owned(), ToString::to_string);
    let message = format!("the system's trusted certificates cannot be used: {why}");
    Err(Error::new(ErrorKind::InvalidInput, OP, message)
        .advise("install ca-certificates, or name a file of trusted certificates"))
}
