//! Guesses which call was meant by one that does not exist.

use axum::http::{Method, Uri};
use chat_model::ChannelId;

/// What to call instead of `method` `uri`, which does not exist or does not support the method.
pub(crate) fn meant(method: &Method, uri: &Uri) -> Option<String> {
    let mut steps = uri.path().split('/');
    let channel = steps.find_map(|step| step.parse::<ChannelId>().ok());
    let name = channel.map_or_else(|| "<channel>".to_owned(), |channel| channel.to_string());
    let call = if *method == Method::GET || *method == Method::HEAD {
        format!(
            "open a stream with GET /events?c={name}; history is at chat-service, on port 8080 by default"
        )
    } else {
        format!(
            "post messages to chat-service, on port 8080 by default: POST /channels/{name}/messages"
        )
    };
    Some(match channel {
        Some(_) => call,
        None => format!("{call}; <channel> is a UUID"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_call_is_named() {
        let channel = "c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0";
        for (method, path, call) in [
            (
                Method::POST,
                "/channels/{c}/messages",
                "chat-service, on port 8080 by default: POST /channels/{c}/messages",
            ),
            (Method::POST, "/events", "POST /channels/<channel>/messages"),
            (Method::GET, "/{c}", "GET /events?c={c};"),
            (Method::GET, "/streams", "GET /events?c=<channel>"),
        ] {
            let path = path.replace("{c}", channel).parse().unwrap();
            let said = meant(&method, &path).unwrap();
            let call = call.replace("{c}", channel);
            assert!(said.contains(&call), "{path}: {said}");
        }
    }
}
