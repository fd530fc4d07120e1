use axum::Router;
use axum::http::header::HOST;
use axum::middleware::map_request;
use axum::response::IntoResponse;
use axum::routing::post;
use http_server::access::{AccessConfig, AccessPolicy};
use http_server::http::{self, HttpOptions};
use http_server::problem::Problem;
use parking_lot::Mutex;
use service_kit::lifecycle::Lifecycle;
use service_kit::tls::{self, TlsConfig};
use tokio::time::Instant;

use super::super::entry::plain;
use super::*;

const HEADS: &str = r#"{"behind":false,"heads":[]}"#;

/// A chat-service without logs; its port.
async fn serve(life: &Lifecycle, options: HttpOptions) -> u16 {
    serve_router(
        life,
        options,
        Router::new().route("/heads", post(|| async { HEADS })),
    )
    .await
}

async fn serve_router(life: &Lifecycle, options: HttpOptions, router: Router) -> u16 {
    let listener = http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = life.clone();
    life.spawn("http", async move {
        http::serve(listener, router, options, &server).await;
    });
    port
}

fn bases(urls: &[String]) -> Vec<BaseUrl> {
    urls.iter().map(|url| url.parse().unwrap()).collect()
}

#[tokio::test]
async fn another_chat_service_is_asked_when_one_does_not_answer() {
    let life = Lifecycle::new();
    let port = serve(&life, HttpOptions::default()).await;
    let gone = http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gone_port = gone.local_addr().unwrap().port();
    drop(gone);
    let urls = [
        format!("http://127.0.0.1:{gone_port}"),
        format!("http://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{gone_port}/"),
    ];
    let history = History::new(bases(&urls), &tls::trusting_nobody(), plain);
    for _ in 0..3 {
        history.heads(&[]).await.unwrap();
        assert_eq!(history.current.load(Relaxed), 1);
        history.current.store(2, Relaxed);
    }
    let none = History::new(bases(&urls[..1]), &tls::trusting_nobody(), plain);
    let error = none.heads(&[]).await.unwrap_err();
    assert!(matches!(error, HistoryError::Unreachable(_)), "{error}");
    life.shutdown();
}

#[tokio::test]
async fn chat_service_that_wants_to_be_left_alone_is() {
    let life = Lifecycle::new();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let times = asked.clone();
    let heads = move || {
        let mut times = times.lock();
        times.push(Instant::now());
        let first = times.len() == 1;
        async move {
            if first {
                let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate-limit", "");
                return problem.retry_after(Duration::from_secs(1)).into_response();
            }
            HEADS.into_response()
        }
    };
    let router = Router::new().route("/heads", post(heads));
    let port = serve_router(&life, HttpOptions::default(), router).await;
    let url = [format!("http://127.0.0.1:{port}")];
    let history = History::new(bases(&url), &tls::trusting_nobody(), plain);
    // Each of them waits, the second one without having been told to.
    let (one, other) = tokio::join!(history.heads(&[]), async {
        while history.bases[0].rest().is_none() {
            tokio::task::yield_now().await;
        }
        history.heads(&[]).await
    });
    one.unwrap();
    other.unwrap();
    let asked = asked.lock();
    assert_eq!(asked.len(), 3);
    assert!(asked[1] - asked[0] >= Duration::from_millis(990));
    life.shutdown();
}

#[tokio::test]
async fn refusal_says_what_to_set() {
    let life = Lifecycle::new();
    let access = AccessConfig::default();
    // As one that is open to others, for which this name could be anybody's.
    let policy = AccessPolicy::new(&access, "192.0.2.1:80".parse().unwrap(), false);
    let router = Router::new().route("/heads", post(|| async { HEADS }));
    let as_named = async |mut request: Request<Body>| {
        let name = HeaderValue::from_static("chat.x.svc");
        request.headers_mut().insert(HOST, name);
        request
    };
    let router = policy.layer(router).layer(map_request(as_named));
    let port = serve_router(&life, HttpOptions::default(), router).await;
    let url = [format!("http://127.0.0.1:{port}")];
    let history = History::new(bases(&url), &tls::trusting_nobody(), plain);
    let refused = history.heads(&[]).await.unwrap_err().to_string();
    assert!(refused.contains("access.allowed_hosts"), "{refused}");
    assert!(refused.contains("chat.x.svc"), "{refused}");
    life.shutdown();
}

#[tokio::test]
async fn chat_service_is_verified_over_https() {
    let folder = tempfile::tempdir().unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&cert, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let options = HttpOptions {
        tls: TlsConfig {
            cert: cert.clone(),
            key,
            ..TlsConfig::default()
        }
        .load()
        .unwrap(),
        ..HttpOptions::default()
    };
    let life = Lifecycle::new();
    let port = serve(&life, options).await;
    let urls = bases(&[format!("https://localhost:{port}")]);
    let trusting = History::new(urls.clone(), &tls::client(Some(&cert)).unwrap(), plain);
    trusting.heads(&[]).await.unwrap();
    let stranger = History::new(urls, &tls::trusting_nobody(), plain);
    assert!(stranger.heads(&[]).await.is_err());
    life.shutdown();
}
