//! `hark up`: broker, chat-service, broadcast-sse and the demo page in one process. They are wired
//! by their addresses, as they would be on different machines.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use broker::Broker;
use chat_model::ChannelId;
use service_kit::{
    access::AccessPolicy,
    clock::SystemClock,
    command::{self, Failure, Process},
    http::{self, HttpOptions},
    lifecycle::Lifecycle,
    operations::{Health, Operations},
};
use tokio::time::Instant;

use crate::{
    cli::Up,
    config::Config,
    demo::{self, Services},
};

/// How long the services may take until all of them answer.
const START_TIME: Duration = Duration::from_secs(30);

pub(crate) async fn run(options: Up) -> Result<(), Failure> {
    let mut config = Config::load(&options, std::env::vars())?;
    if options.print_config {
        return command::print_config(&config);
    }
    let process = Process::begin(&config.log, config.operations.listen)?;
    let (lifecycle, operations) = (process.lifecycle.clone(), process.operations.clone());
    let ops_url = process.operations_url.clone();
    let tls = config.tls.load().map_err(Failure::failed)?;
    let page = http::bind(config.demo.listen).map_err(Failure::failed)?;
    let page_addr = page.local_addr().map_err(Failure::failed)?;

    let broker = Broker::bind(config.broker).await.map_err(Failure::failed)?;
    let mqtt_addr = broker.local_addr();
    broker.register(&operations.of_service("broker"));
    let mqtt_url = format!("mqtt://{}", reachable(mqtt_addr));
    config.chat_service.mqtt.url = mqtt_url.parse().map_err(Failure::failed)?;
    config.broadcast_sse.mqtt.url = config.chat_service.mqtt.url.clone();
    for mqtt in [
        &mut config.chat_service.mqtt,
        &mut config.broadcast_sse.mqtt,
    ] {
        let login = broker.own_login();
        (mqtt.username, mqtt.password) = (login.username, login.password);
    }

    let access = config.chat_service.access.clone();
    let chat_service = chat_service::Server::bind(
        config.chat_service,
        SystemClock::shared(),
        operations.of_service("chat-service"),
    );
    let mut chat_service = chat_service.await.map_err(Failure::failed)?;
    let chat_addr = chat_service.local_addr();
    let inside = match tls {
        Some(_) => chat_service.listen_inside().map_err(Failure::failed)?,
        None => reachable(chat_addr),
    };
    config.broadcast_sse.history.url = format!("http://{inside}");
    let broadcast_sse =
        broadcast_sse::Server::bind(config.broadcast_sse, operations.of_service("broadcast-sse"))
            .map_err(Failure::failed)?;
    let sse_addr = broadcast_sse.local_addr();

    // The broker stays until the last PUBACK: it belongs to a later stage of the process's life.
    let later = lifecycle.later_stage();
    let broker_life = later.clone();
    lifecycle.spawn("broker", async move {
        broker.run(&broker_life).await;
    });
    process.serve_operations(&lifecycle);
    let services = Services {
        config: config.demo,
        chat_port: chat_addr.port(),
        sse_port: sse_addr.port(),
        tls: tls.is_some(),
    };
    let router = AccessPolicy::new(&access, page_addr, tls.is_some()).layer(demo::router(services));
    let page_life = lifecycle.clone();
    let scheme = http::scheme(tls.is_some());
    let page_options = HttpOptions {
        tls,
        ..HttpOptions::default()
    };
    lifecycle.spawn("demo", async move {
        http::serve(page, router, page_options, &page_life).await;
    });
    lifecycle.spawn("broadcast-sse", broadcast_sse.run(lifecycle.clone()));
    let chat_life = lifecycle.clone();
    lifecycle.spawn("chat-service", async move {
        chat_service.run(chat_life).await;
        later.shutdown();
    });

    if all_answer(&operations, &lifecycle).await? {
        let [chat, sse, page, mqtt] = [chat_addr, sse_addr, page_addr, mqtt_addr];
        say_if_open(&[chat, sse, page, mqtt]);
        command::announce(&[
            ("chat", format!("{scheme}://{chat}")),
            ("sse", format!("{scheme}://{sse}")),
            ("demo", format!("{scheme}://{page}")),
            ("mqtt", format!("mqtt://{mqtt}")),
            ("ops", ops_url),
        ])?;
        let channel = ChannelId::from(uuid::Uuid::new_v4());
        let (page, chat) = (as_localhost(page), as_localhost(chat));
        command::suggest(&[
            ("open", format!("{scheme}://{page}/?c={channel}")),
            (
                "try",
                format!("curl -d hello {scheme}://{chat}/channels/{channel}/messages"),
            ),
        ])?;
    }
    command::wait(&lifecycle).await
}

/// Waits until every part is ready; `false` if the process is told to stop before.
async fn all_answer(operations: &Operations, lifecycle: &Lifecycle) -> Result<bool, Failure> {
    let soft = lifecycle.soft();
    let deadline = Instant::now() + START_TIME;
    loop {
        let checks = operations.readiness().await;
        let waiting: Vec<_> = checks
            .into_iter()
            .filter_map(|(name, health)| match health {
                Health::Ok => None,
                // That does not pass by waiting, and nothing waits for it.
                Health::Degraded(_) if name.ends_with(".damage") => None,
                Health::Degraded(reason) | Health::Failed(reason) => {
                    Some(format!("{name}: {reason}"))
                }
            })
            .collect();
        if waiting.is_empty() {
            return Ok(true);
        }
        if Instant::now() > deadline {
            let waiting = waiting.join("; ");
            return Err(Failure::failed(format!(
                "not everything answers ({waiting}); see the log"
            )));
        }
        tokio::select! {
            () = soft.cancelled() => return Ok(false),
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
    }
}

/// Where this machine reaches a service that listens here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The same as people would write it.
fn as_localhost(address: SocketAddr) -> String {
    let address = reachable(address);
    if address.ip().is_loopback() && address.is_ipv4() {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    }
}

/// There is no log-in: who opens a port to others should know.
fn say_if_open(addresses: &[SocketAddr]) {
    let open: Vec<_> = addresses
        .iter()
        .filter(|address| !address.ip().is_loopback())
        .map(ToString::to_string)
        .collect();
    if !open.is_empty() {
        eprintln!(
            "hark: now open to others, without log-in: {}. Whoever reaches these addresses can \
             read and post in every channel whose name they know.",
            open.join(", ")
        );
    }
}
