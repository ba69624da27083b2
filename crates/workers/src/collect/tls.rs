//! TLS with the authorities that the system trusts.

use std::sync::Arc;

/// A client's settings.
pub(super) fn client() -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    // What can't be read is left out: whether enough is left shows when a server is asked.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("TLS can't be set up: {error}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
