//! Checks whether a page of another origin may post and listen (WHATWG Fetch, section 3.3).

use axum::http::{HeaderValue, Method, Request, Response, header};
use bytes::Bytes;
use http_body_util::Full;

use super::Patient;
use crate::client::{ask, get};

pub(super) async fn check(patient: &mut Patient, origin: &str) {
    let Ok(value) = HeaderValue::from_str(origin) else {
        patient.findings.fail(
            &format!("{origin:?} is not an origin"),
            "write it as https://chat.example, without a path",
        );
        return;
    };
    let from = |mut request: Request<Full<Bytes>>| {
        request.headers_mut().insert(header::ORIGIN, value.clone());
        request
    };
    let chat = patient.chat.clone();
    let messages = chat.join(&format!("channels/{}/messages", patient.channel));
    let mut preflight = get(messages.clone());
    *preflight.method_mut() = Method::OPTIONS;
    let headers = preflight.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_REQUEST_METHOD,
        HeaderValue::from_static("POST"),
    );
    headers.insert(
        header::ACCESS_CONTROL_REQUEST_HEADERS,
        HeaderValue::from_static("content-type"),
    );
    let questions = [
        ("read history", &patient.chat_client, get(messages)),
        ("post", &patient.chat_client, preflight),
        // Without these headers, a page cannot tell an error from a dead network.
        (
            "see errors of chat-service",
            &patient.chat_client,
            get(chat.join("channels/x")),
        ),
        (
            "see errors of broadcast-sse",
            &patient.sse_client,
            get(patient.sse.join("events")),
        ),
    ];
    let mut refused = Vec::new();
    for (what, client, request) in questions {
        match ask(client, from(request)).await {
            Ok(answer) if allows(&answer, origin) => {}
            Ok(_) => refused.push(what.to_owned()),
            Err(error) => refused.push(format!("{what} ({error})")),
        }
    }
    if refused.is_empty() {
        let fine = format!("pages of {origin} may post and listen");
        patient.findings.ok(&fine);
    } else {
        patient.findings.fail(
            &format!("pages of {origin} cannot {}", refused.join(", ")),
            "put it into access.allowed_origins of both services; a proxy must not answer OPTIONS itself, \
             nor remove Access-Control-Allow-Origin from errors",
        );
    }
}

fn allows(answer: &Response<Bytes>, origin: &str) -> bool {
    let allowed = answer.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    allowed.is_some_and(|allowed| allowed == origin || allowed == "*")
}
