//! `load events|check URL [name=value]...`: POSTs to Tidegate and says how it went, as one line of JSON.
//!
//! Closed loop: each connection sends its next request when it has its answer. With `rate=N` (events or checks per
//! second) open loop: requests are due at fixed instants whether or not earlier ones were answered, and latency counts
//! from the instant a request was due, so that a queue in front of the server shows.
//!
//! | name | default | what |
//! |---|---|---|
//! | `key` | | the API key |
//! | `conns` | 8 | connections, one thread each |
//! | `secs` | 8 | how long |
//! | `rate` | | open loop at this rate |
//! | `batch` | 100 | events in a request |
//! | `tenants` | 1000 | how many tenants take turns |
//! | `users` | 0 | events name one of so many users of each tenant |
//! | `ack` | `disk` | for `check` |
//! | `repeat` | 0 | every n-th request of events repeats the one before it |

use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

struct Plan {
    kind: String,
    address: String,
    path: &'static str,
    content_type: &'static str,
    key: String,
    ack: String,
    conns: u64,
    secs: f64,
    rate: f64,
    batch: u64,
    tenants: u64,
    users: u64,
    repeat: u64,
    run: u64,
}

#[derive(Default)]
struct Tally {
    latencies_us: Vec<u32>,
    ok: u64,
    refused: u64,
    broken: u64,
    first_trouble: Option<String>,
    bytes: u64,
}

fn plan() -> Plan {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (kind, url) = (arguments[0].clone(), &arguments[1]);
    let given: HashMap<&str, &str> = arguments[2..].iter().filter_map(|pair| pair.split_once('=')).collect();
    let number = |name: &str, default: f64| given.get(name).map_or(default, |text| text.parse().expect("a number"));
    let text = |name: &str, default: &str| (*given.get(name).unwrap_or(&default)).to_owned();
    let events = kind == "events";
    Plan {
        address: url.trim_start_matches("http://").trim_end_matches('/').to_owned(),
        path: if events { "/api/v1/events" } else { "/api/v1/check" },
        content_type: if events { "application/cloudevents-batch+json" } else { "application/json" },
        key: text("key", ""),
        ack: text("ack", "disk"),
        conns: number("conns", 8.0) as u64,
        secs: number("secs", 8.0),
        rate: number("rate", 0.0),
        batch: if events { number("batch", 100.0) as u64 } else { 1 },
        tenants: number("tenants", 1000.0) as u64,
        users: number("users", 0.0) as u64,
        repeat: number("repeat", 0.0) as u64,
        run: Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id()) << 32 ^ unix_ns(),
        kind,
    }
}

fn unix_ns() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |past| past.as_nanos() as u64)
}

impl Plan {
    fn body(&self, conn: u64, request: u64, body: &mut String) {
        body.clear();
        if self.kind == "check" {
            let tenant = (request * self.conns + conn) % self.tenants + 1;
            let ack = &self.ack;
            write!(body, r#"{{"tenant_id":"t{tenant}","meter":"messages","consume":true,"ack":"{ack}"}}"#)
                .expect("text");
            return;
        }
        body.push('[');
        for n in 0..self.batch {
            let event = request * self.batch + n;
            let tenant = (event * self.conns + conn) % self.tenants + 1;
            let user = if self.users == 0 {
                String::new()
            } else {
                format!(r#","user_id":"u{}""#, event / self.tenants % self.users)
            };
            let (run, comma) = (self.run, if n == 0 { "" } else { "," });
            write!(
                body,
                r#"{comma}{{"specversion":"1.0","id":"{run:x}-{conn}-{event}","source":"/bench","type":"messages","subject":"t{tenant}","data":{{"value":1{user}}}}}"#
            )
            .expect("text");
        }
        body.push(']');
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(stream)
    }
}

/// Reads one answer: its status and body.
fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<(u16, String)> {
    buffer.clear();
    let mut chunk = [0; 16384];
    loop {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        buffer.extend_from_slice(&chunk[..read]);
        let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let whole = end + 4 + if status == 204 { 0 } else { length.unwrap_or(0) };
        while buffer.len() < whole {
            let read = stream.read(&mut chunk)?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            buffer.extend_from_slice(&chunk[..read]);
        }
        return Ok((status, String::from_utf8_lossy(&buffer[end + 4..whole]).into_owned()));
    }
}

fn drive(plan: &Plan, conn: u64, start: Instant) -> Tally {
    let mut stream = plan.connect().expect("the server answers");
    let (mut tally, mut body, mut request, mut answer) = (Tally::default(), String::new(), Vec::new(), Vec::new());
    let per_request = Duration::from_secs_f64(if plan.rate > 0.0 { plan.batch as f64 / plan.rate } else { 0.0 });
    for sent in 0.. {
        let due = start + per_request.mul_f64((sent * plan.conns + conn) as f64);
        if start.elapsed().as_secs_f64() >= plan.secs || due.duration_since(start).as_secs_f64() >= plan.secs {
            break;
        }
        let repeated = plan.repeat > 0 && sent % plan.repeat == plan.repeat - 1;
        plan.body(conn, if repeated { sent - 1 } else { sent }, &mut body);
        request.clear();
        let (path, address, key, kind) = (plan.path, &plan.address, &plan.key, plan.content_type);
        let length = body.len();
        write!(
            request,
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .expect("bytes");
        let began = if plan.rate > 0.0 {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due
        } else {
            Instant::now()
        };
        let outcome = stream.write_all(&request).and_then(|()| read_answer(&mut stream, &mut answer));
        tally.latencies_us.push(began.elapsed().as_micros().min(u128::from(u32::MAX)) as u32);
        tally.bytes += length as u64;
        match outcome {
            Ok((200 | 204, text)) if !text.contains("\"rejected\":[{") && !text.contains("\"allowed\":false") => {
                tally.ok += 1;
            }
            Ok((status, text)) => {
                tally.refused += 1;
                tally.first_trouble.get_or_insert_with(|| format!("{status} {}", &text[..text.len().min(300)]));
            }
            Err(error) => {
                tally.broken += 1;
                tally.first_trouble.get_or_insert_with(|| error.to_string());
                // A server that was killed: nothing more to do.
                let Ok(again) = plan.connect() else { break };
                stream = again;
            }
        }
    }
    tally
}

fn main() {
    let plan = plan();
    let start = Instant::now() + Duration::from_millis(50);
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.conns)
            .map(|conn| {
                let plan = &plan;
                scope.spawn(move || drive(plan, conn, start))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread fails")).collect()
    });
    let took = start.elapsed().as_secs_f64();
    let mut latencies: Vec<u32> = tallies.iter().flat_map(|tally| tally.latencies_us.iter().copied()).collect();
    latencies.sort_unstable();
    let ms = |part: f64| {
        latencies.get(((latencies.len().max(1) - 1) as f64 * part) as usize).map_or(0.0, |us| f64::from(*us) / 1e3)
    };
    let sum = |count: fn(&Tally) -> u64| tallies.iter().map(count).sum::<u64>();
    let ok = sum(|tally| tally.ok);
    if let Some(trouble) = tallies.iter().find_map(|tally| tally.first_trouble.as_ref()) {
        eprintln!("{trouble}");
    }
    println!(
        r#"RESULT {{"rps":{:.1},"requests":{ok},"p50_ms":{:.3},"p99_ms":{:.3},"p999_ms":{:.3},"max_ms":{:.3},"non2xx":{},"sock_err":{},"mb":{:.1}}}"#,
        (ok * plan.batch) as f64 / took,
        ms(0.5),
        ms(0.99),
        ms(0.999),
        ms(1.0),
        sum(|tally| tally.refused),
        sum(|tally| tally.broken),
        sum(|tally| tally.bytes) as f64 / 1e6,
    );
}
