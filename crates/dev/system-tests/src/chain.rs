use tempfile::TempDir;

use crate::{Node, Sender};

/// Broker, chat-service and broadcast-sse, each as a process of its own.
pub struct Chain {
    /// The broker.
    pub broker: Node,
    /// The chat-service.
    pub chat: Node,
    /// The broadcast-sse.
    pub sse: Node,
    _folder: TempDir,
}

impl Chain {
    /// Starts all three with their defaults, on free ports and in a folder of their own.
    pub async fn start() -> Self {
        Self::start_with(|sse| sse).await
    }

    /// Starts all three, the broadcast-sse with other settings.
    pub async fn start_with(change_sse: impl FnOnce(Node) -> Node) -> Self {
        Self::start_changed(|chat| chat, change_sse).await
    }

    /// Starts all three, the chat-service with other settings.
    pub async fn start_with_chat(change_chat: impl FnOnce(Node) -> Node) -> Self {
        Self::start_changed(change_chat, |sse| sse).await
    }

    async fn start_changed(
        change_chat: impl FnOnce(Node) -> Node,
        change_sse: impl FnOnce(Node) -> Node,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let broker = Node::broker().started().await;
        let chat = Node::chat_service(&broker.mqtt_url(), &folder.path().join("store"));
        let chat = change_chat(chat).started().await;
        let sse = change_sse(Node::broadcast_sse(&broker.mqtt_url(), &chat.url()))
            .started()
            .await;
        Self {
            broker,
            chat,
            sse,
            _folder: folder,
        }
    }

    /// Someone who posts to the chat-service.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender::to(self.chat.url())
    }

    /// The URL of a stream of these channels.
    #[must_use]
    pub fn stream(&self, channels: &[&str]) -> String {
        stream_url(&self.sse.url(), channels)
    }
}

/// The URL of a stream of these channels on this node.
pub(crate) fn stream_url(sse: &str, channels: &[&str]) -> String {
    format!("{sse}/events?c={}", channels.join("&c="))
}
