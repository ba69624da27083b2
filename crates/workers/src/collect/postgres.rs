//! A query of PostgreSQL, in a transaction that can't write.

use super::{Row, Rows, integer, tls};
use domain::day::Day;
use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::{
    Client, Config, NoTls,
    config::SslMode,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use wire::catalog::{DAY_END, Source};

/// Asks.
pub(super) async fn ask(url: &str, source: &Source, sql: &str, day: Day) -> Result<Vec<Row>, String> {
    let (client, connection) = connect(url, source).await?;
    let rows = query(&client, source, sql, day).await;
    connection.abort();
    rows
}

async fn connect(url: &str, source: &Source) -> Result<(Client, tokio::task::JoinHandle<()>), String> {
    // The reason would quote the URL, which holds a password.
    let mut config: Config = url.parse().map_err(|_| "its URL is not one of PostgreSQL".to_owned())?;
    config.application_name("tidegate snapshot");
    config.connect_timeout(std::time::Duration::from_millis(source.timeout_ms));
    if config.get_ssl_mode() == SslMode::Disable {
        let (client, connection) = config.connect(NoTls).await.map_err(|error| told(&error))?;
        return Ok((client, tokio::spawn(async move { drop(connection.await) })));
    }
    let tls = MakeRustlsConnect::new(tls::client()?);
    let (client, connection) = config.connect(tls).await.map_err(|error| told(&error))?;
    Ok((client, tokio::spawn(async move { drop(connection.await) })))
}

async fn query(client: &Client, source: &Source, sql: &str, day: Day) -> Result<Vec<Row>, String> {
    let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {}", source.timeout_ms);
    client.batch_execute(&begin).await.map_err(|error| told(&error))?;
    let day_end = format!("{}T00:00:00Z", day + 1);
    let (asked, names_day) = with_parameter(sql);
    // As texts: every kind of number has one, and a sum of bigint is a numeric.
    let asked = format!("SELECT tenant_id::text, value::text FROM (\n{asked}\n) AS asked");
    let params: Vec<(&(dyn ToSql + Sync), Type)> = if names_day { vec![(&day_end, Type::TEXT)] } else { Vec::new() };
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

/// The query with its parameter as PostgreSQL has it. `::day_end` is a cast, not the parameter.
fn with_parameter(sql: &str) -> (String, bool) {
    let mut written = String::with_capacity(sql.len());
    let (mut rest, mut names_day) = (sql, false);
    while let Some(at) = rest.find(DAY_END) {
        let (before, after) = (&rest[..at], &rest[at + DAY_END.len()..]);
        let is_name =
            !before.ends_with(':') && !after.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_');
        written.push_str(before);
        written.push_str(if is_name { "($1::text::timestamptz)" } else { DAY_END });
        names_day |= is_name;
        rest = after;
    }
    written.push_str(rest);
    (written, names_day)
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

#[cfg(test)]
mod tests {
    use super::with_parameter;

    #[test]
    fn the_day_is_a_parameter_wherever_it_is_named() {
        let written = |sql| with_parameter(sql).0;
        let parameter = "($1::text::timestamptz)";
        assert_eq!(written("at < :day_end AND b >= :day_end"), format!("at < {parameter} AND b >= {parameter}"));
        for sql in ["SELECT 1", "x::day_end", ":day_ending", ":day_end2"] {
            assert_eq!(with_parameter(sql), (sql.to_owned(), false));
        }
    }
}
