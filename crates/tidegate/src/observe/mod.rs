//! What the node tells its operator: log lines and figures. Neither ever holds a key, a body or a tenant.

pub mod figures;
pub mod http;

use crate::config::{LogFormat, LogSettings, WrongSetting};
use std::{
    io::{self, IsTerminal},
    panic,
};
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Starts logging to standard error. Called once.
///
/// # Errors
/// [`WrongSetting`] where the level is not one.
pub fn start_logging(settings: &LogSettings) -> Result<(), WrongSetting> {
    let filter = EnvFilter::try_new(&settings.level).map_err(|error| {
        WrongSetting(format!(
            "TIDEGATE_LOG_LEVEL is {:?}: {error}. It may be error, warn, info, debug or trace, or a filter such as info,gateway=debug",
            settings.level
        ))
    })?;
    let layer = match settings.format {
        LogFormat::Human => {
            fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false).boxed()
        }
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
    };
    // A second start, in a test that runs two nodes, keeps the first.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
    Ok(())
}

/// Logs panics like everything else, so that a log of JSON stays one.
pub fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let message = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        let location = panic.location().map(ToString::to_string);
        tracing::error!(panic = message.unwrap_or("?"), location, "a bug: a task panicked; please report it");
    }));
}
