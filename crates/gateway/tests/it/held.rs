//! What an answer is expected to cost is held while it streams, and settled when it ends, or when nobody is left to.

use crate::{
    upstream::Play,
    world::{World, read_until, until},
};
use domain::{
    entry::{Cause, Effect},
    hold::{Excess, HOLD_MAX_MS},
    id::{MeterKey, TenantId},
    in_flight::IN_FLIGHT_MAX,
    op::Charge,
};
use engine::{
    Engine,
    ports::Ledger,
    requests::{Ack, Check, HoldAsk},
};
use stores::memory::Commits;
use tokio::{io::AsyncWriteExt, net::TcpStream};

const ROUTE: &str = "[[routes]]\nmatch = \"/play\"\ncharge = [{ meter = \"calls\" }, { meter = \"tokens\", amount = 7 }, \
    { meter = \"tokens\", from = \"usage\", expect = 1000 }, \
    { meter = \"credits\", from = \"usage\", field = \"completion_tokens\", expect = 30 }, \
    { meter = \"traffic\", from = \"response_bytes\" }]\n";
const FIRST: &str = "data: {\"choices\":[]}\n\n";
const LAST: &str = "data: {\"usage\":{\"prompt_tokens\":30,\"completion_tokens\":3,\"total_tokens\":33}}\n\n";
const METERS: [&str; 4] = ["calls", "tokens", "credits", "traffic"];

impl World {
    /// A request whose answer has begun, and goes on when the upstream is told.
    async fn streaming(&self) -> TcpStream {
        let chunks = vec![FIRST.into(), LAST.into()];
        let headers = vec![("content-type", "text/event-stream".to_owned())];
        *self.upstream.seen.play.lock().unwrap() = Play { headers, chunks, waits: true, ..Play::default() };
        let mut stream = self.raw().await;
        stream.write_all(b"GET /play HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n").await.unwrap();
        read_until(&mut stream, FIRST).await;
        stream
    }

    /// Lets it end, and waits until it has.
    async fn end(&self, mut stream: TcpStream) {
        self.upstream.seen.go_on.notify_one();
        read_until(&mut stream, "0\r\n\r\n").await;
    }
}

/// Used and held of each meter.
async fn books(engine: &Engine) -> [(i64, i64); 4] {
    let mut books = [(0, 0); 4];
    for (book, meter) in books.iter_mut().zip(METERS) {
        *book = World::in_flight(engine, "acme", meter).await;
    }
    books
}

async fn until_books(world: &World, what: &str, wanted: [(i64, i64); 4]) {
    for _ in 0..500 {
        if books(&world.engine).await == wanted {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(books(&world.engine).await, wanted, "{what}");
}

const HELD: [(i64, i64); 4] = [(0, 1), (0, 1007), (0, 30), (0, 0)];

fn settled(times: i64) -> [(i64, i64); 4] {
    let bytes = (FIRST.len() + LAST.len()) as i64;
    [1, 40, 3, bytes].map(|amount| (amount * times, 0))
}

#[tokio::test]
async fn all_of_a_request_is_held_until_its_answer_ends_and_then_charged_with_what_it_reports() {
    let world = World::new(ROUTE).await;
    let stream = world.streaming().await;
    assert_eq!(books(&world.engine).await, HELD);
    world.end(stream).await;
    until_books(&world, "settled", settled(1)).await;
}

#[tokio::test]
async fn what_a_node_held_that_died_in_mid_stream_returns_or_stays_as_the_meter_says() {
    let world = World::new(ROUTE).await;
    let _stream = world.streaming().await;
    // The node's last word: from here on there is another on the same ledger.
    let node = world.restarted().await;
    assert_eq!(books(&node).await, HELD);
    world.clock_jump_alone(3_599);
    node.upkeep().await.unwrap();
    assert_eq!(books(&node).await, HELD);
    world.clock_jump_alone(1);
    assert_eq!(books(&node).await, [(0, 0), (0, 0), (0, 30), (0, 0)], "before it is written down");
    node.upkeep().await.unwrap();
    let lapsed = [(0, 0), (0, 0), (30, 0), (0, 0)];
    assert_eq!(books(&node).await, lapsed, "and after");
    assert_eq!(books(&*world.restarted().await).await, lapsed, "and to the next node");
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_what_it_held_is_charged_all_the_same() {
    let world = World::new(ROUTE).await;
    for (times, seconds) in [(1, 3_600), (2, HOLD_MAX_MS / 1_000)] {
        let stream = world.streaming().await;
        world.clock_jump(seconds).await;
        world.end(stream).await;
        // They were taken on other days, all in one period.
        until_books(&world, &format!("after {seconds} s"), settled(times)).await;
    }
}

#[tokio::test]
async fn what_was_held_for_a_request_that_goes_nowhere_returns() {
    let world =
        World::new(&format!("{ROUTE}upstream = \"gone\"\n[upstreams.gone]\nurl = \"http://127.0.0.1:1\"\n")).await;
    assert_eq!(world.get("/play", &[("x-org", "acme")]).await.status, 502);
    until_books(&world, "given back", [(0, 0); 4]).await;
}

#[tokio::test]
async fn who_goes_away_before_the_answer_pays_what_was_expected_once_it_was_on_its_way() {
    for (route, wanted) in [
        (ROUTE.to_owned(), [(1, 0), (1007, 0), (30, 0), (0, 0)]),
        (format!("{ROUTE}charge_when = \"success\"\n"), [(0, 0); 4]),
    ] {
        let world = World::new(&route.replace("/play", "/hang")).await;
        let mut stream = world.raw().await;
        stream.write_all(b"GET /hang HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n").await.unwrap();
        until("it is on its way", async || world.upstream.requests() == 1).await;
        assert_eq!(books(&world.engine).await, HELD);
        drop(stream);
        until_books(&world, &route, wanted).await;
    }
}

#[tokio::test]
async fn an_answer_that_ends_while_the_ledger_is_away_is_charged_when_it_is_back() {
    let mut world = World::new(ROUTE).await;
    let stream = world.streaming().await;
    world.ledger.set_commits(Commits::Failing);
    // Somebody else's request finds out.
    assert_eq!(world.get("/play", &[("x-org", "other")]).await.status, 503);
    world.end(stream).await;
    // Nobody waits for it any more once it was tried for a while: not even the end of the gateway does.
    world.shut_down().await.unwrap();
    assert!(world.engine.healthy().is_err());
    world.engine.upkeep().await.unwrap();
    // Nothing was held of what is measured on the way: that is lost.
    let [calls, tokens, credits, _] = settled(1);
    until_books(&world, "settled", [calls, tokens, credits, (0, 0)]).await;
}

#[tokio::test]
async fn where_as_much_is_in_flight_as_can_be_the_next_is_told_to_come_again() {
    let world = World::new(ROUTE).await;
    let credit = Charge { meter: MeterKey::trusted("credits"), amount: 1 };
    let mut check = Check {
        tenant: TenantId::trusted("acme"),
        user: None,
        charges: vec![credit],
        features: Vec::new(),
        consume: true,
        enforce: None,
        dimensions: Default::default(),
        id: None,
        cause: Cause::Check,
        hold: None,
        sent: None,
    };
    for fresh in 0..IN_FLIGHT_MAX as u128 {
        check.hold = Some(HoldAsk { ttl_ms: 60_000, excess: Excess::Overage, fresh });
        world.engine.admit(&check, Ack::Disk).await.unwrap();
    }
    let answer = world.get("/play", &[("x-org", "acme")]).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (429, "too_many_in_flight".into()));
    assert_eq!(answer.header("retry-after"), Some("1"));
}

impl World {
    /// A request for `/play`, or what else the route says, whose commit is held up.
    async fn asking(&self, path: &str) -> TcpStream {
        self.put_on("acme", "free").await;
        self.ledger.set_commits(Commits::Held);
        let mut stream = self.raw().await;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: gate\r\nx-org: acme\r\n\r\n").as_bytes()).await.unwrap();
        stream
    }

    async fn until_waiting(&self, entries: u64) {
        until("so much waits for its commit", async || self.ledger.stats().queue_entries == entries).await;
    }

    /// What the journal says of holds and sessions.
    async fn noted(&self) -> Vec<&'static str> {
        let lines = self.ledger.journal(0, 1_000).await.unwrap();
        let word = |effect| match effect {
            Effect::Hold(_) => Some("held"),
            Effect::HoldSettled { .. } => Some("settled"),
            Effect::Session(_) => Some("session"),
            _ => None,
        };
        lines.into_iter().flat_map(|(.., entry)| entry.effects).filter_map(word).collect()
    }
}

#[tokio::test]
async fn what_was_held_is_released_where_the_commit_of_the_session_fails_after_it() {
    let world = World::new(&format!("{ROUTE}session = {{ meter = \"time\" }}\n")).await;
    let mut stream = world.asking("/play").await;
    world.until_waiting(2).await;
    world.ledger.release_first(1);
    world.ledger.fail_behind(0);
    read_until(&mut stream, "HTTP/1.1 503").await;
    assert_eq!(world.noted().await, ["held"]);
    world.engine.upkeep().await.unwrap();
    until_books(&world, "released", [(0, 0); 4]).await;
    assert_eq!(world.noted().await, ["held", "settled"]);
}

#[tokio::test]
async fn a_hold_of_which_nobody_heard_is_released_when_the_ledger_is_back() {
    let world = World::new(ROUTE).await;
    let mut stream = world.asking("/play").await;
    world.until_waiting(1).await;
    world.ledger.fail_behind(1);
    read_until(&mut stream, "HTTP/1.1 503").await;
    // It is tried again and again, in vain.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(world.noted().await, ["held"]);
    world.engine.upkeep().await.unwrap();
    until("it is released", async || world.noted().await == ["held", "settled"]).await;
    assert_eq!(books(&world.engine).await, [(0, 0); 4]);
}

#[tokio::test]
async fn who_hangs_up_during_the_commit_leaves_nothing_held() {
    let expected = [(1, 0), (1007, 0), (30, 0), (0, 0)];
    for (more, reached, wanted) in
        [("commit_first = true\n", 0, [(0, 0); 4]), ("charge_when = \"success\"\n", 1, [(0, 0); 4]), ("", 1, expected)]
    {
        let world = World::new(&format!("{ROUTE}{more}").replace("/play", "/hang")).await;
        let stream = world.asking("/hang").await;
        world.until_waiting(1).await;
        until("it is where it waits", async || world.upstream.requests() == reached).await;
        drop(stream);
        world.until_waiting(2).await;
        world.ledger.set_commits(Commits::AtOnce);
        until_books(&world, more, wanted).await;
        assert_eq!((world.noted().await, world.upstream.requests()), (vec!["held", "settled"], reached), "{more}");
    }
}
