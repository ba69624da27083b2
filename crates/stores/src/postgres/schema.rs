//! The tables, their version, and how those of an older version become this one's.
//!
//! Steps are forward-only, each in a transaction of its own, one node at a time. Nodes of the release before go on
//! writing meanwhile and afterwards: a step may add what they do not look at (a table, a column with a default), and
//! leaves `min_reader` as it is; only one that they could not live with raises it, and then they must be stopped first.

use super::{
    errors::{Done, Failure, unopenable},
    pool::Pool,
    values::{first, get},
};
use engine::ports::LedgerError;
use tokio_postgres::types::Type;

/// A step forward.
struct Step {
    sql: &'static str,
    /// The oldest version of the program that can still work with the tables.
    min_reader: i32,
}

/// Step `n` (from 1 on) makes version `n` of version `n - 1`; 0 is an empty schema.
const STEPS: &[Step] = &[
    Step { sql: include_str!("tables_1.sql"), min_reader: 1 },
    Step { sql: include_str!("tables_2.sql"), min_reader: 1 },
    Step { sql: include_str!("tables_3.sql"), min_reader: 1 },
    // A node of the release before would cut entries that are not in history yet.
    Step { sql: include_str!("tables_4.sql"), min_reader: 4 },
    // Nodes of the release before read the fleet without an index meanwhile.
    Step { sql: include_str!("tables_5.sql"), min_reader: 4 },
];

/// The version of the tables that this program makes.
pub(super) const VERSION: i32 = STEPS.len() as i32;

/// The oldest PostgreSQL whose features are used.
const SERVER_LEAST: i32 = 130_000;

struct Found {
    version: i32,
    min_reader: i32,
}

/// Makes the tables or brings them forward; gives the secret.
pub(super) async fn prepare(pool: &Pool, schema: &str, random: &[u8; 32]) -> Result<[u8; 32], LedgerError> {
    let secret = prepare_to(pool, schema, random, VERSION).await;
    secret.map_err(|failure| match failure {
        Failure::Ledger(error) => error,
        failure => match LedgerError::from(failure) {
            LedgerError::Unwritable(why) => LedgerError::Unopenable(why),
            error => error,
        },
    })
}

/// The tables must be there, and be ones that this program knows. Nothing is changed.
pub(super) async fn check(pool: &Pool, schema: &str) -> Result<(), LedgerError> {
    match find(pool, schema).await? {
        Some(found) if found.min_reader > VERSION => Err(newer(schema, &found, VERSION)),
        Some(found) if found.version < VERSION => Err(unopenable(format_args!(
            "the tables in the schema {schema} have version {}; start a node on them once, which brings them to version \
             {VERSION}",
            found.version
        ))),
        Some(_) => Ok(()),
        None => Err(unopenable(format_args!("the schema {schema} holds no ledger. Are URL and schema right?"))),
    }
}

async fn prepare_to(pool: &Pool, schema: &str, random: &[u8; 32], version: i32) -> Done<[u8; 32]> {
    check_server(pool).await?;
    // Most starts find everything as it should be, and need no right to change it.
    if find(pool, schema).await?.is_none_or(|found| found.version < version) {
        migrate(pool, schema, random, version).await?;
    }
    if let Some(found) = find(pool, schema).await?
        && found.min_reader > version
    {
        return Err(newer(schema, &found, version).into());
    }
    let rows = pool.rows("SELECT secret FROM tidegate.meta", &[]).await?;
    let secret: Option<&[u8]> = first(&rows)?;
    let secret = secret.and_then(|secret| secret.try_into().ok());
    secret.ok_or_else(|| Failure::Ledger(LedgerError::Damaged("the ledger's secret is missing".into())))
}

async fn check_server(pool: &Pool) -> Done<()> {
    let sql = "SELECT current_setting('server_version_num')::integer, current_setting('synchronous_commit'),
                      current_setting('fsync'), current_setting('server_encoding')";
    let rows = pool.rows(sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let refuse = |why: &str| Err(Failure::Ledger(unopenable(why)));
    match (get::<i32>(row, 0)?, get::<&str>(row, 1)?, get::<&str>(row, 2)?, get::<&str>(row, 3)?) {
        (version, ..) if version < SERVER_LEAST => refuse("PostgreSQL 13 or newer is needed"),
        (_, "off", ..) => refuse(
            "synchronous_commit is off for this role or database: what is acknowledged could be lost. Set it to on",
        ),
        (.., encoding) if encoding != "UTF8" => refuse("the database's encoding must be UTF8"),
        (_, _, "off", _) => {
            tracing::warn!("PostgreSQL runs with fsync = off: what is acknowledged is lost when its machine crashes");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What is there; `None` where there are no tables.
async fn find(pool: &Pool, schema: &str) -> Done<Option<Found>> {
    let meta = format!("{schema}.meta");
    let rows = pool.rows("SELECT to_regclass($1) IS NOT NULL", &[(&meta, Type::TEXT)]).await?;
    if first::<bool>(&rows)? != Some(true) {
        return Ok(None);
    }
    let rows = pool.rows("SELECT schema_version, min_reader FROM tidegate.meta", &[]).await?;
    rows.first().map(|row| Ok(Found { version: get(row, 0)?, min_reader: get(row, 1)? })).transpose()
}

async fn migrate(pool: &Pool, schema: &str, random: &[u8; 32], version: i32) -> Done<()> {
    loop {
        let mut conn = pool.get().await?;
        // A step, and the wait for another node that is at it, take what they take.
        conn.take_time();
        conn.begin("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0").await?;
        let lock = "SELECT pg_advisory_xact_lock(1413958724, hashtext($1)) IS NOT NULL";
        conn.rows(lock, &[(&format!("tidegate migrations of {schema}"), Type::TEXT)]).await?;
        // Another node may have been quicker. What it did is committed: it held the lock until then.
        let found = find(pool, schema).await?;
        let at = found.as_ref().map_or(0, |found| found.version);
        let step = usize::try_from(at).ok().filter(|_| at < version).and_then(|at| STEPS.get(at));
        let Some(step) = step else {
            return conn.roll_back().await;
        };
        // Older nodes go on meanwhile: a step that waits for them makes them wait too.
        conn.run("SET LOCAL lock_timeout = '5s'").await?;
        if found.is_none() {
            conn.run(&format!("CREATE SCHEMA IF NOT EXISTS {schema}")).await?;
        }
        conn.run(step.sql).await?;
        let sql = match found.is_none() {
            true => "INSERT INTO tidegate.meta (schema_version, min_reader, secret) VALUES ($1, $2, $3)",
            false => {
                "UPDATE tidegate.meta SET schema_version = $1, min_reader = greatest(min_reader, $2)
                 WHERE $3::bytea IS NOT NULL"
            }
        };
        let secret = &random[..];
        conn.rows(sql, &[(&(at + 1), Type::INT4), (&step.min_reader, Type::INT4), (&secret, Type::BYTEA)]).await?;
        conn.commit().await?;
        tracing::info!(version = at + 1, schema, "the ledger's tables are of a new version");
    }
}

fn newer(schema: &str, found: &Found, version: i32) -> LedgerError {
    unopenable(format_args!(
        "the tables in the schema {schema} have version {}, made by a newer release of Tidegate, and need a release \
         that knows version {}; this one knows versions up to {version}. Run that release",
        found.version, found.min_reader
    ))
}
