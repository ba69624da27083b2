//! What commands use to talk to the running node: one JSON request, one JSON answer, errors as sentences.

use crate::{
    cli::NodeArgs,
    config::{self, WrongSetting, given},
    secret::Secret,
};
use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use std::{fmt, time::Duration};

/// The largest answer a command reads.
const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;
/// How long a command waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a node said that it will not do, whoever asks.
#[derive(Debug)]
pub struct Refused {
    said: String,
    code: String,
}

impl Refused {
    /// The code of the problem, for programs.
    pub fn code(&self) -> &str {
        &self.code
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}
impl std::error::Error for Refused {}

/// A connection to one node.
pub struct Client {
    base: String,
    key: Option<Secret>,
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// The node that arguments and variables name, with the key they name.
    ///
    /// # Errors
    /// Where the address is not one.
    pub fn of(args: &NodeArgs) -> anyhow::Result<Self> {
        let base = given(args.api_url.as_deref()).unwrap_or(config::API_URL);
        // On the machine of the node, where its own variables are set, nothing else is needed.
        let key = match config::secret("TIDEGATE_API_KEY", None)? {
            Some(key) => Some(key),
            None => config::secret("TIDEGATE_ADMIN_KEY", None)?,
        };
        Self::new(base, key)
    }

    /// The node at `base`.
    ///
    /// # Errors
    /// Where the address is not one.
    pub fn new(base: &str, key: Option<Secret>) -> anyhow::Result<Self> {
        let base = base.trim_end_matches('/').to_owned();
        let wrong = || WrongSetting(format!("TIDEGATE_API_URL is {base:?}; write e.g. {}", config::API_URL));
        let uri = base.parse::<Uri>().map_err(|_| wrong())?;
        let builder = HttpsConnectorBuilder::new();
        let builder = match uri.scheme_str() {
            Some("https") => builder.with_native_roots().context("the system's root certificates can't be read")?,
            Some("http") => {
                let roots = rustls::RootCertStore::empty();
                builder.with_tls_config(
                    rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth(),
                )
            }
            _ => bail!(wrong()),
        };
        let http = legacy::Client::builder(TokioExecutor::new()).build(builder.https_or_http().enable_http1().build());
        Ok(Self { base, key, http })
    }

    /// Reads something.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, path, None).await
    }

    /// Reads something that is no JSON.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub async fn text(&self, path: &str) -> anyhow::Result<String> {
        let body = self.exchange(Method::GET, path, None).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Asks for something, and reads the answer. No answer is `null`.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let body = body.map(serde_json::to_vec).transpose()?;
        self.in_json(&self.exchange(method, path, body.map(|body| ("application/json", body))).await?)
    }

    /// Sends text of some kind, and reads the answer.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub async fn post_text(&self, path: &str, content_type: &str, text: String) -> anyhow::Result<Value> {
        self.in_json(&self.exchange(Method::POST, path, Some((content_type, text.into_bytes()))).await?)
    }

    /// Asks for something that answers line by line, and shows each line, for as long as it takes.
    ///
    /// # Errors
    /// A sentence that says what to do; those of `show`.
    pub async fn lines(
        &self,
        path: &str,
        body: &Value,
        mut show: impl FnMut(Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let request = self.request(Method::POST, path, Some(("application/json", serde_json::to_vec(body)?)))?;
        let answer = tokio::time::timeout(PATIENCE, self.http.request(request)).await;
        let silent = || anyhow!("{} did not answer within {} s", self.base, PATIENCE.as_secs());
        let answer = answer.map_err(|_| silent())?.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let mut body = answer.into_body();
        if !status.is_success() {
            let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await.map(|body| body.to_bytes());
            return Err(self.refusal(status, &body.unwrap_or_default()));
        }
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| anyhow!("the answer of {} broke off: {error}", self.base))?;
            rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                show(self.in_json(&line)?)?;
            }
            if rest.len() > ANSWER_MAX_BYTES {
                bail!("{} answers in no lines", self.base);
            }
        }
        Ok(())
    }

    fn in_json(&self, body: &[u8]) -> anyhow::Result<Value> {
        match body {
            [] => Ok(Value::Null),
            body => serde_json::from_slice(body).with_context(|| {
                format!("{} does not answer in JSON; is TIDEGATE_API_URL the API of a Tidegate node?", self.base)
            }),
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", key.expose()));
        }
        let bytes = match body {
            Some((content_type, body)) => {
                request = request.header(header::CONTENT_TYPE, content_type);
                Bytes::from(body)
            }
            None => Bytes::new(),
        };
        request.body(Full::new(bytes)).map_err(|_| {
            anyhow!("the API key or the path holds characters that can't be sent; was the key copied whole?")
        })
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<(&str, Vec<u8>)>) -> anyhow::Result<Bytes> {
        let request = self.request(method, path, body)?;
        let exchange = async {
            let answer = self.http.request(request).await.map_err(|error| self.unreachable(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
            let body = body.map_err(|error| anyhow!("the answer of {} broke off: {error}", self.base))?.to_bytes();
            if status.is_success() { Ok(body) } else { Err(self.refusal(status, &body)) }
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(answer) => answer,
            Err(_) => bail!("{} did not answer within {} s", self.base, PATIENCE.as_secs()),
        }
    }

    fn unreachable(&self, error: &legacy::Error) -> anyhow::Error {
        let reason = root_cause(error);
        if error.is_connect() {
            anyhow!(
                "no node answers at {}: {reason}. Start one with `tidegate serve`, or set TIDEGATE_API_URL",
                self.base
            )
        } else {
            anyhow!("{} could not be asked: {reason}", self.base)
        }
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> anyhow::Error {
        let problem: Value = serde_json::from_slice(body).unwrap_or_default();
        let said = problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or("no reason was given");
        let base = &self.base;
        match (status, &self.key) {
            (StatusCode::UNAUTHORIZED, None) => {
                anyhow!("the node at {base} wants a key; set TIDEGATE_API_KEY (or TIDEGATE_API_KEY_FILE)")
            }
            (StatusCode::UNAUTHORIZED, Some(_)) => {
                anyhow!("the node at {base} refuses the key in TIDEGATE_API_KEY: {said}")
            }
            (StatusCode::FORBIDDEN, _) => anyhow!("the key may not do this: {said}"),
            (status, _) => {
                let code = problem["code"].as_str().unwrap_or_default().to_owned();
                Refused { said: format!("{said} ({})", status.as_u16()), code }.into()
            }
        }
    }
}

/// The innermost reason of an error: what the system said.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut reason = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}

/// A name inside a path.
pub fn in_path(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
