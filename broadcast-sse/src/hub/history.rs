//! Questions to chat-service: heads and pages of history, over its public API.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chat_model::{ChannelId, Heads, HeadsQuery, Page as WirePage, Seq};
use reqwest::{Client, Url};

use super::{entry::Entry, seat::Page};

/// chat-service, as this node sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct History {
    client: Client,
    base: Url,
}

/// Why chat-service did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    /// It cannot be reached, or took too long.
    #[error("chat-service does not answer: {0}")]
    Unreachable(#[from] reqwest::Error),
    /// It answered with a status that is no success.
    #[error("chat-service answered {0}")]
    Refused(reqwest::StatusCode),
    /// Its answer is not what the protocol says.
    #[error("chat-service's answer cannot be read: {0}")]
    Unreadable(String),
}

impl History {
    /// Talks to the chat-service at `base`, whose path ends with a slash.
    ///
    /// # Errors
    /// If the system does not let it have an HTTP client.
    pub(crate) fn new(base: Url) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(10))
            .no_proxy()
            .build()?;
        Ok(Self { client, base })
    }

    /// The heads of these channels, in their order, read from the store.
    ///
    /// # Errors
    /// If chat-service does not answer as the protocol says.
    pub(crate) async fn heads(&self, channels: &[ChannelId]) -> Result<Heads, HistoryError> {
        let query = HeadsQuery {
            channels: channels.to_vec(),
        };
        let request = self.client.post(self.url("heads")).json(&query);
        let body = answer(request).await?;
        let heads: Heads = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
        let asked = heads.heads.iter().map(|head| head.channel);
        if !asked.eq(channels.iter().copied()) {
            return Err(HistoryError::Unreadable(
                "other channels than asked for".to_owned(),
            ));
        }
        Ok(heads)
    }

    /// At most `limit` events after `after`.
    ///
    /// # Errors
    /// If chat-service does not answer as the protocol says.
    pub(crate) async fn page(
        &self,
        channel: ChannelId,
        after: Seq,
        limit: usize,
    ) -> Result<Page, HistoryError> {
        let mut url = self.url(&format!("channels/{channel}/messages"));
        url.query_pairs_mut()
            .append_pair("after", &after.to_string())
            .append_pair("limit", &limit.to_string());
        let body = answer(self.client.get(url)).await?;
        let page: WirePage<'_> =
            serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
        if page.channel != channel {
            return Err(HistoryError::Unreadable(
                "another channel than asked for".to_owned(),
            ));
        }
        let mut entries: Vec<Arc<Entry>> = Vec::with_capacity(page.messages.len());
        for message in &page.messages {
            let entry = Entry::new(channel, message.get().as_bytes())
                .map_err(|error| HistoryError::Unreadable(error.to_string()))?;
            // The oldest may have expired; between two events of a page nothing can be missing.
            let good = match entries.last() {
                Some(last) => entry.seq() == last.seq() + 1,
                None => entry.seq() > after,
            };
            if !good {
                let why = format!("event {} is not the next one", entry.seq());
                return Err(HistoryError::Unreadable(why));
            }
            entries.push(Arc::new(entry));
        }
        Ok(Page {
            after,
            head: page.to_head(),
            entries,
        })
    }

    fn url(&self, path: &str) -> Url {
        self.base
            .join(path)
            .expect("fixed paths join an HTTP base, which the configuration checks")
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Bytes, HistoryError> {
    let response = request.send().await?;
    if !response.status().is_success() {
        return Err(HistoryError::Refused(response.status()));
    }
    Ok(response.bytes().await?)
}

fn unreadable(error: &serde_json::Error) -> HistoryError {
    HistoryError::Unreadable(error.to_string())
}
