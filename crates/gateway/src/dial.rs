//! Connections to the outside: plain, or TLS with the system's roots (or one upstream's own) where a URL asks for it.

use http::{Uri, uri::Scheme};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use std::{error::Error, fmt, time::Duration};
use tokio::net::TcpStream;
use tower_service::Service;

/// A connection.
pub(crate) type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// It took too long.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    /// Refused, unreachable, not found.
    #[error("no connection: {0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    /// Who answered could not prove that it is the one asked for.
    #[error("not trusted: {0}")]
    Untrusted(rustls::CertificateError),
}

impl DialError {
    fn of(error: Box<dyn Error + Send + Sync>) -> Self {
        match untrusted(error.as_ref()) {
            Some(why) => Self::Untrusted(why),
            None => Self::Failed(error),
        }
    }
}

/// What is wrong with a certificate, if that is what an error is about. TLS errors come wrapped into those of I/O, whose
/// `source` passes over what they wrap.
fn untrusted(error: &(dyn Error + 'static)) -> Option<rustls::CertificateError> {
    if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
        return Some(why.clone());
    }
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match inner {
        Some(inner) => untrusted(inner),
        None => untrusted(error.source()?),
    }
}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Dialer {
    plain: HttpConnector,
    tls: Option<HttpsConnector<HttpConnector>>,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("tls", &self.tls.is_some()).finish()
    }
}

impl Dialer {
    /// A dialer; the system's root certificates are read only if `tls` is needed.
    ///
    /// # Errors
    /// When there are no root certificates.
    pub(crate) fn new(tls: bool) -> Result<Self, std::io::Error> {
        let plain = plain();
        let tls = match tls {
            false => None,
            true => Some(
                HttpsConnectorBuilder::new()
                    .with_native_roots()?
                    .https_only()
                    .enable_http1()
                    .wrap_connector(plain.clone()),
            ),
        };
        Ok(Self { plain, tls })
    }

    /// A dialer that trusts the certificates in a file, and no others.
    ///
    /// # Errors
    /// A sentence, when there are none.
    pub(crate) fn trusting(ca_file: &str) -> Result<Self, String> {
        let pem = std::fs::read(ca_file).map_err(|error| format!("its ca_file {ca_file} can't be read: {error}"))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let wrong = |error: &dyn fmt::Display| format!("its ca_file {ca_file} holds no certificates: {error}");
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        if roots.is_empty() {
            return Err(format!("its ca_file {ca_file} holds no certificates"));
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let plain = plain();
        let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1();
        Ok(Self { tls: Some(builder.wrap_connector(plain.clone())), plain })
    }

    /// A connection to the host of a URL.
    pub(crate) async fn dial(&self, url: &Uri, timeout: Duration) -> Result<Stream, DialError> {
        let connecting = async {
            match (&self.tls, url.scheme() == Some(&Scheme::HTTPS)) {
                (Some(tls), true) => tls.clone().call(url.clone()).await.map_err(DialError::of),
                (None, true) => Err(DialError::Failed("TLS is not ready".into())),
                (_, false) => {
                    let stream = self.plain.clone().call(url.clone()).await;
                    stream.map(MaybeHttpsStream::Http).map_err(|error| DialError::Failed(error.into()))
                }
            }
        };
        match tokio::time::timeout(timeout, connecting).await {
            Ok(result) => result,
            Err(_) => Err(DialError::Timeout(timeout)),
        }
    }
}

fn plain() -> HttpConnector {
    let mut plain = HttpConnector::new();
    plain.enforce_http(false);
    plain.set_nodelay(true);
    plain.set_keepalive(Some(Duration::from_secs(60)));
    plain
}

/// `host:port` as it stands in `Host`.
pub(crate) fn authority(url: &Uri) -> &str {
    // What stands before an @ is not part of the host; the catalog refuses it.
    url.authority().map_or("", |authority| authority.as_str().rsplit('@').next().unwrap_or_default())
}
