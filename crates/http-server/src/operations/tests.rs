use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use prometheus_client::metrics::counter::Counter;
use tower::ServiceExt;

use super::*;
use crate::access::{AccessConfig, AccessPolicy};

async fn ask(router: Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path)
        .header("host", "localhost")
        .body(Body::empty())
        .unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn readiness_names_each_check_and_is_red_for_what_is_needed() {
    let operations = Operations::new();
    operations.add_check("store", || async { Health::Ok });
    operations.add_check("broker", || async { Health::Degraded("away".to_owned()) });
    let (status, text) = ask(operations.router(), "/readyz").await;
    assert_eq!(
        status,
        StatusCode::OK,
        "a degraded part does not take the service out"
    );
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["checks"]["broker"]["reason"], "away");

    operations.add_check("disk", || async { Health::Failed("full".to_owned()) });
    let (status, text) = ask(operations.router(), "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("\"not ready\""), "{text}");
    let (status, _) = ask(operations.router(), "/healthz").await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn check_that_hangs_has_failed() {
    let operations = Operations::new();
    operations.add_check("store", std::future::pending);
    let readiness = operations.readiness().await;
    assert!(matches!(&readiness[0].1, Health::Failed(reason) if reason.contains("no answer")));
}

#[tokio::test]
async fn requests_are_counted_by_route_not_by_path() {
    let operations = Operations::new();
    let counter = Counter::<u64>::default();
    operations.register(|registry| registry.register("hark_sample", "A sample", counter.clone()));
    counter.inc_by(3);
    let metrics = RequestMetrics::register(&operations, "hark_test");
    let routes = Router::new().route("/things/{id}", get(|| async { "thing" }));
    let access = AccessPolicy::new(
        &AccessConfig::default(),
        ([127, 0, 0, 1], 8080).into(),
        false,
    );
    let router = crate::router::guarded(routes, |_, _| None, access, &metrics);
    ask(router.clone(), "/things/1").await;
    ask(router.clone(), "/things/2").await;
    ask(router, "/elsewhere").await;
    let (_, text) = ask(operations.router(), "/metrics").await;
    assert!(text.contains("hark_sample_total 3"), "{text}");
    assert!(
        text.contains(
            "hark_test_http_requests_total{route=\"/things/{id}\",method=\"GET\",status=\"200\"} 2"
        ),
        "{text}"
    );
    assert!(
        text.contains("route=\"none\",method=\"GET\",status=\"404\"} 1"),
        "{text}"
    );
}

#[tokio::test]
async fn a_service_within_another_program_names_its_settings_as_that_one_does() {
    let operations = Operations::new();
    let of_chat = operations.of_service("chat-service");
    let of_chat = of_chat.worded(|reason| reason.replace("mqtt.", "chat_service.mqtt."));
    of_chat.add_check("broker", || async {
        Health::Degraded("set mqtt.url".to_owned())
    });
    of_chat.add_check("store", || async { Health::Ok });
    let readiness = operations.readiness().await;
    let reason = Health::Degraded("set chat_service.mqtt.url".to_owned());
    assert_eq!(
        readiness,
        [
            ("chat-service.broker".to_owned(), reason),
            ("chat-service.store".to_owned(), Health::Ok)
        ]
    );
}
