//! `tidegate demo`: everything in one process, with nothing else installed.

mod bakeries;
mod scene;
mod traffic;
mod upstream;
mod watch;

use crate::{
    catalog_file,
    cli::{DemoArgs, Example},
    config::{LedgerUrl, LogFormat, LogSettings, Settings},
    listen, observe, output,
    secret::Secret,
    wiring::Node,
};
use anyhow::Context;
use axum::body::Body;
use domain::{
    entry::Cause,
    id::{MeterKey, PlanKey, TenantId},
    op::{Charge, ProfileChange},
    time::DAY_MS,
};
use engine::{
    Engine, HistoryKept,
    ports::{ApiKey, KeyScope, Retention},
    requests::{Ack, Check},
};
use http::Request;
use hyper::body::Incoming;
use scene::{Places, Scene};
use std::{
    net::TcpListener,
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};
use tower::ServiceExt;
use wire::cors::CorsOrigins;
use workers::collect::Allowed;

/// The admin key of the demo. It guards nothing: all of it is gone when the demo ends.
const ADMIN_KEY: &str = "demo-key-of-the-admin";

/// Runs the demo until Ctrl-C.
///
/// # Errors
/// A sentence that says what stood in the way.
pub fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let log = LogSettings { format: LogFormat::Human, level: "warn".to_owned() };
    observe::start_logging(&log)?;
    let scene = scene::of(args.example);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let upstream = start_upstream().await?;
        let settings = settings(args, &upstream, log)?;
        let file = catalog_file::parse(scene.catalog.to_owned(), scene.catalog_name)?;
        let node = Node::start(settings, Some(file)).await?;
        if args.example == Example::Bakery {
            bakeries::remember(&node.engine).await?;
        }
        prepare(&node.engine, &scene).await?;
        let places = Places {
            gateway: node.gateway_url.clone().unwrap_or_default(),
            api: node.api_url.clone(),
            admin_key: ADMIN_KEY,
        };
        output::line(&scene.shown(&places))?;
        let tally = Arc::new(traffic::Tally::default());
        let mut background = Vec::new();
        if !args.quiet {
            let watched = scene.watched.map(|meter| watch::run(scene.actors, meter, node.engine.clone()));
            background.extend(watched.map(tokio::spawn));
            background.push(tokio::spawn(traffic::run(scene, places.gateway, tally.clone())));
        }
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        background.iter().for_each(tokio::task::JoinHandle::abort);
        node.stop().await?;
        let (passed, refused) = (tally.passed.load(Ordering::Relaxed), tally.refused.load(Ordering::Relaxed));
        output::line(&format!("\nStopped. The traffic in the background: {passed} passed, {refused} refused."))?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Starts the sample upstream on a free port; where it listens.
async fn start_upstream() -> anyhow::Result<String> {
    let (listener, address) = listen::bind("127.0.0.1:0", "the sample upstream").await?;
    let router = upstream::router();
    let handler = move |request: Request<Incoming>| {
        let answer = router.clone().oneshot(request.map(Body::new));
        async move { answer.await.unwrap_or_else(|never| match never {}) }
    };
    tokio::spawn(listen::serve(listener, handler, std::future::pending(), Duration::ZERO));
    Ok(format!("http://{address}"))
}

fn settings(args: &DemoArgs, upstream: &str, log: LogSettings) -> anyhow::Result<Settings> {
    Ok(Settings {
        catalog: "the demo has no catalog file".into(),
        gateway_listen: Some(free(&args.gateway_listen)),
        gateway_upstream: Some(upstream.parse().context("the sample upstream")?),
        api_listen: free(&args.api_listen),
        ledger: LedgerUrl::Memory,
        apply: false,
        admin_key: Some(Secret::new(ADMIN_KEY)),
        retention: Retention {
            dedupe_ms: 35 * DAY_MS,
            journal_ms: 400 * DAY_MS,
            denials_ms: 90 * DAY_MS,
            history_ms: 400 * DAY_MS,
        },
        history_kept: HistoryKept::default(),
        spool: None,
        outage_after_ms: 1000,
        drain_ms: 2000,
        log,
        test_clock: false,
        metrics_open: true,
        cors_origins: CorsOrigins::default(),
        sources: Allowed::default(),
    })
}

/// The address, or a free port of this machine if it is taken.
fn free(address: &str) -> String {
    match TcpListener::bind(address) {
        Ok(_) => address.to_owned(),
        Err(_) => "127.0.0.1:0".to_owned(),
    }
}

/// Tenants, their keys, and what they used before the curtain rises.
async fn prepare(engine: &Arc<Engine>, scene: &Scene) -> anyhow::Result<()> {
    for actor in scene.actors {
        let tenant = TenantId::new(actor.tenant)?;
        let change = ProfileChange { plan: Some(PlanKey::new(actor.plan)?), ..ProfileChange::default() };
        engine.put_tenant(&tenant, &change, "demo").await?;
        engine
            .create_key(ApiKey {
                id: format!("key_demo_{}", actor.tenant).into(),
                hash: api::secrets::key_hash(&actor.key()),
                name: actor.about.into(),
                scope: KeyScope::Tenant(tenant.clone()),
                created_at: engine.now(),
                created_by: "demo".into(),
                revoked_at: None,
            })
            .await?;
        let charges =
            actor.used.iter().map(|(meter, amount)| Ok(Charge { meter: MeterKey::new(meter)?, amount: *amount }));
        let charges = charges.collect::<anyhow::Result<Vec<_>>>()?;
        if charges.is_empty() {
            continue;
        }
        let check = Check {
            tenant,
            user: None,
            charges,
            features: Vec::new(),
            consume: true,
            enforce: None,
            dimensions: Vec::new(),
            id: None,
            cause: Cause::Check,
            hold: None,
            sent: None,
        };
        engine.admit(&check, Ack::Memory).await?;
    }
    Ok(())
}
