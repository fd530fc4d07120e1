use crate::dialect::{Dialect, Start, get, post};

/// `GET <path>?c=ID` listens, `POST <path>?c=ID` publishes the body.
pub(crate) struct Simple {
    pub(crate) listen: &'static str,
    pub(crate) publish: &'static str,
}

impl Dialect for Simple {
    fn listen(&self, channel: &str, start: Start) -> Option<String> {
        (start == Start::Live).then(|| get(&format!("{}?c={channel}", self.listen)))
    }

    fn publish(&self, channel: &str, payload: &[u8]) -> Vec<u8> {
        let target = format!("{}?c={channel}", self.publish);
        post(&target, "Content-Type: text/plain\r\n", payload)
    }
}
