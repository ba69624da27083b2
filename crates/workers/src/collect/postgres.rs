//! A query of PostgreSQL, in a transaction that can't write.

use super::{Row, Rows, TENANT_MAX_BYTES, integer, tls};
use domain::day::Day;
use futures_util::{TryStreamExt, pin_mut};
use tokio::task::JoinSet;
use tokio_postgres::{
    Client, Config, NoTls,
    config::SslMode,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use wire::catalog::{Query, Source};

/// How the end of the day is written where the query names it.
const DAY_END_PARAMETER: &str = "($1::text::timestamptz)";
/// The longest number that is read, in characters.
const VALUE_MAX_CHARS: usize = 100;

/// Asks. Whoever stops waiting hangs up.
pub(super) async fn ask(url: &str, source: &Source, query: &Query, day: Day) -> Result<Vec<Row>, String> {
    let mut connection = JoinSet::new();
    let client = connect(url, source, &mut connection).await?;
    rows(&client, source, query, day).await
}

async fn connect(url: &str, source: &Source, connection: &mut JoinSet<()>) -> Result<Client, String> {
    // The reason would quote the URL, which holds a password.
    let mut config: Config = url.parse().map_err(|_| "its URL is not one of PostgreSQL".to_owned())?;
    config.application_name("tidegate snapshot");
    config.connect_timeout(std::time::Duration::from_millis(source.timeout_ms));
    if config.get_ssl_mode() == SslMode::Disable {
        let (client, wire) = config.connect(NoTls).await.map_err(|error| told(&error))?;
        connection.spawn(async move { drop(wire.await) });
        return Ok(client);
    }
    let tls = MakeRustlsConnect::new(tls::client()?);
    let (client, wire) = config.connect(tls).await.map_err(|error| told(&error))?;
    connection.spawn(async move { drop(wire.await) });
    Ok(client)
}

/// A transaction that can't write and ends by itself. Days are UTC days: a `timestamp` without a zone is compared with their
/// ends as UTC, wherever the server is. And texts are read there as they were here, when the parameter was looked for.
fn begin(source: &Source) -> String {
    format!(
        "BEGIN READ ONLY; SET LOCAL statement_timeout = {}; SET LOCAL timezone = 'UTC'; \
         SET LOCAL standard_conforming_strings = on",
        source.timeout_ms
    )
}

async fn rows(client: &Client, source: &Source, query: &Query, day: Day) -> Result<Vec<Row>, String> {
    client.batch_execute(&begin(source)).await.map_err(|error| told(&error))?;
    let day_end = format!("{}T00:00:00Z", day + 1);
    // As texts: every kind of number has one, and a sum of bigint is a numeric. No longer than can mean something: a row is
    // held in memory whole.
    let asked = format!(
        "SELECT left(tenant_id::text, {TENANT_MAX_BYTES}), left(value::text, {VALUE_MAX_CHARS}) FROM (\n{}\n) AS asked",
        query.with_day_end(DAY_END_PARAMETER)
    );
    let params: Vec<(&(dyn ToSql + Sync), Type)> = match query.knows_days() {
        true => vec![(&day_end, Type::TEXT)],
        false => Vec::new(),
    };
    let stream = client.query_typed_raw(&asked, params).await.map_err(|error| told(&error))?;
    pin_mut!(stream);
    let mut rows = Rows::new(source);
    while let Some(row) = stream.try_next().await.map_err(|error| told(&error))? {
        let text = |column| row.try_get::<_, Option<&str>>(column).ok().flatten();
        let tenant = text(0).unwrap_or("");
        rows.push(tenant, text(1).map_or_else(|| Err("it is NULL".to_owned()), integer))?;
    }
    Ok(rows.rows)
}

/// What the server or the network said; the driver names no password.
fn told(error: &tokio_postgres::Error) -> String {
    if let Some(refused) = error.as_db_error() {
        return format!("PostgreSQL: {} (SQLSTATE {})", refused.message(), refused.code().code());
    }
    let mut text = format!("PostgreSQL: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(because) = cause {
        let because_text = because.to_string();
        if !text.contains(&because_text) {
            text = format!("{text}: {because_text}");
        }
        cause = because.source();
    }
    text
}
