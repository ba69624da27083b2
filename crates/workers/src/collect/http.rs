//! A service that answers in JSON: a list of `{"tenant_id", "value"}`, or an object of values by tenant. Where it stands is
//! the operator's to say: private addresses are called like others. Nobody sends the call elsewhere: redirects are told,
//! not followed.

use super::{Row, Rows, integer, tls};
use bytes::{Buf, Bytes};
use domain::day::Day;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy, rt::TokioExecutor};
use wire::{catalog::Source, collected};

/// The largest answer; as much is held until it was read.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// Asks.
pub(super) async fn ask(
    base: &str,
    authorization: Option<&str>,
    source: &Source,
    path: &str,
    day: Day,
) -> Result<Vec<Row>, String> {
    let uri = format!("{}{}", base.trim_end_matches('/'), path.replace("{day}", &day.to_string()));
    let uri: Uri = uri.parse().map_err(|_| "its URL is not one that can be called".to_owned())?;
    let mut request = Request::get(uri).header(header::ACCEPT, "application/json");
    if let Some(authorization) = authorization {
        let mut value = HeaderValue::from_str(authorization)
            .map_err(|_| "what is to be sent as Authorization can't be sent".to_owned())?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| "its URL can't be called".to_owned())?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls::client()?).https_or_http().enable_http1().build();
    let client = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let answer = client.request(request).await.map_err(|error| format!("it could not be asked: {error}"))?;
    let status = answer.status();
    if status.is_redirection() {
        return Err(format!("it answered {status}, and redirects are not followed: name the address that answers"));
    }
    if !status.is_success() {
        return Err(format!("it answered {status}"));
    }
    let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            return format!("its answer has more than {} MiB: let it answer for fewer", ANSWER_MAX_BYTES >> 20);
        }
        format!("its answer broke off: {error}")
    })?;
    let source = source.clone();
    // A large answer takes its time to read: others are not kept waiting.
    let rows = tokio::task::spawn_blocking(move || read(body.aggregate(), &source));
    rows.await.unwrap_or_else(|_| Err("its answer could not be read".into()))
}

fn read(body: impl Buf, source: &Source) -> Result<Vec<Row>, String> {
    let mut rows = Rows::new(source);
    collected::read(body.reader(), &mut |tenant, value| {
        rows.push(tenant, value.map_or_else(|| Err("it is no number".into()), |text| integer(&text)))
    })?;
    Ok(rows.rows)
}
