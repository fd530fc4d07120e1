//! The command-line ends of the API: `hark post`, `hark listen`, `hark health`.

use std::{io::Write as _, time::Duration};

use reqwest::{Client, Response, StatusCode, Url};
use serde_json::{Value, json};
use service_kit::command::Failure;

use crate::{
    cli::{Health, Listen, Post},
    event_stream::EventStream,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a stream may be silent: two pings and a half.
const SILENCE: Duration = Duration::from_secs(40);

/// How long to wait before the next connection, until a stream says so itself.
const RETRY: Duration = Duration::from_secs(2);

/// Posts a text and prints the stored event.
pub(crate) async fn post(options: Post) -> Result<(), Failure> {
    let url = url(
        &options.chat,
        &format!("channels/{}/messages", options.channel),
    )?;
    let mut body = json!({ "text": options.text });
    if let Some(name) = options.name {
        body["from"] = json!({ "name": name });
    }
    let request = client()?
        .post(url.clone())
        .timeout(PATIENCE)
        .json(&body)
        .send();
    let response = request.await.map_err(|error| unreachable(&url, &error))?;
    if !response.status().is_success() {
        return Err(refused(response).await);
    }
    let event = response
        .text()
        .await
        .map_err(|error| unreachable(&url, &error))?;
    print_line(&event)
}

/// Prints the events of a channel until it is stopped.
pub(crate) async fn listen(options: Listen) -> Result<(), Failure> {
    let mut url = url(&options.sse, "events")?;
    url.query_pairs_mut()
        .append_pair("c", &options.channel.to_string());
    if let Some(since) = &options.since {
        url.query_pairs_mut().append_pair("since", since);
    }
    if let Some(last) = options.last {
        url.query_pairs_mut().append_pair("last", &last.to_string());
    }
    let client = client()?;
    let mut stream = EventStream::default();
    let mut trouble = None;
    loop {
        let mut request = client.get(url.clone());
        if let Some(cursor) = &stream.cursor {
            request = request.header("last-event-id", cursor);
        }
        match request.send().await {
            Ok(response) if response.status() == StatusCode::OK => {
                if trouble.take().is_some() {
                    eprintln!("hark: connected again");
                }
                read(response, &mut stream).await?;
            }
            Ok(response) if response.status().is_client_error() => {
                return Err(refused(response).await);
            }
            Ok(response) => tell(
                &mut trouble,
                format!("{url} answered {}", response.status()),
            ),
            Err(error) => tell(&mut trouble, format!("cannot reach {url}: {error}")),
        }
        stream.restart();
        let wait = stream.retry.unwrap_or(RETRY).min(Duration::from_secs(30));
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
    }
}

/// Prints the events of one connection, until it ends.
async fn read(mut response: Response, stream: &mut EventStream) -> Result<(), Failure> {
    // A connection that breaks or falls silent is the same as one that ended.
    while let Ok(Ok(Some(bytes))) = tokio::time::timeout(SILENCE, response.chunk()).await {
        for event in stream.read(&bytes) {
            match event.name.as_str() {
                "ping" | "ready" => {}
                "gap" => eprintln!("hark: messages are missing: {}", event.data),
                _ => print_line(&event.data)?,
            }
        }
    }
    Ok(())
}

/// Asks `/healthz`.
pub(crate) async fn health(options: Health) -> Result<(), Failure> {
    let url = url(&options.ops, "healthz")?;
    let request = client()?.get(url.clone()).timeout(PATIENCE).send();
    let response = request.await.map_err(|error| unreachable(&url, &error))?;
    if response.status().is_success() {
        return Ok(());
    }
    Err(refused(response).await)
}

/// Says a trouble once, not at every try.
fn tell(trouble: &mut Option<String>, now: String) {
    if trouble.is_none() {
        eprintln!("hark: {now}; trying again");
        *trouble = Some(now);
    }
}

fn client() -> Result<Client, Failure> {
    let client = Client::builder()
        .connect_timeout(PATIENCE)
        .no_proxy()
        .build();
    client.map_err(Failure::failed)
}

/// The URL of a path of a service; a bare `host:port` will do as well.
fn url(base: &str, path: &str) -> Result<Url, Failure> {
    let scheme = if base.contains("://") { "" } else { "http://" };
    let base = base.trim_end_matches('/');
    Url::parse(&format!("{scheme}{base}/{path}"))
        .map_err(|error| Failure::usage(format!("{base:?} is not a URL: {error}")))
}

fn unreachable(url: &Url, error: &reqwest::Error) -> Failure {
    let hint = "is it running, and is this its address?";
    Failure::failed(format!("no answer from {url}: {hint} ({error})"))
}

/// What an answer that is no success says of itself.
async fn refused(response: Response) -> Failure {
    let (status, url) = (response.status(), response.url().clone());
    // A body that breaks off or is no problem document has no reason to tell; the status stands.
    let body = response.text().await.unwrap_or_default();
    let problem: Value = serde_json::from_str(&body).unwrap_or_default();
    let detail = problem["detail"]
        .as_str()
        .or(problem["title"].as_str())
        .unwrap_or("no reason given");
    Failure::failed(format!("{url} answered {status}: {detail}"))
}

fn print_line(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::failed(format!("cannot write to standard output: {error}")))
}
