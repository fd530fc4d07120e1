//! Several nodes of everything on one machine, to play with: `cargo xtask cluster`.
//!
//! It prints where everything is and with which process id, and starts again
//! what somebody has killed. Ctrl-C ends it, and with it everything.

use std::process::ExitCode;
use std::time::Duration;

use system_tests::{Cluster, Node, Size, new_channel};
use tokio::time::sleep;

const USAGE: &str = "\
usage: cargo xtask cluster [--release] [--chat N] [--sse N] [--broker N]

Starts PostgreSQL, RabbitMQ (3 nodes; with 1 it is mosquitto), chat-service (2) and broadcast-sse (3)
behind nginx, on free ports of 127.0.0.1, says where they are and what to try, and ends them at Ctrl-C. Nothing is kept.";

/// How long a node that was killed stays away.
const AWAY: Duration = Duration::from_secs(10);
/// Between two looks at whether all are there.
const LOOK: Duration = Duration::from_millis(250);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(size) = size(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    let run = async {
        println!("starting …");
        let mut cluster = Cluster::start(size).await;
        introduce(&cluster);
        watch(&mut cluster).await;
    };
    // Whatever was started ends as it is dropped.
    tokio::select! {
        () = run => {}
        _ = tokio::signal::ctrl_c() => println!("\nending everything"),
    }
    ExitCode::SUCCESS
}

fn size(mut arguments: &[String]) -> Option<Size> {
    let mut size = Size {
        broker_nodes: 3,
        ..Size::default()
    };
    while let [option, value, rest @ ..] = arguments {
        let count = value.parse().ok().filter(|count| (1..=9).contains(count))?;
        match option.as_str() {
            "--chat" => size.chat = count,
            "--sse" => size.sse = count,
            "--broker" => size.broker_nodes = count,
            _ => return None,
        }
        arguments = rest;
    }
    arguments.is_empty().then_some(size)
}

fn introduce(cluster: &Cluster) {
    let line = |name: String, url: String, pid: u32, more: String| {
        println!("  {name:16} {url:30} pid {pid:<8} {more}");
    };
    let store = &cluster.store;
    println!();
    let nginx = &cluster.front;
    let page = format!("http://{}/", nginx.address());
    let pid = nginx.process().pid();
    line("nginx".to_owned(), page, pid, "the page".to_owned());
    for (name, nodes) in [
        ("chat-service", &cluster.chat),
        ("broadcast-sse", &cluster.sse),
    ] {
        for (number, node) in nodes.iter().enumerate() {
            let metrics = format!("{}/metrics", node.operations_url());
            line(
                format!("{name} {number}"),
                node.url(),
                node.process().pid(),
                metrics,
            );
        }
    }
    line(
        "PostgreSQL".to_owned(),
        store.address().to_string(),
        store.pid(),
        store.url("hark"),
    );
    let broker = &cluster.broker;
    for (number, (address, pid)) in broker
        .addresses()
        .into_iter()
        .zip(broker.pids())
        .enumerate()
    {
        let url = format!("mqtt://{address}");
        line(format!("broker {number}"), url, pid, String::new());
    }
    let (front, channel) = (nginx.address(), new_channel());
    println!(
        "
Listen, and post:
  curl -N 'http://{front}/events?c={channel}'
  curl -d hello http://{front}/channels/{channel}/messages

Kill any of them (kill -9 PID), and watch both curls, or two windows with the page: a stream that ends
comes back on another node and continues where it was. What was killed is started again after {AWAY:?}.
Stop one for a while (kill -STOP PID, kill -CONT PID): a chat-service that sleeps longer than ten
seconds has what it had not published taken over by the other.

Watch:
  curl -s {}/readyz
  curl -s {}/metrics | grep -E 'streams|healed|gaps'
  curl -s {}/metrics | grep -E 'posts_total|outbox_depth'

Ctrl-C ends everything.",
        cluster.sse[0].operations_url(),
        cluster.sse[0].operations_url(),
        cluster.chat[0].operations_url(),
    );
}

/// Starts again what was killed.
async fn watch(cluster: &mut Cluster) {
    loop {
        sleep(LOOK).await;
        for (name, nodes) in [
            ("chat-service", &mut cluster.chat),
            ("broadcast-sse", &mut cluster.sse),
        ] {
            for (number, node) in nodes.iter_mut().enumerate() {
                if node.has_ended() {
                    come_back(&format!("{name} {number}"), node).await;
                }
            }
        }
        for (number, pid) in cluster.broker.pids().into_iter().enumerate() {
            if is_dead(pid) {
                println!("broker {number} has ended, and comes back in {AWAY:?}");
                sleep(AWAY).await;
                cluster.broker.restart(number).await;
                println!(
                    "broker {number} is back, pid {}",
                    cluster.broker.pids()[number]
                );
            }
        }
        if cluster.store.has_ended() {
            println!("PostgreSQL has ended, and comes back in {AWAY:?}");
            sleep(AWAY).await;
            cluster.store.restart().await;
            println!("PostgreSQL is back, pid {}", cluster.store.pid());
        }
    }
}

/// Whether a process that nobody has waited for has ended (proc_pid_status(5)).
fn is_dead(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| status.contains("State:\tZ"))
}

async fn come_back(name: &str, node: &mut Node) {
    println!("{name} has ended, and comes back in {AWAY:?}");
    sleep(AWAY).await;
    node.restart().await;
    println!("{name} is back, pid {}", node.process().pid());
}
