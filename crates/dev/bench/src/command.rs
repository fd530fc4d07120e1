use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::compare::Comparison;
use crate::load::{Begin, Pace, Target};
use crate::peers::{Programs, Running, hark_dialect};
use crate::record::{LoadRecord, Record, Row};
use crate::report;
use crate::scenario::{Kind, Scenario};
use crate::{baseline, feed, floor, scaling};

/// `--quick` ends within three minutes.
const QUICK: Duration = Duration::from_secs(170);
/// A full run ends within 35 minutes: five rounds, on the two processors that it was made for.
const FULL: Duration = Duration::from_secs(34 * 60);

/// Measure Hark and other servers under the same load.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start every server that is installed, in turn, put the same load on each, and print tables.
    Compare(Compare),
    /// Write docs/benchmarks.md, its pictures and the README's figures from saved readings.
    Render(Render),
    /// Put a load on a Hark that runs already.
    Load(LoadOptions),
    /// Start many nodes on one PostgreSQL and a cluster of RabbitMQ, and print what a post, an event,
    /// a stream and a channel cost each part.
    Scaling(ScalingOptions),
    /// Serve as the floor: what the machine allows.
    Floor,
    /// Serve events without end, to see how many the load generator can check.
    Feed,
    /// Serve as the baseline: axum's `Sse` over tokio's `broadcast`.
    Axum,
}

#[derive(Args)]
struct Compare {
    /// Shorter windows and fewer loads: under three minutes.
    #[arg(long)]
    quick: bool,
    /// How often every server has its turn [default: 5, with --quick 3]
    #[arg(long)]
    rounds: Option<usize>,
    /// Where a server's program is, e.g. centrifugo=/opt/centrifugo
    #[arg(long = "peer", value_name = "NAME=PATH", value_parser = given)]
    peers: Vec<(String, PathBuf)>,
    /// Only these servers: floor, hark, hark-mosquitto, axum, nchan, centrifugo, mercure, mercure-bolt, ntfy, ntfy-sqlite
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only the load of this id, or loads with this in their name.
    #[arg(long, value_name = "PART")]
    scenario: Vec<String>,
    /// The processor that servers are pinned to.
    #[arg(long, default_value_t = 0)]
    server_processor: usize,
    /// The processor that the load generator is pinned to.
    #[arg(long, default_value_t = 1)]
    load_processor: usize,
    /// Where all readings are saved after each round, for --render [default: target/bench/full.json,
    /// or target/bench/part.json of a run with --quick, --only or --scenario]
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

#[derive(Args)]
struct Render {
    /// What runs saved. Of a load that several hold, the last is taken.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The project's folder.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    into: PathBuf,
    /// Only print the tables.
    #[arg(long)]
    print: bool,
}

#[derive(Args)]
struct LoadOptions {
    /// Where chat-service listens.
    #[arg(long, default_value = "127.0.0.1:8080")]
    chat: SocketAddr,
    /// Where broadcast-sse listens.
    #[arg(long, default_value = "127.0.0.1:8081")]
    sse: SocketAddr,
    #[arg(long, default_value_t = 100)]
    streams: usize,
    #[arg(long, default_value_t = 1)]
    channels: usize,
    #[arg(long, default_value_t = 4)]
    publishers: usize,
    /// Posts a second, all publishers together; without it, as many as are answered.
    #[arg(long)]
    rate: Option<f64>,
    /// Bytes of a message.
    #[arg(long, default_value_t = 100)]
    payload: usize,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Let the streams begin with the newest so many messages of their channel, which are
    /// published before: the load of a crowd that comes back.
    #[arg(long, value_name = "COUNT")]
    newest: Option<u32>,
    /// Distinguishes the channels of several runs.
    #[arg(long, default_value_t = std::process::id() & 0xff_ffff)]
    run: u32,
}

#[derive(Args)]
struct ScalingOptions {
    /// How long each load lasts.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Streams of the loads with many of them.
    #[arg(long, default_value_t = 6_000)]
    streams: usize,
}

/// Runs the command that the process's arguments ask for.
///
/// # Errors
/// When a server cannot be started or the load cannot be put on it; the text says why.
pub fn run() -> io::Result<()> {
    let arguments = Arguments::parse();
    http_server::http::raise_file_limit()?;
    match arguments.command {
        Command::Compare(options) => compare(options),
        Command::Render(options) => render(&options),
        Command::Load(options) => load(&options),
        Command::Scaling(options) => {
            scaling::run(Duration::from_secs(options.seconds), options.streams)
        }
        Command::Floor => floor::serve(),
        Command::Feed => feed::serve(),
        Command::Axum => baseline::serve(),
    }
}

fn given(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("NAME=PATH is expected")?;
    Ok((name.to_owned(), PathBuf::from(path)))
}

/// A run of everything also writes the report that is kept.
fn compare(options: Compare) -> io::Result<()> {
    let own = std::env::current_exe()?;
    let own = own.parent().map(PathBuf::from).unwrap_or_default();
    let is_full = !options.quick && options.only.is_empty() && options.scenario.is_empty();
    let save = options.save.unwrap_or_else(|| {
        let name = if is_full { "full" } else { "part" };
        format!("target/bench/{name}.json").into()
    });
    let comparison = Comparison {
        programs: Programs {
            given: options.peers.into_iter().collect(),
            own,
        },
        quick: options.quick,
        rounds: options.rounds.unwrap_or(if options.quick { 3 } else { 5 }),
        limit: if options.quick { QUICK } else { FULL },
        only: options.only,
        scenarios: options.scenario,
        server_processor: options.server_processor,
        load_processor: options.load_processor,
    };
    let record = comparison.run(repeated(std::env::args().skip(2)), |record| {
        record.write(&save)
    })?;
    println!("{}", report::text(&record));
    eprintln!("saved in {}", save.display());
    if is_full {
        report::publish(&record, Path::new("."))?;
    }
    Ok(())
}

/// The command with which anyone repeats the run: programs lie elsewhere on another machine.
fn repeated(mut arguments: impl Iterator<Item = String>) -> String {
    let mut words = vec!["cargo xtask bench".to_owned()];
    while let Some(argument) = arguments.next() {
        if argument == "--save" {
            arguments.next();
        } else if let Some((name, path)) = argument.split_once("=/") {
            let program = path.rsplit('/').next().unwrap_or_default();
            words.push(format!("{name}=/path/to/{program}"));
        } else if argument.contains(char::is_whitespace) {
            words.push(format!("'{argument}'"));
        } else {
            words.push(argument);
        }
    }
    words.join(" ")
}

fn render(options: &Render) -> io::Result<()> {
    let mut files = options.files.iter();
    let mut record = files.next().map_or_else(
        || Err(io::Error::other("a file is needed")),
        |file| Record::read(file),
    )?;
    for file in files {
        record.extend(Record::read(file)?)?;
    }
    if options.print {
        println!("{}", report::text(&record));
        return Ok(());
    }
    report::publish(&record, &options.into)
}

fn load(options: &LoadOptions) -> io::Result<()> {
    let pace = options.rate.map_or(Pace::ClosedLoop, Pace::PerSecond);
    let scenario = Scenario {
        id: "load",
        name: format!(
            "{} streams of {} channels, {} publishers",
            options.streams, options.channels, options.publishers
        ),
        streams: options.streams,
        channels: options.channels,
        publishers: options.publishers,
        kind: Kind::Flow(pace),
        payload: options.payload,
        window: Duration::from_secs(options.seconds),
        begin: options.newest.map_or(Begin::Live, Begin::Newest),
        servers: &[],
        once: false,
        quick: false,
    };
    let running = Running {
        servers: Vec::new(),
        target: Target {
            listen: options.sse,
            publish: options.chat,
            dialect: hark_dialect(),
        },
        node: None,
    };
    let reading = scenario.run(&running, options.run)?;
    let load = reading.load;
    let row = Row {
        readings: vec![reading],
        ..Row::of("hark")
    };
    let record = LoadRecord {
        rows: vec![row],
        ..LoadRecord::of(&scenario)
    };
    println!("{}", report::table(&record));
    println!(
        "The load generator worked {:.0} % of the time and waited {:.0} % for its processor.",
        load.working * 100.0,
        load.waiting * 100.0
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_that_is_told_holds_no_path_of_this_machine() {
        let arguments = [
            "--peer",
            "ntfy=/my/own/ntfy",
            "--save",
            "/tmp/a.json",
            "--rounds",
            "7",
        ];
        let command = repeated(arguments.into_iter().map(str::to_owned));
        let expected = "cargo xtask bench --peer ntfy=/path/to/ntfy --rounds 7";
        assert_eq!(command, expected);
    }
}
