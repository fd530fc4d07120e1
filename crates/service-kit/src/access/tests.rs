use axum::body::Body;
use axum::routing::post;
use tower::ServiceExt;

use super::*;

const LOOPBACK: &str = "127.0.0.1:8080";
const OPEN: &str = "0.0.0.0:8080";

async fn ask(listen: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let config = AccessConfig {
        allowed_origins: vec!["https://Chat.example/".to_owned()],
        allowed_hosts: vec!["hark.example".to_owned()],
    };
    let router = crate::problem::layered(
        Router::new().route("/post", post(|| async { "posted" }).get(|| async { "got" })),
    );
    let router = AccessPolicy::new(&config, listen.parse().unwrap()).layer(router);
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
        "null",
    ] {
        let headers = [("host", "localhost:8080"), ("origin", origin)];
        let response = ask(LOOPBACK, "POST", "/post", &headers).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{origin}");
        assert!(response.headers().contains_key(crate::problem::REQUEST_ID));
        assert_eq!(allows(&response), None);
        let response = ask(LOOPBACK, "GET", "/post", &headers).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(allows(&response), None);
    }
}

#[tokio::test]
async fn foreign_hosts_are_refused_on_loopback_only() {
    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "192.168.1.5:8080",
    ] {
        let response = ask(LOOPBACK, "GET", "/post", &[("host", host)]).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{host}");
        let response = ask(OPEN, "GET", "/post", &[("host", host)]).await;
        assert_eq!(response.status(), StatusCode::OK, "{host}");
    }
    for host in [
        "localhost",
        "LOCALHOST:80",
        "127.0.0.1:8080",
        "127.1.2.3",
        "[::1]:8080",
        "hark.example",
    ] {
        let response = ask(LOOPBACK, "GET", "/post", &[("host", host)]).await;
        assert_eq!(response.status(), StatusCode::OK, "{host}");
    }
    let absolute = ask(
        LOOPBACK,
        "GET",
        "http://evil.example/post",
        &[("host", "localhost")],
    )
    .await;
    assert_eq!(absolute.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        ask(LOOPBACK, "GET", "/post", &[]).await.status(),
        StatusCode::OK
    );
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
        &[("origin", "http://localhost:8000"), asks],
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
        &[("origin", "https://evil.example"), asks],
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
        &[("origin", "http://localhost:8000")],
    )
    .await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(allows(&response), Some("http://localhost:8000"));
    let response = ask(
        LOOPBACK,
        "DELETE",
        "/post",
        &[("origin", "http://localhost:8000")],
    )
    .await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(allows(&response), Some("http://localhost:8000"));
}
