//! Which web pages may call from a browser: exact origins, named one by one. Callers prove themselves with a header and
//! never with cookies, so nothing is ever allowed "with credentials", and there is no wildcard.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use std::sync::Arc;

/// How many origins may be named.
const ORIGINS_MAX: usize = 100;
/// How long a browser may remember what it was allowed, seconds.
const REMEMBERED_S: &str = "600";
/// What a page may read of an answer besides what every page may.
const EXPOSED: &str = "retry-after, ratelimit, ratelimit-policy, x-request-id, x-should-retry, x-tidegate-warning, \
                       x-tidegate-shadow, x-tidegate-outage, idempotent-replayed";

/// The origins that may call. Empty: none, and answers say nothing about origins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CorsOrigins(Arc<[HeaderValue]>);

/// A text that names no origins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorsError {
    /// One of them is no origin.
    #[error(
        "{0:?} is no origin; write the scheme and the host, and a port if there is one, e.g. https://app.example.com"
    )]
    NotAnOrigin(String),
    /// Too many.
    #[error("there are more than {ORIGINS_MAX} origins")]
    TooMany,
}

impl CorsOrigins {
    /// Origins separated by commas.
    ///
    /// # Errors
    /// [`CorsError`] where one is not an origin as a browser writes it.
    pub fn parse(text: &str) -> Result<Self, CorsError> {
        let named = text.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        let origins = named
            .map(|origin| origin_of(origin).ok_or_else(|| CorsError::NotAnOrigin(origin.to_owned())))
            .collect::<Result<Vec<_>, _>>()?;
        if origins.len() > ORIGINS_MAX { Err(CorsError::TooMany) } else { Ok(Self(origins.into())) }
    }

    /// Whether no page may call.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The origin of a request, if it is one that may call.
    pub fn allowed(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let mut sent = request.get_all(header::ORIGIN).iter();
        match (sent.next(), sent.next()) {
            (Some(origin), None) => self.0.iter().find(|known| *known == origin).cloned(),
            _ => None,
        }
    }

    /// The answer to a browser that asks whether a page of an allowed origin may send a request; `None` for every other
    /// request. It reveals nothing: the request itself is judged when it comes.
    pub fn preflight(&self, method: &Method, request: &HeaderMap) -> Option<Response<()>> {
        let asked = request.get(header::ACCESS_CONTROL_REQUEST_METHOD).filter(|_| method == Method::OPTIONS)?;
        let origin = self.allowed(request)?;
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, asked.clone());
        if let Some(names) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(REMEMBERED_S));
        let varies = [header::ORIGIN, header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_REQUEST_HEADERS];
        for name in varies {
            headers.append(header::VARY, HeaderValue::from(name));
        }
        Some(response)
    }

    /// Tells the browser who may read an answer. `origin` is what [`CorsOrigins::allowed`] gave for the request.
    pub fn finish(&self, origin: Option<HeaderValue>, response: &mut HeaderMap) {
        if self.is_empty() || response.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
            return;
        }
        response.append(header::VARY, HeaderValue::from(header::ORIGIN));
        if let Some(origin) = origin {
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
    }
}

impl std::fmt::Display for CorsOrigins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, origin) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", origin.to_str().unwrap_or_default())?;
        }
        Ok(())
    }
}

/// An origin exactly as a browser writes it: lower case, no path, no slash at the end, no port that goes without saying.
fn origin_of(text: &str) -> Option<HeaderValue> {
    let uri = text.parse::<Uri>().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let is_exact = text == format!("{scheme}://{authority}")
        && !text.contains(['@', '*'])
        && !text.bytes().any(|byte| byte.is_ascii_uppercase())
        && authority.port_u16() != Some(default_port);
    HeaderValue::from_str(text).ok().filter(|_| is_exact)
}

#[cfg(test)]
#[path = "cors_tests.rs"]
mod tests;
