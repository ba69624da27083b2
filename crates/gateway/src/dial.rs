//! Connections to the outside: plain, or TLS with the system's roots where a URL asks for it.

use http::{Uri, uri::Scheme};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
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
    /// Refused, unreachable, not found, not trusted.
    #[error("no connection: {0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
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
        let mut plain = HttpConnector::new();
        plain.enforce_http(false);
        plain.set_nodelay(true);
        plain.set_keepalive(Some(Duration::from_secs(60)));
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

    /// A connection to the host of a URL.
    pub(crate) async fn dial(&self, url: &Uri, timeout: Duration) -> Result<Stream, DialError> {
        let connecting = async {
            match (&self.tls, url.scheme() == Some(&Scheme::HTTPS)) {
                (Some(tls), true) => tls.clone().call(url.clone()).await.map_err(DialError::Failed),
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

/// `host:port` as it stands in `Host`.
pub(crate) fn authority(url: &Uri) -> &str {
    // What stands before an @ is not part of the host; the catalog refuses it.
    url.authority().map_or("", |authority| authority.as_str().rsplit('@').next().unwrap_or_default())
}
