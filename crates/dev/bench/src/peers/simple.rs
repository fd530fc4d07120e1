use crate::dialect::{Dialect, Start, get, post};

/// `GET <path>?c=ID` listens, `POST <path>?c=ID` publishes the body.
pub(crate) struct Simple {
    pub(crate) listen: &'static str,
    pub(crate) publish: &'static str,
}

impl Dialect for Simple {
    fn listen(&self, channel: &str, start: Start<'_>) -> Option<String> {
        let target = format!("{}?c={channel}", self.listen);
        match start {
            Start::Live => Some(get(&target, "")),
            Start::Newest(_) => None,
            Start::After(cursor) => Some(get(&target, &format!("Last-Event-ID: {cursor}\r\n"))),
        }
    }

    fn publish(&self, channel: &str, payload: &[u8]) -> Vec<u8> {
        let target = format!("{}?c={channel}", self.publish);
        post(&target, "Content-Type: text/plain\r\n", payload)
    }
}
