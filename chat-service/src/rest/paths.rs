//! Guesses which call was meant by one that does not exist, so that people who try curl for the first time
//! need not look it up.

use axum::http::{Method, Uri};
use chat_model::ChannelId;

/// What to call instead of `method` `uri`, which does not exist or does not support the method.
pub(crate) fn meant(method: &Method, uri: &Uri) -> Option<String> {
    let mut steps = uri.path().split('/').filter(|step| !step.is_empty());
    let channel = steps
        .clone()
        .find_map(|step| step.parse::<ChannelId>().ok());
    match steps.next() {
        Some("events") if method == Method::GET => {
            return Some(format!(
                "streams are at broadcast-sse, on port 8081 by default: {}",
                example("GET /events?c=", channel, "")
            ));
        }
        Some("heads") => return Some("request heads with POST /heads".to_owned()),
        Some("healthz" | "readyz" | "metrics") => {
            return Some("that is at the operations listener, on a separate port".to_owned());
        }
        _ => {}
    }
    let (what, call) = if *method == Method::GET || *method == Method::HEAD {
        ("read history with", "GET /channels/")
    } else {
        ("post messages with", "POST /channels/")
    };
    Some(format!("{what} {}", example(call, channel, "/messages")))
}

fn example(call: &str, channel: Option<ChannelId>, rest: &str) -> String {
    match channel {
        Some(channel) => format!("{call}{channel}{rest}"),
        None => format!(
            "{call}<channel>{rest}, where <channel> is any UUID that you like (`hark new` makes one)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant_by(method: &Method, path: &str) -> String {
        meant(method, &path.parse().unwrap()).unwrap_or_default()
    }

    #[test]
    fn the_right_call_is_named() {
        let channel = "c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0";
        let whole = format!("POST /channels/{channel}/messages");
        for path in [
            format!("/{channel}"),
            format!("/channels/{channel}"),
            format!("/channels/{channel}/message"),
            format!("/messages/{}", channel.to_uppercase()),
        ] {
            let said = meant_by(&Method::POST, &path);
            assert!(said.ends_with(&whole), "{path}: {said}");
        }
        for path in ["/", "/mytopic", "/channels", "//"] {
            let said = meant_by(&Method::POST, path);
            assert!(
                said.contains("POST /channels/<channel>/messages"),
                "{path}: {said}"
            );
            assert!(said.contains("UUID"), "{said}");
        }
        assert!(meant_by(&Method::GET, "/").contains("GET /channels/<channel>/messages"));
        assert!(meant_by(&Method::GET, "/events?c=x").contains("broadcast-sse"));
        assert!(meant_by(&Method::GET, "/heads").contains("POST /heads"));
    }
}
