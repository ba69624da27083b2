//! Servers that hold somebody else's tables. Each test has its own; without one the test fails and says what is missing.

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A schema on a real PostgreSQL.
pub struct Postgres {
    pub client: tokio_postgres::Client,
    pub url: String,
}

impl Postgres {
    pub async fn new() -> Self {
        let server = std::env::var("TIDEGATE_TEST_POSTGRES").unwrap_or_else(|_| {
            panic!(
                "this test needs a PostgreSQL, and TIDEGATE_TEST_POSTGRES does not say where it is. ./test.sh starts one by \
                 itself; to start one by hand, that is stopped with `.ci/postgres stop`: eval \"$(.ci/postgres start)\""
            )
        });
        let (admin, connection) = tokio_postgres::connect(&server, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let name = format!("app_{}_{}", std::process::id(), free_port());
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let (before, _) = server.rsplit_once('/').unwrap();
        let url = format!("{before}/{name}?sslmode=disable");
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        Self { client, url }
    }
}

/// A real Redis with a password.
pub struct Redis {
    process: Child,
    pub port: u16,
    _directory: tempfile::TempDir,
}

pub const PASSWORD: &str = "let me in";

impl Redis {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--requirepass", PASSWORD])
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("this test needs redis-server ({error}). On Debian and Ubuntu: apt-get install redis-server")
            });
        let redis = Self { process, port, _directory: directory };
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        redis
    }

    /// The URL with its password.
    pub fn url(&self) -> String {
        format!("redis://:{}@127.0.0.1:{}/0", PASSWORD.replace(' ', "%20"), self.port)
    }

    /// Runs commands, one a line, as people type them.
    pub fn run(&self, commands: &str) {
        let mut cli = Command::new("redis-cli")
            .args(["-p", &self.port.to_string(), "--no-auth-warning", "-a", PASSWORD])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut cli.stdin.take().unwrap(), commands.as_bytes()).unwrap();
        assert!(cli.wait().unwrap().success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
