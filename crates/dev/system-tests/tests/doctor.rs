//! `hark doctor` against deployments with and without the usual mistakes.

use std::time::Duration;

use system_tests::{Chain, Front, hark};
use test_kit::Finished;

const SOON: Duration = Duration::from_secs(60);

async fn examined(chat: &str, sse: &str, more: &[&str]) -> Finished {
    let doctor = hark(["doctor", "--chat", chat, "--sse", sse]).args(more);
    doctor.run(SOON).await
}

/// nginx in front of a chain, with these lines in its location of the stream.
async fn behind(chain: &Chain, stream: &str) -> (Front, String) {
    let config = format!(
        r#"
daemon off;
master_process off;
pid {{folder}}/pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {{folder}}/client_body;
    proxy_temp_path {{folder}}/proxy;
    fastcgi_temp_path {{folder}}/fastcgi;
    uwsgi_temp_path {{folder}}/uwsgi;
    scgi_temp_path {{folder}}/scgi;
    proxy_set_header Host $host;
    server {{
        listen {{front}};
        location = /events {{
            proxy_pass {sse};
            {stream}
        }}
        location / {{ proxy_pass {chat}; }}
    }}
}}
"#,
        chat = chain.chat.url(),
        sse = chain.sse.url(),
    );
    let front = Front::with(&config).await;
    let url = format!("http://{}", front.address());
    (front, url)
}

fn says(finished: &Finished, status: i32, words: &[&str]) {
    assert_eq!(finished.status.code(), Some(status), "{finished:?}");
    for words in words {
        assert!(finished.stdout.contains(words), "{words:?} in {finished:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_works_is_said_to_work() {
    let mut chain = Chain::start().await;
    let operations = chain.chat.operations_url();
    let with = ["--origin", "http://localhost:3000", "--ops", &operations];
    let (chat, sse) = (chain.chat.url(), chain.sse.url());
    let well = examined(&chat, &sse, &with).await;
    let fine = [
        "messages are stored and arrive live",
        "resumes after",
        "/readyz is green",
    ];
    says(&well, 0, &fine);
    assert!(!well.stdout.contains("FAIL"), "{well:?}");

    let foreign = ["--origin", "https://elsewhere.example"];
    let refused = examined(&chat, &sse, &foreign).await;
    says(
        &refused,
        1,
        &["elsewhere.example cannot", "allowed_origins"],
    );

    // The wrong service of the two says what it is in plain words.
    let swapped = examined(&chat, &chat, &[]).await;
    let words = [
        "answers 404 Not Found with application/problem+json, not a stream",
        "streams are at broadcast-sse",
    ];
    says(&swapped, 1, &words);

    chain.broker.kill().await;
    let late = examined(&chat, &sse, &[]).await;
    says(&late, 0, &["no connection to the broker"]);
    chain.chat.kill().await;
    let away = examined(&chat, &sse, &[]).await;
    says(&away, 1, &["does not answer", "start chat-service"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_that_spoil_streams_are_found() {
    const PASS: &str = "proxy_buffering off;";
    let chain = Chain::start().await;
    let chat = chain.chat.url();
    let closed = format!(
        "proxy_buffering off; }} location ~ /messages$ {{ limit_except POST {{ deny all; }} proxy_pass {chat};"
    );
    let large = "proxy_buffering off; } large_client_header_buffers 4 32k; location = /unused { return 404;";
    for (stream, status, words) in [
        (
            "proxy_ignore_headers X-Accel-Buffering;",
            1,
            "proxy_buffering off",
        ),
        (PASS, 1, "large_client_header_buffers"),
        (
            "proxy_buffering off; proxy_set_header Last-Event-ID '';",
            1,
            "the proxy must pass on the header Last-Event-ID",
        ),
        ("return 503;", 1, "gives up for good"),
        (&closed, 1, "history cannot be read: the answer is 403"),
        (large, 0, "long cursors pass"),
    ] {
        let (_front, url) = behind(&chain, stream).await;
        let finished = examined(&url, &url, &[]).await;
        says(&finished, status, &[words]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_that_browsers_give_up_on_are_seen_while_a_node_restarts() {
    let come_back = "proxy_buffering off; error_page 502 503 504 =200 @back; } location @back { \
                     default_type text/event-stream; return 200 \"retry: 100\\nevent: ping\\ndata: {}\\n\\n\";";
    let mut chain = Chain::start().await;
    let (_spoils, spoils) = behind(&chain, "proxy_buffering off;").await;
    let (_keeps, keeps) = behind(&chain, come_back).await;
    let watch = ["--watch", "8"];
    let restarts = async {
        // Once the streams are open; a restart is over well before the end.
        let open = format!("{}/metrics", chain.sse.operations_url());
        test_kit::eventually!(SOON, {
            let metrics = reqwest::get(&open).await?.text().await?;
            test_kit::ensure!(metrics.contains("hark_sse_streams 2"), "{metrics}");
            Ok(())
        });
        chain.sse.kill().await;
        test_kit::eventually!(SOON, {
            let status = reqwest::get(format!("{spoils}/events?c=x")).await?.status();
            test_kit::ensure!(status == 502, "{status}");
            Ok(())
        });
    };
    let (given_up, came_back, ()) = tokio::join!(
        examined(&spoils, &spoils, &watch),
        examined(&keeps, &keeps, &watch),
        restarts
    );
    says(&given_up, 1, &["502", "gives up for good"]);
    says(&came_back, 0, &["each could be reopened"]);
}
