//! Connecting: which of several servers is asked, and for how long.

use deadpool_postgres::Connect;
use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Config, Error, config::Host};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Connects to the first server that answers and takes writes, beginning with the one that did so last.
pub(super) struct Connector {
    tls: MakeRustlsConnect,
    /// One configuration for each server.
    servers: Vec<Config>,
    last_good: AtomicUsize,
    /// How long one is waited for while there are others to ask. One that accepts connections and then says nothing must
    /// not use up all the time there is.
    patience: Duration,
}

impl Connector {
    /// `time` is what there is for all of them.
    pub(super) fn new(config: &Config, tls: MakeRustlsConnect, time: Duration) -> Self {
        let servers: Vec<Config> = match config.get_hosts().len() {
            0 | 1 => vec![config.clone()],
            count => (0..count).map(|index| only(config, index)).collect(),
        };
        let patience = time / (servers.len() as u32);
        Self { tls, servers, last_good: AtomicUsize::new(0), patience }
    }

    async fn connected(&self) -> Result<(Client, JoinHandle<()>), Error> {
        let (first, others) = (self.last_good.load(Ordering::Relaxed), self.servers.len() - 1);
        for place in 0..others {
            if let Ok(Ok(connected)) = timeout(self.patience, self.connected_to(first + place)).await {
                return Ok(connected);
            }
        }
        self.connected_to(first + others).await
    }

    async fn connected_to(&self, place: usize) -> Result<(Client, JoinHandle<()>), Error> {
        let index = place % self.servers.len();
        let (client, connection) = self.servers[index].connect(self.tls.clone()).await?;
        self.last_good.store(index, Ordering::Relaxed);
        let driven = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to PostgreSQL has ended");
            }
        });
        Ok((client, driven))
    }
}

impl Connect for Connector {
    fn connect(
        &self,
        _: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        Box::pin(self.connected())
    }
}

/// The configuration of one of several servers.
fn only(config: &Config, index: usize) -> Config {
    let mut one = Config::new();
    match &config.get_hosts()[index] {
        Host::Tcp(name) => one.host(name),
        Host::Unix(path) => one.host_path(path),
    };
    if let Some(address) = config.get_hostaddrs().get(index) {
        one.hostaddr(*address);
    }
    if let Some(port) = config.get_ports().get(index).or(config.get_ports().first()) {
        one.port(*port);
    }
    config.get_user().map(|user| one.user(user));
    config.get_password().map(|password| one.password(password));
    config.get_dbname().map(|database| one.dbname(database));
    config.get_options().map(|options| one.options(options));
    config.get_application_name().map(|name| one.application_name(name));
    config.get_connect_timeout().map(|limit| one.connect_timeout(*limit));
    config.get_tcp_user_timeout().map(|limit| one.tcp_user_timeout(*limit));
    config.get_keepalives_interval().map(|interval| one.keepalives_interval(interval));
    config.get_keepalives_retries().map(|retries| one.keepalives_retries(retries));
    one.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding());
    one
}

#[cfg(test)]
#[path = "hosts_tests.rs"]
mod tests;
