//! Command-line clients of the API: `hark post`, `hark listen`, `hark health`.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use bytes::Bytes;
use event_stream::Reader;
use http_body_util::{BodyExt, Full};
use http_server::http_client::{BaseUrl, HttpClient, NoAnswer};
use hyper::body::Incoming;
use serde_json::{Value, json};
use service_command::Failure;
use service_kit::tls;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::cli::{Health, Listen, Post};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a stream may be silent: two pings and a half.
const SILENCE: Duration = Duration::from_secs(40);

/// How long to wait before the next connection, until a stream sends its own `retry:`.
const RETRY: Duration = Duration::from_secs(2);

/// The most that is read from standard input, in bytes: more than any service accepts.
const LONGEST_INPUT: u64 = 16 << 20;

/// Posts a text and prints the stored event.
pub(crate) async fn post(options: Post) -> Result<(), Failure> {
    let chat = base(&options.chat)?;
    let text = match options.text.as_str() {
        "-" => spawn_blocking(input).await.map_err(Failure::failed)??,
        _ => options.text,
    };
    if text.is_empty() {
        return Err(Failure::usage("the text is empty; write a message"));
    }
    let mut body = json!({ "text": text });
    if let Some(name) = options.name {
        body["from"] = json!({ "name": name });
    }
    let url = chat.join(&format!("channels/{}/messages", options.channel));
    let client = client(&chat, options.ca_file.as_deref())?;
    let answer = ask(&client, json_to(url.clone(), &body)).await;
    let answer = answer.map_err(|error| unreachable(&chat, &error))?;
    if !answer.status().is_success() {
        return Err(refused(&url, &answer));
    }
    print_line(&String::from_utf8_lossy(answer.body()))
}

/// Reads standard input, without the line break that `echo` and editors add at the end.
fn input() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let mut stdin = std::io::stdin().lock().take(LONGEST_INPUT + 1);
    let read = stdin.read_to_end(&mut bytes);
    read.map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
    if bytes.len() as u64 > LONGEST_INPUT {
        return Err(Failure::usage(
            "standard input is larger than 16 MiB, which is too large for a message",
        ));
    }
    let mut text =
        String::from_utf8(bytes).map_err(|_| Failure::usage("standard input is not UTF-8 text"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// Prints the events of a channel until the program is stopped.
pub(crate) async fn listen(options: Listen) -> Result<(), Failure> {
    let sse = base(&options.sse)?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("c", &options.channel.to_string());
    if let Some(since) = &options.since {
        query.append_pair("since", since);
    }
    if let Some(last) = options.last {
        query.append_pair("last", &last.to_string());
    }
    let url = sse.join(&format!("events?{}", query.finish()));
    let client = client(&sse, options.ca_file.as_deref())?;
    let mut stream = Reader::default();
    let mut trouble = None;
    loop {
        let request = stream_from(url.clone(), stream.cursor());
        match client.send(request).await {
            Ok(answer) if answer.status() == StatusCode::OK => {
                if trouble.take().is_some() {
                    eprintln!("hark: connected again");
                }
                read(answer, &mut stream).await?;
            }
            Ok(answer) if answer.status().is_client_error() => {
                let answer = whole(answer).await;
                return Err(match answer {
                    Ok(answer) => refused(&url, &answer),
                    Err(error) => unreachable(&sse, &error),
                });
            }
            Ok(answer) => tell(&mut trouble, format!("{sse} answered {}", answer.status())),
            Err(error) => tell(&mut trouble, format!("cannot reach {sse}: {error}")),
        }
        stream.restart();
        let wait = stream.retry().unwrap_or(RETRY).min(Duration::from_secs(30));
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
    }
}

/// Prints the events of one connection, until it ends.
async fn read(mut answer: Response<Incoming>, stream: &mut Reader) -> Result<(), Failure> {
    // A connection that breaks or goes silent is treated like one that ended.
    while let Some(bytes) = next(&mut answer, SILENCE).await {
        let events = stream.read(&bytes);
        for event in events.map_err(|error| Failure::failed(format!("the stream sent {error}")))? {
            match event.name.as_str() {
                "ping" | "ready" => {}
                "gap" => eprintln!("hark: messages are missing: {}", event.data),
                _ => print_line(&event.data)?,
            }
        }
    }
    Ok(())
}

/// Queries `/healthz`.
pub(crate) async fn health(options: Health) -> Result<(), Failure> {
    let ops = base(&options.ops)?;
    let url = ops.join("healthz");
    let client = client(&ops, None)?;
    let answer = ask(&client, get(url.clone())).await;
    let answer = answer.map_err(|error| unreachable(&ops, &error))?;
    if answer.status().is_success() {
        return print_line(&format!("{ops} is alive"));
    }
    Err(refused(&url, &answer))
}

/// A client for a service. With TLS it trusts the authorities in `ca_file`, or the system's.
pub(crate) fn client(base: &BaseUrl, ca_file: Option<&Path>) -> Result<HttpClient, Failure> {
    let trust = if base.is_https() {
        tls::client(ca_file).map_err(Failure::failed)?
    } else {
        tls::trusting_nobody()
    };
    Ok(HttpClient::new(&trust, PATIENCE))
}

/// The URL of a service; a bare `host:port` is accepted too.
pub(crate) fn base(text: &str) -> Result<BaseUrl, Failure> {
    if text.starts_with(':') {
        let example = format!("write the host too: http://localhost{text}");
        return Err(Failure::usage(format!("{text:?} is not a URL; {example}")));
    }
    let scheme = if text.contains("://") { "" } else { "http://" };
    let url = format!("{scheme}{text}").parse();
    url.map_err(|error| Failure::usage(format!("the URL {error}")))
}

pub(crate) fn get(url: Uri) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = url;
    request
}

/// A POST of JSON.
pub(crate) fn json_to(url: Uri, body: &Value) -> Request<Full<Bytes>> {
    let mut request = get(url);
    *request.method_mut() = Method::POST;
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, json);
    *request.body_mut() = Full::from(body.to_string());
    request
}

/// The request that an `EventSource` would send.
pub(crate) fn stream_from(url: Uri, cursor: Option<&str>) -> Request<Full<Bytes>> {
    let mut request = get(url);
    let headers = request.headers_mut();
    let stream = HeaderValue::from_static("text/event-stream");
    headers.insert(header::ACCEPT, stream);
    // Hark's cursors are visible ASCII. Another server's may not be valid in a header; it is left out.
    if let Some(Ok(cursor)) = cursor.map(HeaderValue::from_str) {
        headers.insert("last-event-id", cursor);
    }
    request
}

/// Sends a request and returns the whole answer.
pub(crate) async fn ask(
    client: &HttpClient,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, NoAnswer> {
    let answered = timeout(PATIENCE, async { whole(client.send(request).await?).await }).await;
    answered.unwrap_or_else(|late| Err(NoAnswer::of(&late)))
}

pub(crate) async fn whole(answer: Response<Incoming>) -> Result<Response<Bytes>, NoAnswer> {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| NoAnswer::of(&error))?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// The next bytes of a body; `None` when it ends, breaks, or is silent for too long.
pub(crate) async fn next(answer: &mut Response<Incoming>, patience: Duration) -> Option<Bytes> {
    loop {
        let frame = timeout(patience, answer.body_mut().frame()).await.ok()??;
        // A frame without data is a trailer.
        if let Ok(bytes) = frame.ok()?.into_data() {
            return Some(bytes);
        }
    }
}

/// Reports a problem once, not at every attempt.
fn tell(trouble: &mut Option<String>, now: String) {
    if trouble.is_none() {
        eprintln!("hark: {now}; trying again");
        *trouble = Some(now);
    }
}

fn unreachable(base: &BaseUrl, error: &NoAnswer) -> Failure {
    let hint = "is it running, and is this its address?";
    Failure::failed(format!("no answer from {base}: {hint} ({error})"))
}

/// The failure for an answer that is not a success, in its own words.
fn refused(url: &Uri, answer: &Response<Bytes>) -> Failure {
    Failure::failed(format!(
        "{} answered {}: {}",
        url.path(),
        answer.status(),
        reason(answer)
    ))
}

/// Why a service refuses a request, in its own words.
pub(crate) fn reason(answer: &Response<Bytes>) -> String {
    // A body that is not a problem document gives no reason; the status remains.
    let problem: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    let detail = problem["detail"].as_str().or(problem["title"].as_str());
    let detail = detail.unwrap_or("no reason given");
    match problem["field"].as_str() {
        Some(field) => format!("`{field}`: {detail}"),
        None => detail.to_owned(),
    }
}

pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::failed(format!("cannot write to standard output: {error}")))
}
