use event_stream::Block;

/// How a server is spoken to.
pub(crate) trait Dialect {
    /// The request that opens a stream of a channel, complete; `None` when this
    /// server cannot start there.
    fn listen(&self, channel: &str, start: Start<'_>) -> Option<String>;

    /// The request that publishes a payload (letters, digits, `~` and `-`), complete.
    fn publish(&self, channel: &str, payload: &[u8]) -> Vec<u8>;

    /// What tells that a stream misses nothing from now on.
    fn ready(&self) -> Ready {
        Ready::Head
    }

    /// The cursor behind this event, for a stream that continues there.
    fn cursor(&self, event: &Block<'_>) -> Option<String> {
        let id = String::from_utf8_lossy(event.id.unwrap_or_default());
        (!id.is_empty()).then(|| id.into_owned())
    }
}

/// Where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start<'a> {
    /// With what is published from now on.
    Live,
    /// With the newest so many.
    Newest(u32),
    /// Behind a cursor.
    After(&'a str),
}

/// What tells that a stream has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// The response head.
    Head,
    /// The event of this name.
    Event(&'static str),
    /// Any event: the first is not a message.
    AnyEvent,
}

/// A GET without a body; `headers` are complete lines, each with its CR LF.
pub(crate) fn get(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{headers}\r\n"
    )
}

/// A POST; `headers` are complete lines, each with its CR LF.
pub(crate) fn post(target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut request = format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}
