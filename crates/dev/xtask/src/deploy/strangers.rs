//! Who is in the network of several servers, and no part of Hark.

use super::engine::Engine;
use super::ensure;
use crate::dist::Step;

/// The name in a service's certificate, a server that runs it, its port and something that it serves.
const SERVICES: [(&str, &str, u16, &str); 2] = [
    (
        "chat-service",
        "chat-1",
        8080,
        "channels/3509fdb5-9ffe-4738-9d4b-0d457c251a72/messages",
    ),
    (
        "broadcast-sse",
        "sse-1",
        8081,
        "events?c=3509fdb5-9ffe-4738-9d4b-0d457c251a72",
    ),
];

/// chat-service and broadcast-sse answer nginx, and nobody without a certificate that is made for asking
/// them.
pub(super) fn get_nothing(engine: &Engine) -> Step {
    for (name, server, port, path) in SERVICES {
        let address = address(engine, server)?;
        let ask = |from: &str, arguments: &str, scheme: &str| {
            let url = format!("{scheme}://{name}:{port}/{path}");
            let resolve = format!("--resolve {name}:{port}:{address}");
            status(engine, from, &format!("{resolve} {arguments} {url}"))
        };
        let of_nginx = "--cacert /etc/nginx/hark-authority.crt --cert /etc/nginx/hark-service.crt \
                        --key /etc/nginx/hark-service.key";
        let answer = ask("web", of_nginx, "https")?;
        ensure(answer == "200", || format!("{name} answers nginx {answer}"))?;
        let of_the_broker = "--insecure --cert /etc/mosquitto/certs/hark.crt \
                             --key /etc/mosquitto/certs/hark.key";
        for (arguments, scheme) in [
            ("", "http"),
            ("--insecure", "https"),
            (of_the_broker, "https"),
        ] {
            let answer = ask("broker", arguments, scheme)?;
            ensure(answer == "000", || {
                format!("{name} answers a stranger {answer}: {scheme} {arguments}")
            })?;
        }
        // The operators' listener is for the server itself.
        let operations = format!("http://{address}:{}/metrics", port + 1011);
        let answer = status(engine, "broker", &operations)?;
        ensure(answer == "000", || {
            format!("{name} tells a stranger its metrics: {answer}")
        })?;
        engine.inside(
            server,
            &format!(
                "curl --fail --silent http://127.0.0.1:{}/healthz",
                port + 1011
            ),
        )?;
        let owner = format!("stat --format '%U %G %a' /etc/hark/{name}.key");
        let owner = engine.inside(server, &owner)?;
        ensure(owner == "root hark 640", || {
            format!("{name}'s key: {owner}")
        })?;
    }
    let owner = engine.inside(
        "web",
        "stat --format '%U %G %a' /etc/nginx/hark-service.key",
    )?;
    ensure(owner == "root root 600", || format!("nginx's key: {owner}"))
}

/// What names the certificate that a server shows at a port.
pub(super) fn shown_certificate(engine: &Engine, server: &str, port: u16) -> Step<String> {
    let look = format!(
        "openssl s_client -connect {}:{port} </dev/null 2>/dev/null | openssl x509 -noout -serial",
        address(engine, server)?
    );
    engine.inside("broker", &look)
}

/// Where the others reach a server.
pub(super) fn address(engine: &Engine, server: &str) -> Step<String> {
    engine.inside(server, "hostname -I | cut -d' ' -f1")
}

/// The status of an answer to curl; 000 when there is none.
fn status(engine: &Engine, from: &str, arguments: &str) -> Step<String> {
    let curl = "curl --silent --output /dev/null --write-out '%{http_code}' --max-time 5";
    engine.inside(from, &format!("{curl} {arguments} || true"))
}
