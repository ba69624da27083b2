//! The client's side of an HTTP/1 connection, with an eye on two things hyper does not tell.
//!
//! A request with both `Content-Length` and `Transfer-Encoding` is read by hyper as chunked, without its
//! `Content-Length`, and the connection is closed after it: harmless, but we want to refuse it. So the bytes of a
//! request's head are kept until the request is seen. Where they can't be told for sure (pipelining, a very long head)
//! nothing is refused, which leaves hyper's safe reading.
//!
//! And when a request is refused before its body was read, closing the socket at once would reset the connection and
//! could destroy the answer on its way: what the client still sends is read and thrown away for a moment first.

use http::Method;
use hyper::rt::{Read, ReadBufCursor, Write};
use parking_lot::Mutex;
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

/// How much of a head is kept.
const HEAD_BYTES: usize = 4096;
/// How much is thrown away after a refusal, and for how long.
const LINGER_MAX_BYTES: usize = 4 << 20;
const LINGER_MAX: Duration = Duration::from_secs(1);

/// What the request handler and the connection share.
#[derive(Debug)]
pub(crate) struct ClientState {
    head: Mutex<Head>,
    lingers: AtomicBool,
}

#[derive(Debug)]
struct Head {
    bytes: Box<[u8; HEAD_BYTES]>,
    length: usize,
    recording: bool,
}

impl ClientState {
    pub(crate) fn new() -> Arc<Self> {
        let head = Head { bytes: Box::new([0; HEAD_BYTES]), length: 0, recording: true };
        Arc::new(Self { head: Mutex::new(head), lingers: AtomicBool::new(false) })
    }

    /// A request was seen. `has_body`: what comes next is not another head.
    pub(crate) fn request_seen(&self, has_body: bool) {
        let mut head = self.head.lock();
        head.length = 0;
        head.recording = !has_body;
    }

    /// The body of the request was read to its end.
    pub(crate) fn body_ended(&self) {
        let mut head = self.head.lock();
        head.length = 0;
        head.recording = true;
    }

    /// The request is answered although its body was not read.
    pub(crate) fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }

    /// Whether the head that was just read says twice, in two ways, where its body ends.
    pub(crate) fn is_framed_twice(&self, method: &Method) -> bool {
        let head = self.head.lock();
        let bytes = &head.bytes[..head.length];
        let is_this_request = bytes.starts_with(method.as_str().as_bytes());
        is_this_request && has_header(bytes, b"content-length") && has_header(bytes, b"transfer-encoding")
    }
}

/// Whether the head at the start of `bytes` has a line with this name.
fn has_header(bytes: &[u8], name: &[u8]) -> bool {
    bytes.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty() && *line != b"\r").any(|line| {
        line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name) && line[name.len()] == b':'
    })
}

/// The client's connection.
#[derive(Debug)]
pub(crate) struct ClientIo {
    stream: TcpStream,
    state: Arc<ClientState>,
    linger: Option<Linger>,
}

#[derive(Debug)]
struct Linger {
    until: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl ClientIo {
    pub(crate) fn new(stream: TcpStream, state: Arc<ClientState>) -> Self {
        Self { stream, state, linger: None }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = || Linger { until: Box::pin(tokio::time::sleep(LINGER_MAX)), bytes_left: LINGER_MAX_BYTES };
        let linger = self.linger.get_or_insert_with(until);
        let mut scratch = [0; 8192];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    linger.bytes_left = linger.bytes_left.saturating_sub(buffer.filled().len());
                    if linger.bytes_left == 0 {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return linger.until.as_mut().poll(cx),
            }
        }
    }
}

impl Read for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut head = this.state.head.lock();
        if !head.recording || head.length == HEAD_BYTES {
            // A head that did not fit can't be told for sure any more.
            head.recording = false;
            head.length = 0;
            drop(head);
            return Pin::new(&mut hyper_util::rt::TokioIo::new(&mut this.stream)).poll_read(cx, buffer);
        }
        let start = head.length;
        let end = HEAD_BYTES.min(start + buffer.remaining());
        let mut part = ReadBuf::new(&mut head.bytes[start..end]);
        std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
        buffer.put_slice(part.filled());
        head.length += part.filled().len();
        Poll::Ready(Ok(()))
    }
}

impl Write for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            std::task::ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        if self.state.lingers.load(Ordering::Relaxed) {
            std::task::ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
}
