use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http_server::access::AccessConfig;
use serde::{Deserialize, Serialize};
use service_kit::config::{self, ConfigError, listen};
use service_kit::telemetry::LogConfig;
use service_kit::tls::TlsConfig;
use toml::{Table, Value};

use crate::cli::Up;

mod named;

pub(crate) use named::as_here;

/// All settings of `hark up`: its own, and a table for each service.
#[derive(Serialize)]
pub(crate) struct Config {
    pub(crate) data: PathBuf,
    pub(crate) demo: DemoConfig,
    pub(crate) operations: OperationsConfig,
    pub(crate) tls: TlsConfig,
    pub(crate) access: AccessConfig,
    pub(crate) log: LogConfig,
    pub(crate) broker: broker::BrokerConfig,
    pub(crate) chat_service: chat_service::Config,
    pub(crate) broadcast_sse: broadcast_sse::Config,
}

/// The demo page.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DemoConfig {
    #[serde(with = "listen")]
    pub(crate) listen: SocketAddr,
    pub(crate) chat_url: String,
    pub(crate) sse_url: String,
}

/// The operators' listener, which all services share.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperationsConfig {
    #[serde(with = "listen")]
    pub(crate) listen: SocketAddr,
}

/// Settings that `hark` makes for all its services, so that they are not settings of each service here:
/// the operators' listener, the log, the certificate, and which pages and hosts may use them. They have
/// the same names as in a service that runs alone.
const SHARED: [&str; 4] = ["operations", "log", "tls", "access"];

impl Config {
    /// The settings in layers: the built-in defaults, a file, the environment, the command line.
    pub(crate) fn load(
        options: &Up,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let defaults = defaults()?.to_string();
        let mut table =
            config::load_table(&defaults, options.config.as_deref(), "HARK_", environment)?;
        let_in(&mut table, &options.allow_origin);
        let [mut broker, mut chat_service, mut broadcast_sse] =
            ["broker", "chat_service", "broadcast_sse"].map(|name| take(&mut table, name));
        for shared in SHARED {
            for service in [&mut chat_service, &mut broadcast_sse] {
                service.insert(shared.to_owned(), table[shared].clone());
            }
        }
        let data = match options.data.as_deref().map(Path::to_str) {
            Some(Some(data)) => Value::from(data),
            Some(None) => return Err(ConfigError::invalid("data", "must be UTF-8")),
            None => table["data"].clone(),
        };
        table_in(&mut chat_service, "store").insert("dir".to_owned(), data.clone());
        let history = texts([
            ("url", "http://127.0.0.1:8080"),
            ("ca_file", ""),
            ("cert", ""),
            ("key", ""),
        ]);
        broadcast_sse.insert("history".to_owned(), history);
        set(&mut chat_service, "listen", options.chat);
        set(&mut broadcast_sse, "listen", options.sse);
        set(&mut broker, "listen", options.mqtt);
        if options.mqtt.is_some() {
            // An address given on the command line is meant to be used.
            broker.insert("open".to_owned(), Value::Boolean(true));
        }
        set(table_in(&mut table, "demo"), "listen", options.demo);
        set(table_in(&mut table, "operations"), "listen", options.ops);
        let config = Self {
            // Anything but text is refused below, as `chat_service.store.dir`.
            data: PathBuf::from(data.as_str().unwrap_or_default()),
            demo: config::parse(take(&mut table, "demo"))?,
            operations: config::parse(take(&mut table, "operations"))?,
            tls: config::parse(take(&mut table, "tls"))?,
            access: config::parse(take(&mut table, "access"))?,
            log: config::parse(take(&mut table, "log"))?,
            broker: within("broker", config::parse(broker))?,
            chat_service: within("chat_service", config::parse(chat_service))?,
            broadcast_sse: within("broadcast_sse", config::parse(broadcast_sse))?,
        };
        within("chat_service", config.chat_service.validate())?;
        within("broadcast_sse", config.broadcast_sse.validate())?;
        if config.chat_service.mqtt.topic_prefix != config.broadcast_sse.mqtt.topic_prefix {
            let why = "must be the same as broadcast_sse.mqtt.topic_prefix";
            return Err(ConfigError::invalid("chat_service.mqtt.topic_prefix", why));
        }
        Ok(config)
    }
}

/// The defaults of `hark` and its services in one table.
fn defaults() -> Result<Table, ConfigError> {
    let read = |text: &str| config::load_table(text, None, "HARK_", []);
    let mut table = read(include_str!("../config.default.toml"))?;
    let services = [
        ("broker", broker::Config::DEFAULTS.to_owned()),
        ("chat_service", chat_service::default_toml()),
        ("broadcast_sse", broadcast_sse::Config::defaults()),
    ];
    for (name, text) in services {
        let mut service = read(&text)?;
        for shared in SHARED {
            service.remove(shared);
        }
        table.insert(name.to_owned(), Value::Table(service));
    }
    // The addresses at which the parts find each other are set later, when their ports are known.
    table_in(table_in(&mut table, "chat_service"), "store").remove("dir");
    for service in ["chat_service", "broadcast_sse"] {
        table_in(table_in(&mut table, service), "mqtt").remove("url");
    }
    table_in(&mut table, "broadcast_sse").remove("history");
    Ok(table)
}

/// Adds the origins from the command line to those that are already allowed.
fn let_in(table: &mut Table, origins: &[String]) {
    if let Value::Array(allowed) = &mut table_in(table, "access")["allowed_origins"] {
        allowed.extend(origins.iter().map(|origin| Value::from(origin.as_str())));
    }
}

fn texts<const N: usize>(pairs: [(&str, &str); N]) -> Value {
    let pairs = pairs.map(|(key, text)| (key.to_owned(), Value::from(text)));
    Value::Table(Table::from_iter(pairs))
}

fn set(table: &mut Table, key: &str, address: Option<SocketAddr>) {
    if let Some(address) = address {
        table.insert(key.to_owned(), Value::String(address.to_string()));
    }
}

fn take(table: &mut Table, name: &str) -> Table {
    std::mem::take(table_in(table, name))
}

fn table_in<'a>(table: &'a mut Table, name: &str) -> &'a mut Table {
    match &mut table[name] {
        Value::Table(inner) => inner,
        _ => unreachable!("the defaults have a table here, and layers keep the types"),
    }
}

/// Rewrites an error to use the names that a service's settings have here.
fn within<T>(service: &str, result: Result<T, ConfigError>) -> Result<T, ConfigError> {
    result.map_err(|error| named::refusal(service, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn load(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let arguments = ["hark"].iter().chain(arguments);
        let options = crate::cli::Arguments::try_parse_from(arguments).unwrap().up;
        let environment = environment
            .iter()
            .map(|&(k, v)| (k.to_owned(), v.to_owned()));
        Config::load(&options, environment)
    }

    #[test]
    fn the_command_line_beats_the_environment() {
        let environment = [
            ("HARK_CHAT_SERVICE__LISTEN", "127.0.0.1:1"),
            ("HARK_BROADCAST_SSE__HUB__PING", "5s"),
            ("HARK_DATA", "elsewhere"),
        ];
        let config = load(
            &["--chat", "127.0.0.1:2", "--ops", "127.0.0.1:3"],
            &environment,
        )
        .unwrap();
        assert_eq!(config.chat_service.listen.port(), 2);
        assert_eq!(config.operations.listen.port(), 3);
        assert_eq!(config.broadcast_sse.hub.ping.as_secs(), 5);
        assert_eq!(config.chat_service.store.dir, PathBuf::from("elsewhere"));
    }

    #[test]
    fn a_mistake_is_named() {
        let unknown = load(&[], &[("HARK_CHAT_SERVICE__LIMIT", "1")])
            .err()
            .unwrap();
        assert!(
            unknown.to_string().contains("chat_service.limit"),
            "{unknown}"
        );
        let wrong = load(&[], &[("HARK_CHAT_SERVICE__LIMITS__MESSAGE", "1")])
            .err()
            .unwrap();
        assert!(
            wrong.to_string().contains("`chat_service.limits.message`"),
            "{wrong}"
        );
    }

    #[test]
    fn a_key_that_hark_does_not_have_is_answered_with_the_one_that_was_meant() {
        for (variable, meant) in [
            (
                "HARK_CHAT_SERVICE__ACCESS__ALLOWED_ORIGINS",
                "HARK_ACCESS__ALLOWED_ORIGINS",
            ),
            ("HARK_LIMITS__MESSAGE", "HARK_CHAT_SERVICE__LIMITS__MESSAGE"),
            ("HARK_DEMO__LISTN", "HARK_DEMO__LISTEN"),
        ] {
            let unknown = load(&[], &[(variable, "x")]).err().unwrap().to_string();
            let question = format!("did you mean {meant}?");
            assert!(unknown.contains(&question), "{unknown}");
        }
    }

    #[test]
    fn who_may_use_the_services_is_said_once_for_both() {
        let environment = [("HARK_ACCESS__ALLOWED_ORIGINS", "https://a.example")];
        let more = ["--allow-origin", "https://b.example", "--allow-origin", "*"];
        let config = load(&more, &environment).unwrap();
        let origins = ["https://a.example", "https://b.example", "*"];
        assert_eq!(config.access.allowed_origins, origins);
        assert_eq!(config.chat_service.access, config.access);
        assert_eq!(config.broadcast_sse.access, config.access);
    }

    #[test]
    fn localhost_is_an_address_and_a_port_alone_gets_an_example() {
        let config = load(&["--chat", "localhost:1"], &[]).unwrap();
        assert_eq!(config.chat_service.listen.to_string(), "127.0.0.1:1");
        let config = load(&[], &[("HARK_DEMO__LISTEN", "localhost:2")]).unwrap();
        assert_eq!(config.demo.listen.to_string(), "127.0.0.1:2");
        for name in ["HARK_CHAT_SERVICE__LISTEN", "HARK_OPERATIONS__LISTEN"] {
            let refused = load(&[], &[(name, ":3")]).err().unwrap().to_string();
            assert!(refused.contains("127.0.0.1:3"), "{refused}");
        }
    }
}
