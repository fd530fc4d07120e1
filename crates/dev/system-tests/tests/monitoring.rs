//! What `deploy/monitoring/` shows and tells is what the running services export, and a message can
//! be followed through the logs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use system_tests::{Chain, Node, Sender, deploy, new_channel};
use test_kit::{Listener, Postgres, Process, Program, ensure, eventually};

const SOON: Duration = Duration::from_secs(20);

/// What an operator asks first.
const QUESTIONS: &[&str] = &[
    "hark_sse_streams",
    "hark_sse_events_in_total",
    "hark_sse_events_out_total",
    "hark_sse_delivery_lag_seconds_bucket",
    "hark_sse_events_healed_total",
    "hark_sse_gaps_total",
    "hark_sse_listeners_cut_total",
    "hark_chat_outbox_depth",
    "hark_chat_broker_up",
    "hark_sse_broker_up",
    "hark_chat_commit_seconds_bucket",
    "hark_sse_history_reads_saved_total",
    "hark_chat_store_database_bytes",
    "hark_chat_store_expired_total",
];

/// Runs `promtool`, which must find nothing wrong.
async fn promtool(arguments: &[&str], file: &Path) {
    let promtool = Program::of_system("promtool", "prometheus");
    let checked = promtool.args(arguments).arg(file).run(SOON).await;
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
}

fn monitoring(name: &str) -> String {
    let path = deploy("monitoring").join(name);
    std::fs::read_to_string(path).expect("a file of deploy/monitoring")
}

/// The names of Hark's metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let metrics = words.filter(|word| word.starts_with("hark_"));
    metrics.map(str::to_owned).collect()
}

/// All strings at keys of this name, however deep.
fn strings_at<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == name => found.push(text),
                    other => strings_at(other, name, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| strings_at(item, name, found)),
        _ => {}
    }
}

/// The metrics of a service, as Prometheus gets them.
async fn exported(node: &Node) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/metrics", node.operations_url());
    let answer = client.get(url).send().await.unwrap();
    answer.text().await.unwrap()
}

/// The value of the sample whose line begins so.
fn sample(metrics: &str, name: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

/// With a post and streams behind them, so that every label has been used.
async fn used_chain() -> Chain {
    let chain = Chain::start().await;
    let channel = new_channel();
    let mut listener = Listener::new(chain.stream(&[&channel]));
    listener.expect("ready", SOON).await;
    chain.sender().post(&channel, "hello").await;
    listener.expect("message", SOON).await;
    let mut strange = Listener::new(chain.stream(&[&channel])).resuming_from("unreadable");
    strange.expect("gap", SOON).await;
    strange.expect("message", SOON).await;
    chain
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shown_and_documented_is_exported() {
    let chain = used_chain().await;
    let (chat, sse) = (exported(&chain.chat).await, exported(&chain.sse).await);
    let all = chat.clone() + &sse + &exported(&chain.broker).await;
    let samples = all.lines().filter(|line| !line.starts_with('#'));
    let samples: BTreeSet<&str> = samples
        .map(|line| line.split(['{', ' ']).next().unwrap_or_default())
        .collect();
    for file in ["hark-alerts.yml", "hark-dashboard.json"] {
        let unknown: Vec<_> = metrics_in(&monitoring(file))
            .into_iter()
            .filter(|name| !samples.contains(name.as_str()))
            .collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?} of {samples:?}");
    }

    let dashboard = metrics_in(&monitoring("hark-dashboard.json"));
    for question in QUESTIONS {
        assert!(dashboard.contains(*question), "no panel shows {question}");
    }

    let documented = deploy("../docs/operations.md");
    let documented = metrics_in(&std::fs::read_to_string(documented).unwrap());
    let families = all.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let families: BTreeSet<&str> = families
        .map(|line| line.split(' ').next().unwrap_or_default())
        .collect();
    for name in &documented {
        let known = samples.contains(name.as_str()) || families.contains(name.as_str());
        assert!(known, "docs/operations.md: nothing exports {name}");
    }

    // One event, counted once, though two listeners had it.
    assert_eq!(
        sample(&sse, "hark_sse_delivery_lag_seconds_count"),
        Some(1.0)
    );
    let lag = sample(&sse, "hark_sse_delivery_lag_seconds_sum");
    assert!(lag.is_some_and(|lag| lag < SOON.as_secs_f64()), "{lag:?}");
    for (reason, count) in [
        ("cursor", 1.0),
        ("damaged", 0.0),
        ("epoch", 0.0),
        ("retention", 0.0),
    ] {
        let gaps = format!("hark_sse_gaps_total{{reason=\"{reason}\"}}");
        assert_eq!(sample(&sse, &gaps), Some(count), "{reason}");
    }
    // The one whose cursor could not be read got the event from memory.
    for (by, count) in [("ring", 1.0), ("page", 0.0)] {
        let saved = format!("hark_sse_history_reads_saved_total{{by=\"{by}\"}}");
        assert_eq!(sample(&sse, &saved), Some(count), "{by}");
    }
    assert_eq!(sample(&sse, "hark_sse_listeners_cut_total"), Some(0.0));
    // There before it has happened, so that the first is seen as an increase.
    let failed = "hark_chat_posts_total{outcome=\"failed\"}";
    assert_eq!(sample(&chat, failed), Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_store_tells_what_it_takes_keeps_and_removes() {
    let (folder, postgres) = (tempfile::tempdir().unwrap(), Postgres::shared().await);
    let database = postgres.database().await;
    let broker = Node::broker().started().await;
    let mqtt = broker.mqtt_url();
    for chat in [
        Node::chat_service(&mqtt, &folder.path().join("store")),
        Node::chat_service_on_postgres(&mqtt, &database),
    ] {
        let chat = chat.env("HARK_STORE__MAX_PER_CHANNEL", "10");
        let chat = chat.started().await;
        let (sender, channel) = (Sender::to(chat.url()), new_channel());
        sender.wait_for_broker().await;
        sender.post_many(&channel, 50).await;
        eventually!(SOON, {
            let metrics = exported(&chat).await;
            let value = |name: &str| sample(&metrics, &format!("hark_chat_{name}"));
            for (name, expected) in [
                ("broker_up", 1.0),
                ("outbox_depth", 0.0),
                ("store_failed_total", 0.0),
            ] {
                ensure!(value(name) == Some(expected), "{name}: {:?}", value(name));
            }
            for (name, least) in [
                ("store_stored_total", 50.0),
                ("publish_confirmed_total", 50.0),
                ("commit_seconds_count", 50.0),
                ("commit_seconds_sum", f64::MIN_POSITIVE),
                ("store_database_bytes", 1.0),
                ("store_expired_total", 1.0),
            ] {
                let value = value(name);
                ensure!(
                    value.is_some_and(|value| value >= least),
                    "{name}: {value:?}"
                );
            }
            Ok(())
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_takes_the_rules_and_they_tell_what_they_should() {
    let folder = deploy("monitoring");
    promtool(&["check", "config"], &folder.join("prometheus.yml")).await;
    promtool(&["check", "rules"], &folder.join("hark-alerts.yml")).await;
    promtool(&["test", "rules"], &folder.join("hark-alerts.test.yml")).await;
    let tests = monitoring("hark-alerts.test.yml");
    for rule in monitoring("hark-alerts.yml").lines() {
        if let Some(alert) = rule.trim().strip_prefix("- alert: ") {
            let case = format!("alertname: {alert}\n        exp_alerts:\n");
            assert!(tests.contains(&case), "nothing tests that {alert} is told");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_understands_every_question_of_the_dashboard() {
    let dashboard: Value = serde_json::from_str(&monitoring("hark-dashboard.json")).unwrap();
    assert_eq!(dashboard["schemaVersion"], 38, "Grafana 10");
    let mut sources = Vec::new();
    strings_at(&dashboard["panels"], "uid", &mut sources);
    let foreign = sources.iter().find(|uid| **uid != "${datasource}");
    assert_eq!(foreign, None, "the data source is the reader's choice");

    let mut questions = Vec::new();
    strings_at(&dashboard["panels"], "expr", &mut questions);
    assert!(!questions.is_empty());
    // JSON is YAML as well.
    let rules: Vec<Value> = (0..)
        .zip(&questions)
        .map(|(number, question)| {
            let expr = question.replace("$__rate_interval", "1m").replace('$', "");
            json!({ "record": format!("panel:{number}"), "expr": expr })
        })
        .collect();
    let rules = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dashboard.yml");
    std::fs::write(&file, rules.to_string()).unwrap();
    promtool(&["check", "rules"], &file).await;
}

/// The first line of a log in JSON with this message.
fn logged(process: &Process, message: &str) -> Result<Value, String> {
    let log = process.stderr();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let mut lines = lines.filter(|line: &Value| line["message"] == message);
    lines.next().ok_or_else(|| {
        let mut why = format!("no line {message:?} in:\n");
        let _infallible = writeln!(why, "{log}");
        why
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_can_be_followed_from_the_post_to_the_frame() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Node::broker().started().await;
    let told = |node: Node, level| {
        node.env("HARK_LOG__FORMAT", "json")
            .env("HARK_LOG__LEVEL", level)
    };
    let chat = Node::chat_service(&broker.mqtt_url(), &folder.path().join("store"));
    let chat = told(chat, "info,chat_service::rest=debug").started().await;
    let told_sse = Node::broadcast_sse(&broker.mqtt_url(), &chat.url());
    let told_sse = told(told_sse, "info,broadcast_sse::hub=debug")
        .started()
        .await;
    let quiet_sse = Node::broadcast_sse(&broker.mqtt_url(), &chat.url());
    let quiet_sse = told(quiet_sse, "info").started().await;

    let (sender, channel) = (Sender::to(chat.url()), new_channel());
    let stream = |node: &Node| Listener::new(format!("{}/events?c={channel}", node.url()));
    let mut listeners = [stream(&told_sse), stream(&quiet_sse)];
    for listener in &mut listeners {
        listener.expect("ready", SOON).await;
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = client
        .post(sender.messages_url(&channel))
        .header("X-Request-Id", "follow-me")
        .json(&json!({ "text": "a secret" }));
    let answer = post.send().await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "follow-me");
    let mut frame = Value::Null;
    for listener in &mut listeners {
        frame = listener.expect("message", SOON).await.json();
    }

    let stored = eventually!(SOON, {
        Ok(logged(chat.process(), "a message was stored")?)
    });
    assert_eq!(stored["request_id"], "follow-me", "{stored}");
    let handed_out = eventually!(SOON, {
        Ok(logged(told_sse.process(), "handed out to listeners")?)
    });
    for line in [&stored, &handed_out] {
        for field in ["channel", "seq", "id"] {
            assert_eq!(line[field], frame[field], "{field}: {line}");
        }
    }
    // Nothing of messages at the default level, and nobody's text at any.
    assert!(logged(quiet_sse.process(), "handed out to listeners").is_err());
    for node in [&chat, &told_sse, &quiet_sse] {
        assert!(!node.process().stderr().contains("a secret"));
    }
}
