use axum::body::Body;
use axum::routing::post;
use tower::ServiceExt;

use super::*;

const LOOPBACK: &str = "127.0.0.1:8080";
const OPEN: &str = "0.0.0.0:8080";
const OPEN_BY_TLS: &str = "https://0.0.0.0:8443";

async fn ask(listen: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let config = AccessConfig {
        allowed_origins: vec!["https://Chat.example:443/".to_owned()],
        allowed_hosts: vec!["Hark.example".to_owned(), "b\u{fc}cher.example".to_owned()],
    };
    let router = crate::router::layered(
        Router::new().route("/post", post(|| async { "posted" }).get(|| async { "got" })),
    );
    let (listen, tls) = match listen.strip_prefix("https://") {
        Some(listen) => (listen, true),
        None => (listen, false),
    };
    let router = AccessPolicy::new(&config, listen.parse().unwrap(), tls).layer(router);
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    router
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap()
}

fn allows(response: &Response) -> Option<&str> {
    response
        .headers()
        .get(ACCESS_CONTROL_ALLOW_ORIGIN)
        .map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn pages_of_this_machine_may_post() {
    for origin in [
        "http://localhost:8000",
        "http://127.0.0.1:8000",
        "http://[::1]:8000",
        "https://localhost",
        "https://chat.example",
    ] {
        let response = ask(
            LOOPBACK,
            "POST",
            "/post",
            &[("host", "localhost:8080"), ("origin", origin)],
        )
        .await;
        assert_eq!(response.status(), StatusCode::OK, "{origin}");
        assert_eq!(allows(&response), Some(origin));
        assert_eq!(response.headers()[ACCESS_CONTROL_EXPOSE_HEADERS], EXPOSED);
    }
}

#[tokio::test]
async fn foreign_pages_may_not_post_and_may_not_read() {
    for origin in [
        "https://evil.example",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example:8000",
        "http://localhost@evil.example",
        "http://localhost:80@evil.example",
        "http://localhost:evil.example",
        "http://[::1].evil.example",
        "http://localhost/",
        "https://chat.example.evil.example",
        "null",
    ] {
        let headers = [("host", "localhost:8080"), ("origin", origin)];
        let response = ask(LOOPBACK, "POST", "/post", &headers).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{origin}");
        assert!(response.headers().contains_key(crate::identify::REQUEST_ID));
        assert_eq!(allows(&response), None);
        let response = ask(LOOPBACK, "GET", "/post", &headers).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(allows(&response), None);
    }
}

async fn status(listen: &str, host: &str) -> StatusCode {
    ask(listen, "GET", "/post", &[("host", host)])
        .await
        .status()
}

#[tokio::test]
async fn on_loopback_only_its_own_hosts_are_answered() {
    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "192.168.1.5:8080",
        "chat",
    ] {
        assert_eq!(status(LOOPBACK, host).await, 403, "{host}");
    }
    for host in [
        "localhost",
        "LOCALHOST:80",
        "127.0.0.1:8080",
        "127.1.2.3",
        "[::1]:8080",
        "hark.EXAMPLE",
        "xn--bcher-kva.example",
    ] {
        assert_eq!(status(LOOPBACK, host).await, 200, "{host}");
    }
    let absolute = ask(
        LOOPBACK,
        "GET",
        "http://evil.example/post",
        &[("host", "localhost")],
    )
    .await;
    assert_eq!(absolute.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn open_to_others_a_name_that_anybody_can_register_is_refused() {
    for host in [
        "evil.example:8080",
        "localhost.evil.example",
        "10.0.0.1.nip.example",
    ] {
        assert_eq!(status(OPEN, host).await, 403, "{host}");
        // The page finds a certificate for another name.
        assert_eq!(status(OPEN_BY_TLS, host).await, 200, "{host}");
    }
    for host in [
        "192.168.1.5:8080",
        "[2001:db8::1]:8080",
        "localhost:8080",
        "chat-service:8080",
        "my-laptop.local:8080",
        "chat.default.svc.cluster.local",
        "hark.example",
    ] {
        assert_eq!(status(OPEN, host).await, 200, "{host}");
    }
}

#[test]
fn open_to_others_the_own_name_is_answered_and_a_star_opens_all() {
    let policy = |hosts: &[&str]| {
        let config = AccessConfig {
            allowed_hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            ..AccessConfig::default()
        };
        AccessPolicy::of_machine(&config, Reach::Network, "box.company.example")
    };
    let host = |text| Host::parse(text).unwrap();
    assert!(policy(&[]).allows_host(host("BOX.company.example:1")));
    assert!(!policy(&[]).allows_host(host("fox.company.example")));
    assert!(policy(&["*"]).allows_host(host("fox.company.example")));
}

#[tokio::test]
async fn a_request_names_its_host_once() {
    for listen in [LOOPBACK, OPEN, OPEN_BY_TLS] {
        for hosts in [
            &[][..],
            &[("host", "localhost"), ("host", "localhost")],
            &[("host", "[::1")],
            &[("host", "")],
            &[("host", "localhost@evil.example")],
        ] {
            let response = ask(listen, "GET", "/post", hosts).await;
            assert_eq!(response.status(), 400, "{listen} {hosts:?}");
        }
    }
}

#[tokio::test]
async fn open_to_others_allows_pages_of_its_own_host() {
    let host = ("host", "192.168.1.5:8080");
    let own = ask(
        OPEN,
        "POST",
        "/post",
        &[host, ("origin", "http://192.168.1.5:8000")],
    )
    .await;
    assert_eq!(own.status(), StatusCode::OK);
    assert_eq!(allows(&own), Some("http://192.168.1.5:8000"));
    let listed = ask(
        OPEN,
        "POST",
        "/post",
        &[host, ("origin", "https://chat.example")],
    )
    .await;
    assert_eq!(listed.status(), StatusCode::OK);
    let foreign = ask(
        OPEN,
        "POST",
        "/post",
        &[host, ("origin", "http://localhost:8000")],
    )
    .await;
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn preflight_is_answered_before_the_routes() {
    let asks = ("access-control-request-method", "POST");
    let response = ask(
        LOOPBACK,
        "OPTIONS",
        "/post",
        &[
            ("host", "localhost"),
            ("origin", "http://localhost:8000"),
            asks,
        ],
    )
    .await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        response.headers()[ACCESS_CONTROL_ALLOW_METHODS],
        "GET, POST"
    );
    assert!(
        response.headers()[ACCESS_CONTROL_ALLOW_HEADERS]
            .to_str()
            .unwrap()
            .contains("idempotency-key")
    );
    let response = ask(
        LOOPBACK,
        "OPTIONS",
        "/post",
        &[
            ("host", "localhost"),
            ("origin", "https://evil.example"),
            asks,
        ],
    )
    .await;
    assert_eq!(allows(&response), None);
    assert!(
        !response
            .headers()
            .contains_key(ACCESS_CONTROL_ALLOW_METHODS)
    );
}

#[tokio::test]
async fn errors_carry_cors_headers_too() {
    let response = ask(
        LOOPBACK,
        "GET",
        "/nowhere",
        &[("host", "localhost"), ("origin", "http://localhost:8000")],
    )
    .await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(allows(&response), Some("http://localhost:8000"));
    let response = ask(
        LOOPBACK,
        "DELETE",
        "/post",
        &[("host", "localhost"), ("origin", "http://localhost:8000")],
    )
    .await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(allows(&response), Some("http://localhost:8000"));
}

/// What a subscriber has written.
#[derive(Clone, Default)]
struct Lines(Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_operator_reads_which_page_was_refused_and_what_to_set_and_no_flood_of_it() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let _while_it_lives = tracing::subscriber::set_default(subscriber.finish());
    let policy = AccessPolicy::new(&AccessConfig::default(), LOOPBACK.parse().unwrap(), false);
    let router = policy.layer(Router::new().route("/events", axum::routing::get(|| async { "" })));
    let long = format!("http://{}.example", "x".repeat(4_000));
    for origin in ["https://shop.example", &long, "http://localhost:8000"]
        .into_iter()
        .chain(std::iter::repeat_n("http://a.example", 1_000))
    {
        // A stream: the page learns only that it failed.
        let request = Request::get("/events")
            .header(HOST, "localhost:8080")
            .header(ORIGIN, origin);
        let request = request.body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap();
    }
    let request = Request::get("/events").header(HOST, "chat.example");
    router
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let lines = String::from_utf8(lines.0.lock().clone()).unwrap();
    assert!(
        lines.contains("pages of \"https://shop.example\" may not use this service"),
        "{lines}"
    );
    assert!(lines.contains("access.allowed_origins"), "{lines}");
    assert!(!lines.contains("localhost:8000"), "{lines}");
    assert_eq!(lines.lines().count(), REFUSALS as usize, "{lines}");
    assert!(lines.len() < 2_000, "{lines}");
}

#[tokio::test]
async fn operators_listener_answers_for_the_hosts_of_its_service() {
    let refusal = async |allowed: Option<&[String]>, host: &str| {
        let router = Router::new().route("/", axum::routing::get(|| async { "got" }));
        let router = AccessPolicy::of_operators(allowed).layer(crate::router::layered(router));
        let request = Request::get("/").header(HOST, host).body(Body::empty());
        let answer = router.oneshot(request.unwrap()).await.unwrap();
        let body = axum::body::to_bytes(answer.into_body(), 10_000);
        String::from_utf8(body.await.unwrap().to_vec()).unwrap()
    };
    let allowed = ["ops.example".to_owned()];
    for host in ["ops.example:9091", "localhost:9091", "127.0.0.1"] {
        assert_eq!(refusal(Some(&allowed), host).await, "got", "{host}");
    }
    let text = refusal(Some(&allowed), "evil.example").await;
    assert!(text.contains("access.allowed_hosts"), "{text}");
    // The broker has no such setting.
    let text = refusal(None, "ops.example").await;
    assert!(text.contains("ask for localhost"), "{text}");
    assert!(!text.contains("access.allowed_hosts"), "{text}");
}
