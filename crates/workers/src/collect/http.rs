//! A service that answers in JSON: a list of `{"tenant_id", "value"}`, or an object of values by tenant.

use super::{Row, Rows, integer, secret, tls};
use domain::day::Day;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy, rt::TokioExecutor};
use serde_json::Value;
use wire::catalog::Source;

/// The largest answer.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// Asks.
pub(super) async fn ask(base: &str, source: &Source, path: &str, day: Day) -> Result<Vec<Row>, String> {
    let uri = format!("{}{}", base.trim_end_matches('/'), path.replace("{day}", &day.to_string()));
    let uri: Uri = uri.parse().map_err(|_| "its URL is not one that can be called".to_owned())?;
    let mut request = Request::get(uri).header(header::ACCEPT, "application/json");
    if let Some(setting) = &source.authorization {
        let mut value = HeaderValue::from_str(&secret::read(setting)?)
            .map_err(|_| "what is to be sent as Authorization can't be sent".to_owned())?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|_| "its URL can't be called".to_owned())?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls::client()?).https_or_http().enable_http1().build();
    let client = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let answer = client.request(request).await.map_err(|error| format!("it could not be asked: {error}"))?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("it answered {status}"));
    }
    let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
    let body = body.map_err(|error| format!("its answer broke off: {error}"))?.to_bytes();
    read(&body, source)
}

fn read(body: &[u8], source: &Source) -> Result<Vec<Row>, String> {
    let answer: Value = serde_json::from_slice(body).map_err(|error| format!("its answer is no JSON: {error}"))?;
    let mut rows = Rows::new(source);
    match answer {
        Value::Array(items) => {
            for item in &items {
                let tenant = item["tenant_id"].as_str().unwrap_or_default();
                rows.push(tenant, number(&item["value"]))?;
            }
        }
        Value::Object(by_tenant) => {
            for (tenant, value) in &by_tenant {
                rows.push(tenant, number(value))?;
            }
        }
        _ => return Err("its answer is neither a list of {\"tenant_id\", \"value\"} nor an object by tenant".into()),
    }
    Ok(rows.rows)
}

fn number(value: &Value) -> Result<i64, String> {
    match value {
        Value::Number(number) => integer(&number.to_string()),
        Value::String(text) => integer(text),
        _ => Err("it is no number".into()),
    }
}
