//! Logs: one line each on standard error, so that standard output stays free for what scripts read.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// The `[log]` table of a service's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug` or `trace`, or directives such as `info,chat_mqtt=debug`.
    pub level: String,
    /// How a line looks.
    pub format: Format,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: Format::Text,
        }
    }
}

/// Why logging could not start.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// `log.level` is not a level nor a list of directives.
    #[error(
        "log.level {level:?} is not a log level: {reason}; use error, warn, info, debug or trace"
    )]
    Level {
        /// What was given.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// This process already logs.
    #[error("logging was started twice")]
    Twice,
}

/// Starts logging to standard error. Once per process.
///
/// # Errors
/// [`TelemetryError`] for a level that cannot be read, or when called twice.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let filter =
        EnvFilter::builder()
            .parse(&config.level)
            .map_err(|error| TelemetryError::Level {
                level: config.level.clone(),
                reason: error.to_string(),
            })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match config.format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|_already| TelemetryError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_level_is_named() {
        let config = LogConfig {
            level: "chat=loudly".to_owned(),
            format: Format::Json,
        };
        let error = init(&config).unwrap_err().to_string();
        assert!(error.contains("chat=loudly"), "{error}");
    }
}
