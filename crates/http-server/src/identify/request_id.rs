use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::Request;
use axum::http::HeaderValue;
use bytes::Bytes;

use super::REQUEST_ID;

/// The longest id that is accepted from a caller, in bytes.
const MAX_LENGTH: usize = 64;

/// Identifies one request, in its answer and in the log. It is a request extension inside
/// [`layered`](super::layered).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        // Only visible ASCII is ever accepted.
        self.0.to_str().unwrap_or_default()
    }

    pub(crate) fn into_header(self) -> HeaderValue {
        self.0
    }

    /// The id of a request. It gets one if it has none yet.
    pub(crate) fn given_to(request: &mut Request) -> Self {
        if let Some(known) = request.extensions().get::<Self>() {
            return known.clone();
        }
        let id = request
            .headers()
            .get(REQUEST_ID)
            .filter(|value| {
                let bytes = value.as_bytes();
                (1..=MAX_LENGTH).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
            })
            .map_or_else(Self::fresh, |value| Self(value.clone()));
        request.extensions_mut().insert(id.clone());
        id
    }

    /// Unique within a process and, because of its random beginning, practically unique among processes.
    fn fresh() -> Self {
        static PROCESS: OnceLock<String> = OnceLock::new();
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let process = PROCESS.get_or_init(|| {
            let random = RandomState::new().build_hasher().finish();
            format!("{:08x}-", random & 0xffff_ffff)
        });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut text = Vec::with_capacity(process.len() + 16);
        text.extend_from_slice(process.as_bytes());
        let digits = (u64::BITS - number.leading_zeros()).div_ceil(4);
        for place in (0..digits).rev() {
            text.push(b"0123456789abcdef"[(number >> (4 * place)) as usize & 15]);
        }
        let value = HeaderValue::from_maybe_shared(Bytes::from(text));
        Self(value.expect("hexadecimal digits and a dash form a header value"))
    }
}
