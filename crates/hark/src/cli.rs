use std::net::SocketAddr;
use std::path::PathBuf;

use chat_model::{ChannelId, Cursor};
use clap::{Args, Parser, Subcommand};
use http_server::access;
use service_kit::config::listen;

/// Self-hosted chat and live events: curl in, EventSource out, MQTT in between.
///
/// Without a command: `up`.
#[derive(Parser)]
#[command(
    name = "hark",
    version,
    args_conflicts_with_subcommands = true,
    after_help = EXAMPLES
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) up: Up,
}

const EXAMPLES: &str = "\
Examples:
  hark                        start everything, for this machine only
  hark new                    make a channel, and see the lines to try it with
  hark listen CHANNEL         print what is posted there
  hark post CHANNEL hello     post to it; `-` posts what comes on standard input";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start the broker, chat-service, broadcast-sse and the demo page in this process.
    Up(Up),
    /// Make a channel: print a new name, and commands to try it.
    ///
    /// Only the name goes to standard output. No server is contacted: a channel exists as soon as somebody uses it.
    New(New),
    /// Post a text to a channel and print the stored event.
    Post(Post),
    /// Print the events of a channel, one per line, until stopped.
    Listen(Listen),
    /// Query /healthz; the exit status is its answer.
    Health(Health),
    /// Check a deployment from outside, as a browser sees it, and say what to do.
    ///
    /// Posts four messages to a channel that nobody else knows. Exits with 1 if something does not work.
    Doctor(Doctor),
    /// Give every log of a store that was restored from a copy a new epoch.
    ///
    /// Run this before the service starts: messages posted after the copy was made are lost, and
    /// their numbers will be used again. A PostgreSQL database that was restored from its own backup,
    /// or whose replica took over, does not need it: chat-service notices by itself.
    NewEpoch(NewEpoch),
    /// Copy all messages of a data folder into one file, while its service keeps running.
    ///
    /// For a PostgreSQL database, use its own tools (docs/operations.md).
    Backup(Backup),
    /// Make a data folder from a copy that `hark backup` made.
    ///
    /// Every log gets a new epoch, which tells listeners that messages posted after the copy was made
    /// are gone.
    Restore(Restore),
    /// Read the whole store of a data folder and list what is damaged.
    ///
    /// Services may be using it. Exits with 1 if anything is damaged.
    Check(Check),
    /// Migrate the database to this program's format, before its chat-services start.
    ///
    /// chat-service does this itself unless store.postgres.migrate is false.
    Migrate(Migrate),
}

#[derive(Args)]
pub(crate) struct Up {
    /// Where messages are stored [default: ./hark-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where messages are posted [default: 127.0.0.1:8080]; port 0 means any free port
    #[arg(long, value_name = "ADDR", value_parser = listen::parse)]
    pub(crate) chat: Option<SocketAddr>,
    /// Where streams are served [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR", value_parser = listen::parse)]
    pub(crate) sse: Option<SocketAddr>,
    /// Where the demo page is [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR", value_parser = listen::parse)]
    pub(crate) demo: Option<SocketAddr>,
    /// Where MQTT clients connect [default: 127.0.0.1:1883]
    #[arg(long, value_name = "ADDR", value_parser = listen::parse)]
    pub(crate) mqtt: Option<SocketAddr>,
    /// Where /healthz, /readyz and /metrics are [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR", value_parser = listen::parse)]
    pub(crate) ops: Option<SocketAddr>,
    /// Let web pages of this origin, such as https://www.example.org, post and listen; may be given several
    /// times. Pages of this machine always may; `*` allows every page.
    #[arg(long, value_name = "ORIGIN", value_parser = access::parse_origin)]
    pub(crate) allow_origin: Vec<String>,
    /// Configuration file (TOML); HARK_… environment variables and these options override it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the configuration that would be used, and exit.
    #[arg(long)]
    pub(crate) print_config: bool,
}

#[derive(Args)]
pub(crate) struct New {
    /// The URL of chat-service, for the commands.
    #[arg(long, value_name = "URL", default_value = "http://localhost:8080")]
    pub(crate) chat: String,
    /// The URL of broadcast-sse.
    #[arg(long, value_name = "URL", default_value = "http://localhost:8081")]
    pub(crate) sse: String,
    /// The URL of the page.
    #[arg(long, value_name = "URL", default_value = "http://localhost:8000")]
    pub(crate) demo: String,
}

#[derive(Args)]
pub(crate) struct Post {
    /// The channel, a UUID (`hark new` makes one).
    #[arg(value_parser = channel)]
    pub(crate) channel: ChannelId,
    /// The text to post; `-` reads it from standard input, without the line break at its end.
    pub(crate) text: String,
    /// The sender's name.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The URL of chat-service.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) chat: String,
    /// For an https:// URL: the authorities to trust (PEM), instead of those of the system.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Listen {
    /// The channel, a UUID (`hark new` makes one).
    #[arg(value_parser = channel)]
    pub(crate) channel: ChannelId,
    /// Begin after this cursor, the `id:` of an event.
    #[arg(long, conflicts_with = "last", value_parser = cursor)]
    pub(crate) since: Option<String>,
    /// Begin with this many of the newest events.
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=1_000))]
    pub(crate) last: Option<u64>,
    /// The URL of broadcast-sse.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub(crate) sse: String,
    /// For an https:// URL: the authorities to trust (PEM), instead of those of the system.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Health {
    /// The URL of the operations listener.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    pub(crate) ops: String,
}

#[derive(Args)]
pub(crate) struct Doctor {
    /// The URL of chat-service as browsers know it; may contain user:password@ for a proxy that asks for them.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) chat: String,
    /// The URL of broadcast-sse as browsers know it.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub(crate) sse: String,
    /// An origin whose pages should be able to post and listen, such as https://chat.example.
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) origin: Option<String>,
    /// The URL of an operations listener, to look at readiness and limits; may be given several times.
    #[arg(long, value_name = "URL")]
    pub(crate) ops: Vec<String>,
    /// Only keep a stream open for this many seconds while you restart things, and report what would have
    /// made a browser give up.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) watch: Option<u64>,
    /// For https:// URLs: the authorities to trust (PEM), instead of those of the system.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct NewEpoch {
    /// The data folder, which no service may be using.
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    pub(crate) data: Option<PathBuf>,
    /// The configuration file of a chat-service, which says where its store is; the HARK_…
    /// environment variables of that service come after it.
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Backup {
    /// The data folder.
    #[arg(long, value_name = "DIR", default_value = "./hark-data")]
    pub(crate) data: PathBuf,
    /// The copy, a new file.
    pub(crate) file: PathBuf,
}

#[derive(Args)]
pub(crate) struct Restore {
    /// The data folder, which must not hold a store: move an old one away first.
    #[arg(long, value_name = "DIR", default_value = "./hark-data")]
    pub(crate) data: PathBuf,
    /// The copy.
    pub(crate) file: PathBuf,
}

#[derive(Args)]
pub(crate) struct Check {
    /// The data folder.
    #[arg(long, value_name = "DIR", default_value = "./hark-data")]
    pub(crate) data: PathBuf,
}

#[derive(Args)]
pub(crate) struct Migrate {
    /// The configuration file of a chat-service, which says where its store is; the HARK_…
    /// environment variables of that service come after it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

fn channel(text: &str) -> Result<ChannelId, String> {
    text.parse()
        .map_err(|error| format!("{error}; `hark new` makes one"))
}

fn cursor(text: &str) -> Result<String, chat_model::CursorError> {
    Cursor::parse(text).map(|_| text.to_owned())
}
