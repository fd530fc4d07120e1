//! `hark up`: runs the broker, chat-service, broadcast-sse and the demo page in one process. They reach
//! each other by address, as they would on different machines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use broker::Broker;
use chat_model::ChannelId;
use clock::SystemClock;
use http_server::access::AccessPolicy;
use http_server::http::{self, HttpOptions, Shares};
use http_server::operations::{Health, Operations};
use service_command::{self as command, Failure, Process};
use service_kit::lifecycle::Lifecycle;
use tokio::time::Instant;

use crate::cli::Up;
use crate::config::{Config, as_here};
use crate::demo::{self, Services};

/// How long it may take until all services answer.
const START_TIME: Duration = Duration::from_secs(30);

/// The most connections to the page at a time. One client may have half of them.
const PAGE_CONNECTIONS: usize = 1_000;

pub(crate) async fn run(options: Up) -> Result<(), Failure> {
    let mut config = Config::load(&options, std::env::vars())?;
    if options.print_config {
        return command::print_config(&config);
    }
    let process = Process::begin(&config.log, config.operations.listen);
    let process = process.map_err(|failure| match failure {
        Failure::Failed(why) => by_option("--ops")(why),
        usage @ Failure::Usage(_) => usage,
    })?;
    let (lifecycle, operations) = (process.lifecycle.clone(), process.operations.clone());
    let ops_url = process.operations_url.clone();
    let tls = config.tls.load().map_err(Failure::failed)?;
    let page = http::bind(config.demo.listen)
        .map_err(|error| by_option("--demo")(format!("{error}: setting `demo.listen`")))?;
    let page_addr = page.local_addr().map_err(Failure::failed)?;

    let broker = Broker::bind(config.broker)
        .await
        .map_err(by_option("--mqtt"))?;
    let mqtt_addr = broker.local_addr();
    let of_broker = operations.of_service("broker");
    broker.register(&of_broker.worded(|reason| as_here("broker", reason)));
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
    // The page counts clients as chat-service does.
    let page_shares = Shares {
        most: PAGE_CONNECTIONS / 2,
        limits_loopback: config.chat_service.limits.limit_loopback,
        proxies: config.chat_service.limits.trusted_proxies.clone(),
    };
    let of_chat = operations.of_service("chat-service");
    let chat_service = chat_service::Server::bind(
        config.chat_service,
        SystemClock::shared(),
        of_chat.worded(|reason| as_here("chat_service", reason)),
    );
    let mut chat_service = chat_service.await.map_err(by_option("--chat"))?;
    let chat_addr = chat_service.local_addr();
    // A separate listener: the limits of the public port are not meant for broadcast-sse.
    let inside = chat_service.listen_inside().map_err(Failure::failed)?;
    config.broadcast_sse.history.url = format!("http://{inside}");
    let of_sse = operations.of_service("broadcast-sse");
    let of_sse = of_sse.worded(|reason| as_here("broadcast_sse", reason));
    let broadcast_sse =
        broadcast_sse::Server::bind(config.broadcast_sse, of_sse).map_err(by_option("--sse"))?;
    let sse_addr = broadcast_sse.local_addr();

    // The broker must run until the last PUBACK, so it belongs to a later stage of the lifecycle.
    let later = lifecycle.later_stage();
    let broker_life = later.clone();
    lifecycle.spawn("broker", async move {
        broker.run(&broker_life).await;
    });
    process.serve_operations(&lifecycle, Some(&access.allowed_hosts));
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
        max_connections: PAGE_CONNECTIONS,
        shares: page_shares,
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
        let (page, chat) = (as_people_write_it(page), as_people_write_it(chat));
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

/// Waits until every part is ready; `false` if the process is told to stop first.
async fn all_answer(operations: &Operations, lifecycle: &Lifecycle) -> Result<bool, Failure> {
    let soft = lifecycle.soft();
    let deadline = Instant::now() + START_TIME;
    loop {
        let checks = operations.readiness().await;
        let waiting: Vec<_> = checks
            .into_iter()
            .filter_map(|(name, health)| match health {
                Health::Ok => None,
                // Waiting does not repair damage, and nothing depends on it.
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

/// The address at which this machine reaches a service that listens on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The address at which others reach a service that listens on `address`, as people would write it.
fn as_people_write_it(address: SocketAddr) -> String {
    let address = match address.ip() {
        ip if ip.is_unspecified() => {
            let ip = own_address(ip).unwrap_or(reachable(address).ip());
            SocketAddr::new(ip, address.port())
        }
        _ => address,
    };
    if address.ip().is_loopback() && address.is_ipv4() {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    }
}

/// The address from which this machine reaches others. Finding it sends nothing.
fn own_address(listening: IpAddr) -> Option<IpAddr> {
    // Addresses reserved for documentation (RFC 5737, RFC 3849): only the route to them is looked up.
    let (any, far) = match listening {
        IpAddr::V4(_) => ("0.0.0.0:0", "192.0.2.1:9"),
        IpAddr::V6(_) => ("[::]:0", "[2001:db8::1]:9"),
    };
    let socket = std::net::UdpSocket::bind(any).ok()?;
    socket.connect(far).ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_unspecified() && !own.is_loopback()).then_some(own)
}

/// Adapts a service's error: if it cannot listen on an address, says which option chooses another one,
/// and renames the service's settings to their names here.
fn by_option<E: ToString>(option: &'static str) -> impl Fn(E) -> Failure {
    move |error| {
        let error = match option {
            "--chat" => as_here("chat_service", &error.to_string()),
            "--sse" => as_here("broadcast_sse", &error.to_string()),
            "--mqtt" => as_here("broker", &error.to_string()),
            _ => error.to_string(),
        };
        let setting = ": setting `";
        let here = format!(": `{option} 127.0.0.1:PORT`, or{}", &setting[1..]);
        if error.starts_with("cannot listen on") {
            Failure::failed(error.replacen(setting, &here, 1))
        } else {
            Failure::failed(error)
        }
    }
}

/// Warns whoever opens a port to others that there is no log-in.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_localhost_and_an_open_port_is_the_machines_address() {
        let written = |address: &str| as_people_write_it(address.parse().unwrap());
        assert_eq!(written("127.0.0.1:8000"), "localhost:8000");
        assert_eq!(written("192.0.2.7:8000"), "192.0.2.7:8000");
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let open = own_address(any).map_or("localhost".to_owned(), |ip| ip.to_string());
        assert_eq!(written("0.0.0.0:8000"), format!("{open}:8000"));
    }
}
