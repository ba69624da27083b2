//! Keys of Redis, found with SCAN (KEYS would stop the server for everybody) and read with MGET.
//!
//! Its protocol (RESP 2) is written here: four commands are used, and every reply must be bounded, which clients don't do.

use super::{Row, Rows, integer, tls};
use std::{collections::HashSet, sync::Arc};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use wire::catalog::Source;

/// Keys looked at in one step of a scan.
const SCAN_COUNT: &str = "1000";
/// Values read at once.
const READ_KEYS: usize = 500;
/// The longest line, text and list of a reply.
const LINE_MAX_BYTES: usize = 8 * 1024;
const TEXT_MAX_BYTES: usize = 64 * 1024;
const LIST_MAX: usize = 100_000;
/// The longest reply: as much is held until it was read.
const REPLY_MAX_BYTES: usize = 64 << 20;

/// What a server answers.
#[derive(Debug, PartialEq)]
enum Reply {
    Text(String),
    Nothing,
    List(Vec<Reply>),
}

/// Asks for the keys that begin and end so, with the tenant in between.
pub(super) async fn ask(url: &str, source: &Source, before: &str, after: &str) -> Result<Vec<Row>, String> {
    let mut server = Server::connect(url).await?;
    let pattern = format!("{}*{}", plain(before), plain(after));
    let (mut cursor, mut seen) = ("0".to_owned(), HashSet::new());
    let mut rows = Rows::new(source);
    loop {
        let reply = server.call(&["SCAN", &cursor, "MATCH", &pattern, "COUNT", SCAN_COUNT]).await?;
        let Reply::List(parts) = reply else { return Err(strange()) };
        let Ok([Reply::Text(next), Reply::List(keys)]) = <[Reply; 2]>::try_from(parts) else { return Err(strange()) };
        // A key may come several times.
        let fresh = keys.into_iter().filter_map(|key| if let Reply::Text(key) = key { Some(key) } else { None });
        let fresh: Vec<String> = fresh.filter(|key| seen.insert(key.clone())).collect();
        if seen.len() > source.rows_max {
            return Err(format!("there are more than {} keys (raise `rows_max` if that is right)", source.rows_max));
        }
        for keys in fresh.chunks(READ_KEYS) {
            server.read(keys, (before, after), &mut rows).await?;
        }
        if next == "0" {
            return Ok(rows.rows);
        }
        cursor = next;
    }
}

/// A text in which no character stands for others.
fn plain(text: &str) -> String {
    let is_special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\' | '^');
    text.chars().flat_map(|c| is_special(c).then_some('\\').into_iter().chain([c])).collect()
}

fn strange() -> String {
    "it does not answer as Redis does".to_owned()
}

trait Wire: tokio::io::AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

struct Server {
    wire: BufReader<Box<dyn Wire>>,
    /// How much longer the reply may be that is being read.
    left_bytes: usize,
}

impl Server {
    /// `redis://[user][:password]@host[:port][/database]`, or `rediss://` with TLS.
    async fn connect(url: &str) -> Result<Self, String> {
        let wrong = || "its URL is not one of Redis: redis://user:password@host:6379/0".to_owned();
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let (credentials, place) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (address, database) = place.split_once('/').unwrap_or((place, ""));
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().map_err(|_| wrong())?),
            _ => (address, 6379),
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        let unreachable = |error: std::io::Error| format!("it can't be reached: {error}");
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
        let wire: Box<dyn Wire> = match scheme {
            "redis" => Box::new(stream),
            "rediss" => {
                let name = rustls::pki_types::ServerName::try_from(host).map_err(|_| wrong())?;
                let connector = TlsConnector::from(Arc::new(tls::client()?));
                Box::new(connector.connect(name, stream).await.map_err(unreachable)?)
            }
            _ => return Err(wrong()),
        };
        let mut server = Self { wire: BufReader::new(wire), left_bytes: 0 };
        let (user, password) = credentials.split_once(':').unwrap_or(("", credentials));
        let (user, password) = (decoded(user), decoded(password));
        let auth = match (user.is_empty(), password.is_empty()) {
            (true, true) => None,
            (true, false) => Some(server.call(&["AUTH", &password]).await),
            (false, _) => Some(server.call(&["AUTH", &user, &password]).await),
        };
        // Its own words are not repeated: a server that does not know the command quotes what was sent, the password.
        if let Some(Err(_)) = auth {
            return Err("it does not accept the user or the password of its address".into());
        }
        if !database.is_empty() && database != "0" {
            server.call(&["SELECT", database]).await?;
        }
        Ok(server)
    }

    async fn read(&mut self, keys: &[String], around: (&str, &str), rows: &mut Rows) -> Result<(), String> {
        let command: Vec<&str> = std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
        let Reply::List(values) = self.call(&command).await? else { return Err(strange()) };
        for (key, value) in keys.iter().zip(values) {
            let Some(tenant) = key.strip_prefix(around.0).and_then(|rest| rest.strip_suffix(around.1)) else {
                continue;
            };
            match value {
                Reply::Text(text) => rows.push(tenant, integer(&text))?,
                Reply::List(_) => rows.push(tenant, Err("it is no number".into()))?,
                // Gone since, or of another type than text: MGET tells both the same way.
                Reply::Nothing => rows.push(tenant, Err("the key holds no text, or is gone".into()))?,
            }
        }
        Ok(())
    }

    async fn call(&mut self, command: &[&str]) -> Result<Reply, String> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for part in command {
            bytes.extend_from_slice(format!("${}\r\n{part}\r\n", part.len()).as_bytes());
        }
        let broken = |error: std::io::Error| format!("the connection broke off: {error}");
        self.wire.write_all(&bytes).await.map_err(broken)?;
        self.wire.flush().await.map_err(broken)?;
        self.left_bytes = REPLY_MAX_BYTES;
        self.reply(0).await
    }

    async fn reply(&mut self, depth: usize) -> Result<Reply, String> {
        let line = self.line().await?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(strange)?;
        let length = || rest.parse::<i64>().map_err(|_| strange());
        match kind {
            "+" | ":" => Ok(Reply::Text(rest.to_owned())),
            "-" => Err(format!("Redis: {rest}")),
            "$" => match usize::try_from(length()?) {
                Err(_) => Ok(Reply::Nothing),
                Ok(length) if length > TEXT_MAX_BYTES => Err(format!("a text has more than {TEXT_MAX_BYTES} bytes")),
                Ok(length) => self.text(length).await,
            },
            "*" => match usize::try_from(length()?) {
                Err(_) => Ok(Reply::Nothing),
                Ok(length) if length > LIST_MAX || depth > 2 => Err(strange()),
                Ok(length) => {
                    let mut list = Vec::new();
                    for _ in 0..length {
                        list.push(Box::pin(self.reply(depth + 1)).await?);
                    }
                    Ok(Reply::List(list))
                }
            },
            _ => Err(strange()),
        }
    }

    /// Counts what is held of a reply: its bytes, and what each of its parts takes beside them.
    fn hold(&mut self, bytes: usize) -> Result<(), String> {
        let left = self.left_bytes.checked_sub(bytes + size_of::<Reply>());
        self.left_bytes = left.ok_or_else(|| format!("a reply has more than {} MiB", REPLY_MAX_BYTES >> 20))?;
        Ok(())
    }

    async fn text(&mut self, length: usize) -> Result<Reply, String> {
        self.hold(length)?;
        let mut bytes = vec![0; length + 2];
        self.wire.read_exact(&mut bytes).await.map_err(|error| format!("the connection broke off: {error}"))?;
        bytes.truncate(length);
        Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn line(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.wire).take(LINE_MAX_BYTES as u64);
        let read = bounded.read_until(b'\n', &mut line).await;
        read.map_err(|error| format!("the connection broke off: {error}"))?;
        let line = line.strip_suffix(b"\r\n").ok_or_else(strange)?;
        self.hold(line.len())?;
        String::from_utf8(line.to_vec()).map_err(|_| strange())
    }
}

/// A part of a URL without its percent signs.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match escaped {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{decoded, plain};

    #[test]
    fn what_is_written_is_meant() {
        assert_eq!(plain("usage:[a]*"), "usage:\\[a\\]\\*");
        assert_eq!(decoded("p%40ss%2Fword%"), "p@ss/word%");
    }
}
