/// One dispatched event of a stream (WHATWG HTML §9.2.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The `id:` field of this very block, if it had one.
    pub id: Option<String>,
    /// The `event:` field; `message` when there was none.
    pub event: String,
    /// The `data:` lines, joined by line feeds.
    pub data: String,
}

impl Event {
    /// The data as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data)
            .unwrap_or_else(|error| panic!("data of {self:?} is not JSON: {error}"))
    }
}

impl From<event_stream::Event> for Event {
    fn from(event: event_stream::Event) -> Self {
        let event_stream::Event { id, name, data } = event;
        Self {
            id,
            event: name,
            data,
        }
    }
}
