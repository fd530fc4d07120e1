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
    /// Make a channel: print a new name, and the lines by which to try it.
    ///
    /// The name alone goes to standard output. No server is asked: a channel exists as soon as somebody uses it.
    New(New),
    /// Post a text to a channel and print the stored event.
    Post(Post),
    /// Print the events of a channel, one a line, for ever.
    Listen(Listen),
    /// Ask /healthz; the exit status says what it answers.
    Health(Health),
    /// Look at a deployment from outside, as a browser does, and say what to do.
    ///
    /// Posts four messages to a channel that nobody knows. Ends with 1 if something does not work.
    Doctor(Doctor),
    /// Give every log of a store that was put back from a copy a new epoch.
    ///
    /// Do it before the service starts: what was posted after the copy was made is lost, and its
    /// numbers will be used again. A PostgreSQL database that was restored from its own backup, or
    /// whose replica took over, needs it not: chat-service finds out by itself.
    NewEpoch(NewEpoch),
    /// Copy all messages of a data folder into one file, while its service goes on.
    ///
    /// A PostgreSQL database has tools of its own for that (docs/operations.md).
    Backup(Backup),
    /// Make a data folder of a copy that `hark backup` made.
    ///
    /// Every log gets a new epoch, by which listeners are told what is gone: what was posted after
    /// the copy was made.
    Restore(Restore),
    /// Read the whole store of a data folder, and name what is damaged.
    ///
    /// Services may be using it. Ends with 1 if anything is.
    Check(Check),
    /// Bring the database to the format of this program, before its chat-services start.
    ///
    /// They do it themselves unless store.postgres.migrate is false.
    Migrate(Migrate),
}

#[derive(Args)]
pub(crate) struct Up {
    /// Where messages are stored [default: ./hark-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where messages are posted [default: 127.0.0.1:8080]; port 0 takes any free one
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
    /// Let web pages of this origin post and listen, such as https://www.example.org; may be given several
    /// times. Pages of this machine may do so anyway; `*` lets every page.
    #[arg(long, value_name = "ORIGIN", value_parser = access::parse_origin)]
    pub(crate) allow_origin: Vec<String>,
    /// Configuration file (TOML); HARK_… environment variables and these options come after it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the configuration that would be used, and end.
    #[arg(long)]
    pub(crate) print_config: bool,
}

#[derive(Args)]
pub(crate) struct New {
    /// The URL of chat-service, for the lines.
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
    /// What to say; `-` for what comes on standard input, without the line break at its end.
    pub(crate) text: String,
    /// The name to say it under.
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
    /// Begin with the newest so many.
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
    /// The URL of chat-service as browsers know it; user:password@ in it for a proxy that asks for them.
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
    /// Only keep a stream open for so many seconds, while you restart things, and say what a browser would
    /// have given up on.
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
