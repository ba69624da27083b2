//! Connections, and how statements are sent on them.

use super::{
    errors::{Done, Failure, with_causes},
    hosts::Connector,
    tls,
    url::Settings,
    values::Params,
};
use deadpool_postgres::{Manager, ManagerConfig, Object, PoolError, RecyclingMethod, Runtime};
use engine::ports::LedgerError;
use parking_lot::Mutex;
use std::{borrow::Cow, future::Future, sync::Arc, time::Duration};
use tokio::time::timeout;
use tokio_postgres::{Row, types::Type};

/// How long a caller waits for a connection.
const WAIT: Duration = Duration::from_secs(5);

/// For what may take hours, and is waited for.
const AS_LONG_AS_IT_TAKES: Duration = Duration::from_secs(7 * 24 * 3600);

/// The schema's name in this program's statements.
const SCHEMA: &str = "tidegate";

/// Connections to one database.
pub(super) struct Pool {
    pool: deadpool_postgres::Pool,
    shared: Arc<Shared>,
}

struct Shared {
    schema: String,
    statement_timeout: Duration,
    pgbouncer: bool,
    /// Why no connection can be had, as whoever tries all the time has found.
    away: Mutex<Option<Arc<str>>>,
}

impl Pool {
    pub(super) fn new(settings: &Settings) -> Result<Self, LedgerError> {
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let connector = tls::connector(&settings.trust)?;
        let connector = Connector::new(&settings.config, connector, WAIT);
        let manager = Manager::from_connect(settings.config.clone(), connector, manager_config);
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(settings.pool_max)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(WAIT))
            .recycle_timeout(Some(WAIT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(super::errors::unopenable)?;
        let shared = Shared {
            schema: settings.schema.clone(),
            statement_timeout: settings.statement_timeout,
            pgbouncer: settings.pgbouncer,
            away: Mutex::default(),
        };
        Ok(Self { pool, shared: Arc::new(shared) })
    }

    /// A connection for a short while. Nobody waits in vain for one where it is known that there is none.
    pub(super) async fn get(&self) -> Done<Conn> {
        if let Some(why) = self.shared.away.lock().clone() {
            return Err(Failure::Lost(why));
        }
        self.get_at_last().await
    }

    /// Says that no connection can be had, or that one can.
    pub(super) fn set_away(&self, why: Option<Arc<str>>) {
        *self.shared.away.lock() = why;
    }

    /// A connection, for whoever has to find out whether there is one.
    pub(super) async fn get_at_last(&self) -> Done<Conn> {
        let object = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => match Failure::from(error) {
                // Whoever can't connect knows that nothing was done.
                Failure::Refused(why) | Failure::Unfit(why) => Failure::Lost(why),
                other => other,
            },
            PoolError::Timeout(_) => Failure::Lost("PostgreSQL: no connection within 5 seconds".into()),
            error => Failure::Lost(format!("PostgreSQL: {}", with_causes(&error)).into()),
        })?;
        let timeout = self.shared.statement_timeout;
        Ok(Conn { object: Some(object), shared: self.shared.clone(), dirty: false, timeout })
    }

    /// No connection that is idle now is used again.
    pub(super) fn forget_idle(&self) {
        self.pool.retain(|_, _| false);
    }

    /// A statement on a connection of its own.
    pub(super) async fn rows(&self, sql: &str, params: Params<'_>) -> Done<Vec<Row>> {
        self.get().await?.rows(sql, params).await
    }

    pub(super) fn close(&self) {
        self.pool.close();
    }

    pub(super) fn connections_max(&self) -> usize {
        self.pool.status().max_size
    }

    pub(super) fn is_behind_pooler(&self) -> bool {
        self.shared.pgbouncer
    }
}

/// A connection. One that is dropped inside a transaction, or was not answered, is closed, not used again.
pub(super) struct Conn {
    object: Option<Object>,
    shared: Arc<Shared>,
    dirty: bool,
    timeout: Duration,
}

impl Conn {
    /// No statement is waited for longer than this.
    pub(super) fn limit(&mut self, limit: Duration) {
        self.timeout = self.timeout.min(limit);
    }

    /// Statements are waited for as long as they take, within reason.
    pub(super) fn take_time(&mut self) {
        self.timeout = AS_LONG_AS_IT_TAKES;
    }

    fn object(&self) -> Done<&Object> {
        self.object.as_ref().ok_or_else(|| Failure::Lost("PostgreSQL: the connection was given back".into()))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.dirty || self.object.as_ref().is_none_or(|object| object.is_closed())
    }

    /// A statement and its rows.
    pub(super) async fn rows(&mut self, sql: &str, params: Params<'_>) -> Done<Vec<Row>> {
        let sql = in_schema(sql, &self.shared.schema);
        let object = self.object()?;
        let answer = async {
            if self.shared.pgbouncer {
                return object.query_typed(&sql, params).await;
            }
            let types: Vec<Type> = params.iter().map(|(_, kind)| kind.clone()).collect();
            let statement = object.prepare_typed_cached(&sql, &types).await?;
            let values: Vec<_> = params.iter().map(|(value, _)| *value).collect();
            object.query(&statement, &values).await
        };
        let answer = within(self.timeout, answer).await;
        self.note(answer)
    }

    /// Statements without parameters or rows.
    pub(super) async fn run(&mut self, sql: &str) -> Done<()> {
        let sql = in_schema(sql, &self.shared.schema);
        let answer = within(self.timeout, self.object()?.batch_execute(&sql)).await;
        self.note(answer)
    }

    fn note<T>(&mut self, answer: Done<T>) -> Done<T> {
        if matches!(answer, Err(Failure::Lost(_))) {
            self.dirty = true;
            // What happened to this connection may have happened to those that are idle: nobody else shall have to wait to
            // find out.
            if let Some(pool) = self.object.as_ref().and_then(Object::pool) {
                pool.retain(|_, _| false);
            }
        }
        answer
    }

    /// Begins a transaction.
    pub(super) async fn begin(&mut self, settings: &str) -> Done<()> {
        self.dirty = true;
        self.run(&format!("BEGIN; {settings}")).await
    }

    pub(super) async fn commit(&mut self) -> Done<()> {
        self.end("COMMIT").await
    }

    pub(super) async fn roll_back(&mut self) -> Done<()> {
        self.end("ROLLBACK").await
    }

    async fn end(&mut self, how: &str) -> Done<()> {
        self.run(how).await?;
        self.dirty = false;
        Ok(())
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if let Some(object) = self.object.take()
            && self.dirty
        {
            drop(Object::take(object));
        }
    }
}

async fn within<T>(limit: Duration, answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Done<T> {
    match timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Failure::Lost(format!("PostgreSQL: no answer within {} ms", limit.as_millis()).into())),
    }
}

/// The statement for the schema in use.
pub(super) fn in_schema<'a>(sql: &'a str, schema: &str) -> Cow<'a, str> {
    if schema == SCHEMA { Cow::Borrowed(sql) } else { Cow::Owned(sql.replace("tidegate.", &format!("{schema}."))) }
}
