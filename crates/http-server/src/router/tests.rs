use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::routing::get;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::identify::{REQUEST_ID, RequestId};

fn router() -> Router {
    layered(
        Router::new()
            .route("/fine", get(|| async { "fine" }))
            .route(
                "/panic",
                get(|| async {
                    if true {
                        panic!("on purpose");
                    }
                }),
            )
            .route(
                "/busy",
                get(|| async {
                    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Busy")
                        .retry_after(Duration::from_millis(1200))
                        .with("field", "text")
                }),
            ),
    )
}

async fn ask(method: &str, path: &str) -> (Response, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(REQUEST_ID, "mine-1")
        .body(Body::empty())
        .unwrap();
    let (parts, body) = router().oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let length = parts.headers.get(header::CONTENT_LENGTH);
    if let Some(length) = length {
        assert_eq!(length.to_str().unwrap(), bytes.len().to_string());
    }
    let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    (Response::from_parts(parts, Body::empty()), json)
}

#[tokio::test]
async fn unknown_path_is_a_problem() {
    let (response, problem) = ask("GET", "/nowhere").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "application/problem+json"
    );
    assert_eq!(response.headers()[REQUEST_ID], "mine-1");
    assert_eq!(problem["type"], "/problems/not-found");
    assert_eq!(problem["status"], 404);
    assert_eq!(problem["request_id"], "mine-1");
}

#[tokio::test]
async fn wrong_method_names_those_that_are_right() {
    let (response, problem) = ask("DELETE", "/fine").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()[header::ALLOW], "GET,HEAD");
    assert_eq!(problem["type"], "/problems/method-not-allowed");
}

#[tokio::test]
async fn panic_is_a_500_with_the_request_id() {
    let (response, problem) = ask("GET", "/panic").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(problem["request_id"], "mine-1");
    assert!(!problem.to_string().contains("on purpose"));
}

#[tokio::test]
async fn retry_after_rounds_up_and_extra_members_show() {
    let (response, problem) = ask("GET", "/busy").await;
    assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    assert_eq!(problem["field"], "text");
}

#[tokio::test]
async fn overlong_target_is_a_414() {
    let (response, _) = ask("GET", &format!("/fine?{}", "x".repeat(MAX_TARGET))).await;
    assert_eq!(response.status(), StatusCode::URI_TOO_LONG);
    let (response, _) = ask("GET", &format!("/fine?{}", "x".repeat(MAX_TARGET - 6))).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[test]
fn unusable_request_ids_are_replaced() {
    for bad in ["", "a b", &"x".repeat(65)] {
        let mut request = Request::builder()
            .header(REQUEST_ID, bad)
            .body(Body::empty())
            .unwrap();
        assert_ne!(RequestId::given_to(&mut request).as_str(), bad);
    }
    let mut one = Request::new(Body::empty());
    let mut other = Request::new(Body::empty());
    let id = RequestId::given_to(&mut one);
    assert_ne!(id, RequestId::given_to(&mut other));
    assert_eq!(id, RequestId::given_to(&mut one), "a request keeps its id");
}

#[tokio::test]
async fn guarded_answers_have_an_id_the_policy_and_are_counted_once() {
    let operations = crate::operations::Operations::new();
    let requests = RequestMetrics::register(&operations, "hark_test");
    let access = AccessPolicy::new(
        &crate::access::AccessConfig::default(),
        "127.0.0.1:80".parse().unwrap(),
        false,
    );
    let panics = get(|| async {
        if true {
            panic!("on purpose");
        }
    });
    let router = guarded(
        Router::new().route("/panic", panics),
        |_, _| None,
        access,
        &requests,
    );
    for (method, path, status) in [
        ("GET", "/panic", StatusCode::INTERNAL_SERVER_ERROR),
        ("GET", "/nowhere", StatusCode::NOT_FOUND),
        ("PUT", "/panic", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::ORIGIN, "http://localhost:8000")
            .header(REQUEST_ID, "mine-1");
        let request = request.body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
        let headers = response.headers();
        assert_eq!(headers[REQUEST_ID], "mine-1");
        assert_eq!(
            headers[header::ACCESS_CONTROL_ALLOW_ORIGIN],
            "http://localhost:8000"
        );
        assert_eq!(headers.get_all(header::VARY).iter().count(), 1);
    }
    let text = operations.metrics_text();
    let counted = "route=\"/panic\",method=\"GET\",status=\"500\"} 1\n";
    assert!(text.contains(counted), "{text}");
}
