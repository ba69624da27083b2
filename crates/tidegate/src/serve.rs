//! `tidegate serve`: a node, from its first line to its last.

use crate::{
    catalog_file,
    cli::ServeArgs,
    config::{self, Settings},
    observe, output,
    wiring::Node,
};
use anyhow::Context;
use std::process::ExitCode;
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};

/// Runs a node until it is told to stop.
///
/// # Errors
/// A sentence that says what stood in the way.
pub fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::of(args)?;
    if args.print_settings {
        output::line(settings.shown().trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    observe::start_logging(&settings.log)?;
    observe::log_panics();
    for variable in config::unknown_variables() {
        tracing::warn!("{variable} is set, but there is no such setting; see docs/operations.md");
    }
    // With many nodes the catalog is in the ledger, and a node needs no file.
    let needs_none = settings.ledger.is_shared() && !settings.apply && !settings.catalog.exists();
    let file = if needs_none { None } else { Some(catalog_file::read(&settings.catalog)?) };
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().context("no runtime could be started")?;
    runtime.block_on(async {
        // Before anybody is told that the node is there: a signal that came first would end it where it stands.
        let mut signals = Signals::heard()?;
        let node = Node::start(settings, file).await?;
        output::line(&node.ready_line())?;
        tracing::info!(gateway = node.gateway_url, api = node.api_url, "ready");
        until_told_to_stop(&mut signals, &node).await;
        tracing::info!("stopping: no new connections; requests in flight may end");
        tokio::select! {
            stopped = node.stop() => stopped?,
            _ = signals.interrupt.recv() => {
                tracing::warn!("stopped at once; what was acknowledged is on disk");
                return Ok(ExitCode::FAILURE);
            }
        }
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    })
}

/// The signals a node listens to, from the moment this is made.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn heard() -> anyhow::Result<Self> {
        let heard = |kind| signal(kind).context("no signal handler could be set");
        Ok(Self {
            hangup: heard(SignalKind::hangup())?,
            terminate: heard(SignalKind::terminate())?,
            interrupt: heard(SignalKind::interrupt())?,
        })
    }
}

/// Reads the catalog again on SIGHUP; ends on SIGTERM and Ctrl-C.
async fn until_told_to_stop(signals: &mut Signals, node: &Node) {
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => node.reload().await,
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
        }
    }
}
