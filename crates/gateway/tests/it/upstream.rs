//! The server behind the gateway.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::{Notify, mpsc},
};
use tokio_rustls::TlsAcceptor;

type Body = BoxBody<Bytes, std::io::Error>;

/// What the upstream saw and is told.
#[derive(Default)]
pub struct Seen {
    /// Requests that arrived.
    pub requests: AtomicUsize,
    /// Connections that are open.
    pub connections: AtomicUsize,
    /// Connections that were ever opened.
    pub connections_ever: AtomicUsize,
    /// Bodies of responses that are still being sent.
    pub bodies: AtomicUsize,
    /// Lets `/sse` go on.
    pub go_on: Notify,
    /// What `/play` answers.
    pub play: Mutex<Play>,
    /// The body of the last request to `/play`, and its head.
    pub asked: Mutex<(HeaderMap, Bytes)>,
}

/// An answer, played as it is written.
#[derive(Default, Clone)]
pub struct Play {
    pub headers: Vec<(&'static str, String)>,
    pub chunks: Vec<Vec<u8>>,
    /// Whether it waits to be told to go on before the last chunk.
    pub waits: bool,
    /// Whether it breaks off after the last chunk.
    pub breaks: bool,
}

pub struct Upstream {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
}

struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Upstream {
    pub async fn start() -> Self {
        Self::start_as(None).await
    }

    /// One that speaks TLS.
    pub async fn start_with_tls(acceptor: TlsAcceptor) -> Self {
        Self::start_as(Some(acceptor)).await
    }

    async fn start_as(acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let shared = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, acceptor) = (shared.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    seen.connections_ever.fetch_add(1, Ordering::SeqCst);
                    let _open = Counted::new(&seen.connections);
                    match acceptor {
                        None => serve(&seen, stream).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(&seen, stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// An address where nobody listens.
    pub async fn nowhere() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { address: listener.local_addr().unwrap(), seen: Arc::default() }
    }

    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }
}

async fn serve(seen: &Arc<Seen>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let seen = seen.clone();
    let service = service_fn(move |request| answer(seen.clone(), request));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

fn text(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed())
}

async fn answer(seen: Arc<Seen>, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let path = request.uri().path().to_owned();
    let words: Vec<&str> = path.trim_matches('/').split('/').collect();
    Ok(match words.as_slice() {
        ["status", status] => {
            let mut response = text("done");
            *response.status_mut() = status.parse().unwrap();
            response
        }
        ["sse"] => sse(seen),
        ["big", mebibytes] => big(seen.clone(), mebibytes.parse().unwrap()),
        ["sink"] => {
            let mut length = 0u64;
            let mut sum = 0u64;
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                if let Some(data) = frame.data_ref() {
                    length += data.len() as u64;
                    sum = data.iter().fold(sum, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
                }
            }
            text(format!("{length} {sum}"))
        }
        ["echo"] => Response::new(request.into_body().map_err(std::io::Error::other).boxed()),
        ["early"] => {
            let mut response = text("too much");
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            response
        }
        ["break"] => broken(seen),
        ["play"] => {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            *seen.asked.lock().unwrap() = (parts.headers, body);
            played(seen)
        }
        ["hang"] => std::future::pending().await,
        ["ws"] if request.headers().contains_key(header::UPGRADE) => {
            tokio::spawn(echo_upgraded(hyper::upgrade::on(&mut request)));
            let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            response
                .headers_mut()
                .insert("sec-websocket-accept", HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            response
        }
        _ => described(&request),
    })
}

/// The request, as it arrived.
fn described(request: &Request<Incoming>) -> Response<Body> {
    let headers: Vec<(&str, String)> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let json =
        serde_json::json!({"method": request.method().as_str(), "uri": request.uri().to_string(), "headers": headers});
    let mut response = text(json.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert("connection", HeaderValue::from_static("x-hop"));
    response.headers_mut().insert("x-hop", HeaderValue::from_static("1"));
    response.headers_mut().insert("x-tidegate-warning", HeaderValue::from_static("forged"));
    response
}

fn sse(seen: Arc<Seen>) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _open = Counted::new(&seen.bodies);
        let event = |text: &str| Ok(Frame::data(Bytes::from(format!("data: {text}\n\n"))));
        let _ = sender.send(event("{\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}")).await;
        tokio::select! {
            () = seen.go_on.notified() => {}
            () = sender.closed() => return,
        }
        let _ = sender.send(event("{\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}")).await;
        let _ = sender.send(event("[DONE]")).await;
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(Receiving(receiver))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// So many mebibytes of a pattern.
fn big(seen: Arc<Seen>, mebibytes: usize) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _open = Counted::new(&seen.bodies);
        let part = Bytes::from((0..65_536u32).map(|number| (number % 251) as u8).collect::<Vec<u8>>());
        for _ in 0..mebibytes * 16 {
            if sender.send(Ok(Frame::data(part.clone()))).await.is_err() {
                return;
            }
        }
    });
    Response::new(BodyExt::boxed(StreamBody::new(Receiving(receiver))))
}

/// Half of a body; then, when it is told to go on, nothing more.
fn broken(seen: Arc<Seen>) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"half")))).await;
        seen.go_on.notified().await;
        let _ = sender.send(Err(std::io::Error::other("the upstream died"))).await;
    });
    Response::new(BodyExt::boxed(StreamBody::new(Receiving(receiver))))
}

fn played(seen: Arc<Seen>) -> Response<Body> {
    let play = seen.play.lock().unwrap().clone();
    let (sender, receiver) = mpsc::channel(1);
    let headers = play.headers.clone();
    tokio::spawn(async move {
        let _open = Counted::new(&seen.bodies);
        let last = play.chunks.len().saturating_sub(1);
        for (index, chunk) in play.chunks.into_iter().enumerate() {
            if play.waits && index == last {
                tokio::select! {
                    () = seen.go_on.notified() => {}
                    () = sender.closed() => return,
                }
            }
            if sender.send(Ok(Frame::data(Bytes::from(chunk)))).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        if play.breaks {
            let _ = sender.send(Err(std::io::Error::other("the upstream died"))).await;
        }
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(Receiving(receiver))));
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

struct Receiving(mpsc::Receiver<Result<Frame<Bytes>, std::io::Error>>);

impl futures_core::Stream for Receiving {
    type Item = Result<Frame<Bytes>, std::io::Error>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

async fn echo_upgraded(upgrade: hyper::upgrade::OnUpgrade) {
    let mut io = TokioIo::new(upgrade.await.unwrap());
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = io.read(&mut buffer).await {
        if io.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
    let _ = io.shutdown().await;
}
