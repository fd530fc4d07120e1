//! Logging to standard error, one line per event. Standard output stays free for what scripts read.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Other crates that log a line for every bad frame or alert that a stranger sends. They stay quiet
/// unless `log.level` names them.
const QUIET: [&str; 3] = ["h2", "rumqttd", "rustls"];

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object per line.
    Json,
}

/// The `[log]` table of a service's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug` or `trace`, or directives such as `info,chat_mqtt=debug`.
    pub level: String,
    /// The format of a line.
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
    /// `log.level` is neither a level nor a list of directives.
    #[error(
        "log.level {level:?} is not a log level: {reason}; use error, warn, info, debug or trace"
    )]
    Level {
        /// What was given.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Logging was already started in this process.
    #[error("logging was started twice")]
    Twice,
}

/// Starts logging to standard error. Once per process.
///
/// # Errors
/// [`TelemetryError`] for a level that cannot be read, or when called twice.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let filter = filter(&config.level)?;
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

fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let wrong = |error: tracing_subscriber::filter::ParseError| TelemetryError::Level {
        level: level.to_owned(),
        reason: error.to_string(),
    };
    let bare = level.split(',').map(str::trim);
    let mut bare = bare.filter(|it| !it.is_empty() && !it.contains(['=', '[']));
    // tracing would take it for the name of a crate, and log nothing else.
    if let Some(word) = bare.find(|it| it.parse::<LevelFilter>().is_err()) {
        return Err(TelemetryError::Level {
            level: level.to_owned(),
            reason: format!("there is no level {word:?}"),
        });
    }
    let filter = EnvFilter::builder().parse(level).map_err(wrong)?;
    let named = |part: &str| {
        let mut directives = level.split(',').map(str::trim);
        directives.any(|it| it.split(['=', '[']).next() == Some(part))
    };
    let mut quiet = QUIET.into_iter().filter(|part| !named(part));
    quiet.try_fold(filter, |filter, part| {
        let off = format!("{part}=off").parse().map_err(wrong)?;
        Ok(filter.add_directive(off))
    })
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use std::io;
    use std::sync::Arc;

    use tracing::{trace, warn};

    use super::*;

    /// The lines that are written at this level when h2 and others log.
    fn written(level: &str) -> String {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&lines);
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(level).unwrap())
            .with_writer(move || Lines(Arc::clone(&writer)))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            warn!(target: "h2::proto::ping_pong", "from h2");
            trace!(target: "h2::codec", "deep in h2");
            warn!(target: "rustls::msgs", "from rustls");
            warn!(target: "another", "from another");
            trace!(target: "chat_service", "from a service");
        });
        let bytes = lines.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_strangers_make_others_say_is_written_only_when_it_is_asked_for() {
        for level in ["info", "trace", "chat_service=trace,warn"] {
            let written = written(level);
            assert!(written.contains("from another"), "{level}: {written}");
            assert!(!written.contains("from h2"), "{level}: {written}");
            assert!(!written.contains("from rustls"), "{level}: {written}");
        }
        assert!(written("info,h2=warn").contains("from h2"));
        let inner = written("info,h2::codec=trace");
        assert!(inner.contains("deep in h2"), "{inner}");
        assert!(!inner.contains("from h2"), "{inner}");
    }

    #[test]
    fn unreadable_level_is_named() {
        let config = LogConfig {
            level: "chat=loudly".to_owned(),
            format: Format::Json,
        };
        let error = init(&config).unwrap_err().to_string();
        assert!(error.contains("chat=loudly"), "{error}");
    }

    #[test]
    fn a_misspelt_level_is_refused_and_not_taken_for_a_crate() {
        for wrong in ["warning", "verbose", "info,chat_mqtt", "h2"] {
            let refused = filter(wrong).unwrap_err().to_string();
            assert!(refused.contains("use error, warn, info"), "{refused}");
        }
        for right in [
            "",
            "warn",
            "INFO",
            "off",
            "info,chat_mqtt=debug",
            "warn,h2=info",
        ] {
            assert!(filter(right).is_ok(), "{right:?}");
        }
    }
}
