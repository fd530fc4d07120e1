//! Serves the demo page, which is built into the program.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_server::http;
use http_server::problem::Problem;
use http_server::router;
use rust_embed::{EmbeddedFile, RustEmbed};
use serde_json::json;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::config::DemoConfig;

#[derive(RustEmbed)]
#[folder = "../../client-demo"]
#[include = "*.html"]
#[include = "*.css"]
#[include = "*.js"]
#[include = "*.svg"]
struct Files;

/// The addresses of the services, for the page.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) config: DemoConfig,
    pub(crate) chat_port: u16,
    pub(crate) sse_port: u16,
    /// Whether they use TLS, as the page does.
    pub(crate) tls: bool,
}

/// Serves the page, its files, and the `config.json` that tells it where the services are.
pub(crate) fn router(services: Services) -> Router {
    let router = Router::new()
        .route("/", get(index))
        .route("/config.json", get(config))
        .route("/{file}", get(file))
        .with_state(Arc::new(services));
    // The page changes with the program; old and new files would not fit together.
    let constant = [
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let router = constant.into_iter().fold(router, |router, (name, value)| {
        let value = HeaderValue::from_static(value);
        router.layer(SetResponseHeaderLayer::overriding(name, value))
    });
    router::helpful(router, |_, _| {
        let services = "this is the page; chat-service, on port 8080 by default, takes messages, and \
                        broadcast-sse, on port 8081, has the streams";
        Some(services.to_owned())
    })
}

async fn index(State(services): State<Arc<Services>>, headers: HeaderMap) -> Response {
    page(&services, &headers, "index.html")
}

async fn file(
    State(services): State<Arc<Services>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    page(&services, &headers, &name)
}

async fn config(State(services): State<Arc<Services>>, headers: HeaderMap) -> Response {
    let (chat, sse) = services.urls(&headers);
    let body = json!({ "chat": chat, "sse": sse }).to_string();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn page(services: &Services, headers: &HeaderMap, name: &str) -> Response {
    match Files::get(name) {
        Some(file) => served(services, headers, name, file),
        None => Problem::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here")
            .detail("the demo page is at /")
            .into_response(),
    }
}

fn served(services: &Services, headers: &HeaderMap, name: &str, file: EmbeddedFile) -> Response {
    let content_type = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        _ => "image/svg+xml",
    };
    let (chat, sse) = services.urls(headers);
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self' {chat} {sse}; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, policy.as_str()),
    ];
    (headers, file.data).into_response()
}

impl Services {
    /// The services' URLs: as configured, or on the host under which the page itself was requested, so
    /// that it also works from another machine.
    fn urls(&self, headers: &HeaderMap) -> (String, String) {
        // Without a valid host, the answer is for this machine.
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .and_then(host_name)
            .unwrap_or("127.0.0.1");
        let scheme = http::scheme(self.tls);
        let url = |configured: &str, port| {
            if configured.is_empty() {
                format!("{scheme}://{host}:{port}")
            } else {
                configured.to_owned()
            }
        };
        (
            url(&self.config.chat_url, self.chat_port),
            url(&self.config.sse_url, self.sse_port),
        )
    }
}

/// The name in a `Host` header, without its port. `None` if it might not be a name, because it becomes
/// part of a header.
fn host_name(host: &str) -> Option<&str> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let inner = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let good = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    good.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_is_taken_from_the_host_header() {
        assert_eq!(host_name("localhost:8000"), Some("localhost"));
        assert_eq!(host_name("192.168.1.5"), Some("192.168.1.5"));
        assert_eq!(host_name("[::1]:8000"), Some("[::1]"));
        for bad in ["", ":8000", "a; script-src *", "a b", "[x]", "a/b"] {
            assert_eq!(host_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_page_is_built_in_without_what_only_its_makers_need() {
        assert!(Files::get("index.html").is_some());
        assert!(Files::get("chat-client.js").is_some());
        assert!(Files::get("run.sh").is_none());
    }
}
