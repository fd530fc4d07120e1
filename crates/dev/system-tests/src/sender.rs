use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use test_kit::{ensure, eventually};
use uuid::Uuid;

/// A client of the REST interface that posts as a careful one does: with an id
/// of its own, again and again until the answer is 2xx.
#[derive(Clone)]
pub struct Sender {
    client: Client,
    chat: String,
}

/// A message that was answered with 2xx.
#[derive(Debug, Clone)]
pub struct Posted {
    /// The status of the answer.
    pub status: u16,
    /// The event, byte by byte as it was answered.
    pub line: String,
    /// The event.
    pub event: Value,
}

impl Posted {
    /// Its number in the channel.
    ///
    /// # Panics
    /// When the event has none.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.event["seq"]
            .as_u64()
            .unwrap_or_else(|| panic!("no seq in {}", self.line))
    }
}

impl Sender {
    /// One that posts to the chat-service at this URL.
    ///
    /// # Panics
    /// When no HTTP client can be made.
    #[must_use]
    pub fn to(chat: impl Into<String>) -> Self {
        Self::with_headers(chat.into(), HeaderMap::new())
    }

    /// One of this address, as a reverse proxy says that the chat-service trusts.
    ///
    /// # Panics
    /// When no HTTP client can be made.
    #[must_use]
    pub fn forwarded(chat: impl Into<String>, client: IpAddr) -> Self {
        let client = HeaderValue::try_from(client.to_string()).expect("digits, dots and colons");
        Self::with_headers(
            chat.into(),
            HeaderMap::from_iter([(HeaderName::from_static("x-forwarded-for"), client)]),
        )
    }

    fn with_headers(chat: String, headers: HeaderMap) -> Self {
        let client = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .default_headers(headers)
            .build();
        Self {
            client: client.expect("a client without TLS has nothing that can fail"),
            chat,
        }
    }

    /// The URL of a channel's messages.
    #[must_use]
    pub fn messages_url(&self, channel: &str) -> String {
        format!("{}/channels/{channel}/messages", self.chat)
    }

    /// Posts a body of JSON once.
    ///
    /// # Errors
    /// What the network says.
    pub async fn try_post(&self, channel: &str, body: &Value) -> reqwest::Result<Response> {
        self.client
            .post(self.messages_url(channel))
            .json(body)
            .send()
            .await
    }

    /// Posts a text that must be taken at the first attempt.
    ///
    /// # Panics
    /// When it is not.
    pub async fn post(&self, channel: &str, text: &str) -> Posted {
        self.post_json(channel, &json!({ "text": text })).await
    }

    /// Posts a body of JSON that must be taken at the first attempt.
    ///
    /// # Panics
    /// When it is not.
    pub async fn post_json(&self, channel: &str, body: &Value) -> Posted {
        let response = self
            .try_post(channel, body)
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        let status = response.status().as_u16();
        let line = response
            .text()
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        posted(status, &line).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Posts this many texts one after the other, each taken at the first attempt.
    ///
    /// # Panics
    /// When one is not.
    pub async fn post_many(&self, channel: &str, count: usize) -> Vec<Posted> {
        let mut all = Vec::new();
        for number in 0..count {
            all.push(self.post(channel, &format!("message {number}")).await);
        }
        all
    }

    /// Posts a text with an id of its own until it is answered with 2xx.
    ///
    /// # Panics
    /// When that takes longer than a minute, or the answer is a 4xx.
    pub async fn post_until_taken(&self, channel: &str, text: &str) -> Posted {
        let body = json!({ "id": Uuid::now_v7(), "text": text });
        eventually!(Duration::from_secs(60), {
            let response = self.try_post(channel, &body).await?;
            let status = response.status().as_u16();
            // A lost answer is tried again as well: the id makes that safe.
            let line = response.text().await?;
            assert!(!(400..500).contains(&status), "{status}: {line}");
            Ok(posted(status, &line)?)
        })
    }

    /// Waits until the chat-service has its broker again, as its answers to posts
    /// in a channel of their own say.
    ///
    /// # Panics
    /// When that takes longer than 30 seconds.
    pub async fn wait_for_broker(&self) {
        let channel = crate::new_channel();
        eventually!(Duration::from_secs(30), {
            let status = self.post(&channel, "is the broker there?").await.status;
            ensure!(status == 201, "{status}");
            Ok(())
        });
    }

    /// A page of history: the messages after this number.
    ///
    /// # Panics
    /// When it cannot be had.
    pub async fn page(&self, channel: &str, after: u64) -> Value {
        let url = format!("{}?after={after}&limit=1000", self.messages_url(channel));
        get_json(&self.client, &url).await
    }

    /// The status of a readiness or health check, and its body.
    ///
    /// # Errors
    /// What the network says.
    pub async fn check(&self, url: &str) -> reqwest::Result<(u16, String)> {
        let response = self.client.get(url).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// Waits until a check is answered with this status, and returns its body.
    ///
    /// # Panics
    /// When that takes longer than `within`.
    pub async fn wait_for_check(&self, url: &str, status: u16, within: Duration) -> String {
        eventually!(within, {
            let (now, body) = self.check(url).await?;
            ensure!(now == status, "{url} says {now}: {body}");
            Ok(body)
        })
    }
}

fn posted(status: u16, body: &str) -> Result<Posted, String> {
    if !(200..300).contains(&status) {
        return Err(format!("answered with {status}: {body}"));
    }
    let line = body.trim_end_matches('\n').to_owned();
    let event =
        serde_json::from_str(&line).map_err(|error| format!("{status} with {line:?}: {error}"))?;
    Ok(Posted {
        status,
        line,
        event,
    })
}

async fn get_json(client: &Client, url: &str) -> Value {
    let response = client
        .get(url)
        .send()
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    let status = response.status().as_u16();
    assert_eq!(status, 200, "{url}: {:?}", response.text().await);
    response
        .json()
        .await
        .unwrap_or_else(|error| panic!("{url}: {error:?}"))
}
