#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::{collections::VecDeque, convert::Infallible};

type Told = Poll<Option<Result<Frame<Bytes>, Infallible>>>;

/// A source that gives these chunks: an empty one is a pause.
struct Script(VecDeque<Vec<u8>>);

impl Script {
    fn new<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self(chunks.into_iter().map(<[u8]>::to_vec).collect())
    }

    fn poll(&mut self) -> Told {
        match self.0.pop_front() {
            None => Poll::Ready(None),
            Some(chunk) if chunk.is_empty() => Poll::Pending,
            Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk.into())))),
        }
    }
}

/// Everything that comes until the editor waits (`false`) or ends (`true`).
fn run(editor: &mut EventEditor, script: &mut Script) -> (Vec<u8>, bool) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut out = Vec::new();
    loop {
        match editor.poll_frame(&mut cx, |_| script.poll()) {
            Poll::Pending => return (out, false),
            Poll::Ready(None) => return (out, true),
            Poll::Ready(Some(frame)) => out.extend_from_slice(frame.unwrap().data_ref().unwrap()),
        }
    }
}

fn said(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn events_are_put_in_between_others_and_never_inside_one() {
    let handle = StreamHandle::default();
    let mut editor = EventEditor::new(EventFlow::default(), Some(handle.clone()));
    let mut script = Script::new([&b"data: a\n\ndata: b"[..], b"", b"c\n\n: ping\n", b""]);
    assert_eq!(run(&mut editor, &mut script), (b"data: a\n\n".to_vec(), false));
    assert!(handle.notify(said("event: warning\n\n")));
    assert_eq!(run(&mut editor, &mut script), (b"event: warning\n\ndata: bc\n\n: ping\n".to_vec(), false));
    assert!(handle.notify(said("x:1\n\n")) && handle.notify(said("x:2\n\n")));
    assert_eq!(run(&mut editor, &mut script), (b"x:1\n\nx:2\n\n".to_vec(), true));
    drop(editor);
    assert!(!handle.notify(said("x:3\n\n")) && !handle.cut(said("x:3\n\n")));
}

#[test]
fn a_cut_ends_after_a_whole_event_and_asks_the_source_for_nothing_more() {
    let handle = StreamHandle::default();
    let mut editor = EventEditor::new(EventFlow::default(), Some(handle.clone()));
    let mut script = Script::new([&b"data: a\n\ndata: half"[..], b"", b" of it\n\ndata: more\n\n"]);
    assert_eq!(run(&mut editor, &mut script), (b"data: a\n\n".to_vec(), false));
    assert!(handle.notify(said("event: last warning\n\n")) && handle.cut(said("event: limit\n\n")));
    assert!(!handle.notify(said("too late\n\n")) && !handle.cut(said("too late\n\n")));
    assert_eq!(run(&mut editor, &mut script), (b"event: last warning\n\nevent: limit\n\n".to_vec(), true));
    assert!(editor.is_over() && script.0.len() == 1);
}

#[test]
fn an_event_too_large_to_be_kept_back_is_finished_first() {
    let large = vec![b'x'; EVENT_HELD_MAX_BYTES + 1];
    let handle = StreamHandle::default();
    let mut editor = EventEditor::new(EventFlow::default(), Some(handle.clone()));
    let mut script = Script::new([b"data: ", large.as_slice(), b"", b"y", b"", b"z\n\n", b"", b"data: more\n\n"]);
    let begun = [b"data: ", large.as_slice()].concat();
    assert_eq!(run(&mut editor, &mut script), (begun, false));
    assert!(handle.cut(said("event: limit\n\n")));
    assert_eq!(run(&mut editor, &mut script), (b"y".to_vec(), false));
    assert_eq!(run(&mut editor, &mut script), (b"z\n\nevent: limit\n\n".to_vec(), true));
}

#[test]
fn who_waits_is_woken_by_what_is_said() {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };
    #[derive(Default)]
    struct Woken(AtomicUsize);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let woken = Arc::new(Woken::default());
    let waker = woken.clone().into();
    let mut cx = Context::from_waker(&waker);
    let handle = StreamHandle::default();
    let mut editor = EventEditor::new(EventFlow::default(), Some(handle.clone()));
    let pending: Told = editor.poll_frame(&mut cx, |_| Poll::Pending);
    assert!(pending.is_pending());
    handle.notify(said("x:1\n\n"));
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    let told: Told = editor.poll_frame(&mut cx, |_| Poll::Pending);
    assert!(told.is_ready());
}

#[test]
fn what_waits_to_be_said_is_bounded() {
    let handle = StreamHandle::default();
    assert!(!handle.notify(vec![b'x'; EVENT_HELD_MAX_BYTES + 1].into()));
    (0..WAITING_MAX).for_each(|_| assert!(handle.notify(said("x\n\n"))));
    assert!(!handle.notify(said("x\n\n")));
    assert!(handle.cut(said("x\n\n")));
}

#[test]
fn a_source_that_fails_ends_the_stream_as_it_failed() {
    let mut editor = EventEditor::new(EventFlow::new(true), None);
    let mut cx = Context::from_waker(Waker::noop());
    let mut frames = vec![Ok(Frame::data(said("data: half"))), Err("died")];
    let told = editor.poll_frame(&mut cx, |_| Poll::Ready(Some(frames.remove(0))));
    assert!(matches!(told, Poll::Ready(Some(Err("died")))) && editor.is_over());
}

#[test]
fn trailers_follow_what_was_kept_back() {
    let mut editor = EventEditor::new(EventFlow::new(true), None);
    let mut cx = Context::from_waker(Waker::noop());
    let trailers = http::HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("x"))]);
    let mut frames = VecDeque::from([Frame::data(said("data: half")), Frame::trailers(trailers)]);
    let mut next = || -> Told { editor.poll_frame(&mut cx, |_| Poll::Ready(frames.pop_front().map(Ok))) };
    let (first, second, third) = (next(), next(), next());
    let Poll::Ready(Some(Ok(first))) = first else { panic!() };
    assert_eq!(first.data_ref().unwrap(), &said("data: half"));
    assert!(matches!(second, Poll::Ready(Some(Ok(frame))) if frame.is_trailers()));
    assert!(matches!(third, Poll::Ready(None)));
}

const USAGE_ONLY: &str = "data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}";
const EVENTS: [&str; 6] = [
    USAGE_ONLY,
    "data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"total_tokens\":3}}",
    "data: {\"choices\":[],\"usage\":null}",
    "id: 7\ndata: h\u{e9} \u{1f30a}\ndata: b",
    "data: [DONE]",
    ": ping",
];

proptest! {
    #[test]
    fn only_events_for_usage_alone_are_taken_out(
        events in prop::collection::vec((0..EVENTS.len(), 0..3_usize), 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        closed in any::<bool>(),
        strips in any::<bool>(),
        inserts in any::<bool>(),
    ) {
        let (mut text, mut expected) = (String::new(), String::new());
        for (index, (event, line_end)) in events.iter().enumerate() {
            let line_end = ["\n", "\r\n", "\r"][*line_end];
            let is_open = !closed && index + 1 == events.len();
            let end = if is_open { "" } else { "\n\n" };
            let written = format!("{}{end}", EVENTS[*event]).replace('\n', line_end);
            text.push_str(&written);
            // What is not closed is nobody's event.
            if !(strips && EVENTS[*event] == USAGE_ONLY && !is_open) {
                expected.push_str(&written);
            }
        }
        let mut at: Vec<usize> = cuts.iter().map(|index| index.index(text.len() + 1)).collect();
        at.extend([0, text.len()]);
        at.sort_unstable();
        let chunks: Vec<&[u8]> = at.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
        let handle = StreamHandle::default();
        let mut editor = EventEditor::new(EventFlow::new(strips), Some(handle.clone()));
        let mut script = Script::new(chunks);
        let mut out = Vec::new();
        loop {
            if inserts {
                handle.notify(said("\u{1}\n\n"));
            }
            let (part, ended) = run(&mut editor, &mut script);
            out.extend(part);
            if ended {
                break;
            }
        }
        let out = String::from_utf8(out).unwrap();
        // An event that was put in stands between two others: without it, the stream is what it was.
        let plain = out.replace("\u{1}\n\n", "");
        // The LF of a CR that ended what was taken out may stay: a blank line.
        let without_blank = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n").replace("\n\n\n", "\n\n");
        let same = plain == expected || without_blank(plain.trim_start_matches('\n')) == without_blank(&expected);
        prop_assert!(same, "{plain:?} is not {expected:?}");
        for (at, _) in out.match_indices('\u{1}') {
            let before = &out[..at].replace("\r\n", "\n").replace('\r', "\n");
            let at_start = before.is_empty() || before.ends_with("\n\n") || before.ends_with(": ping\n");
            prop_assert!(at_start, "put in after {before:?}");
        }
    }
}
