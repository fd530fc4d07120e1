//! Writes a page of history: the head, then the stored bytes with commas between them.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use chat_store::StoredPage;
use futures_util::stream;
use http_server::problem::Problem;

/// Events are sent together in pieces of about this many bytes. A piece is put together only when the
/// client reads it. Larger events are sent as they are.
const PIECE: usize = 16 * 1024;

/// The page as an answer, and the bytes of its body.
pub(crate) fn answer(page: StoredPage) -> Result<(usize, Response), Problem> {
    // `{"channel":…,"epochs":[…]}` becomes `{"channel":…,"epochs":[…],"messages":[`.
    let head = serde_json::to_vec(&page.head);
    let mut head = head.map_err(|error| Problem::internal().caused_by(error))?;
    head.pop();
    if !page.damaged.is_empty() {
        let damaged = serde_json::to_vec(&page.damaged);
        let damaged = damaged.map_err(|error| Problem::internal().caused_by(error))?;
        head.extend_from_slice(b",\"damaged\":");
        head.extend_from_slice(&damaged);
    }
    head.extend_from_slice(b",\"messages\":[");
    let pieces = Pieces {
        piece: BytesMut::from(&head[..]),
        events: page.events.into_iter(),
        state: State::First,
    };
    let bytes = pieces.bytes();
    let headers = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        // The length is known in advance, so the body needs no chunks.
        (CONTENT_LENGTH, bytes.to_string()),
    ];
    let answer = (headers, Body::from_stream(stream::iter(pieces))).into_response();
    Ok((bytes, answer))
}

struct Pieces {
    piece: BytesMut,
    events: std::vec::IntoIter<Bytes>,
    state: State,
}

enum State {
    First,
    Further,
    /// A large event that waits for the piece before it.
    Large(Bytes),
    Ended,
}

impl Pieces {
    fn bytes(&self) -> usize {
        let events = self.events.as_slice();
        let commas = events.len().saturating_sub(1);
        let end = 2;
        self.piece.len() + events.iter().map(Bytes::len).sum::<usize>() + commas + end
    }
}

impl Iterator for Pieces {
    type Item = Result<Bytes, Infallible>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match std::mem::replace(&mut self.state, State::Further) {
                State::Ended => {
                    self.state = State::Ended;
                    return None;
                }
                State::Large(event) => return Some(Ok(event)),
                state @ (State::First | State::Further) => {
                    let Some(event) = self.events.next() else {
                        self.piece.extend_from_slice(b"]}");
                        self.state = State::Ended;
                        return Some(Ok(self.piece.split().freeze()));
                    };
                    if matches!(state, State::Further) {
                        self.piece.extend_from_slice(b",");
                    }
                    if event.len() >= PIECE {
                        self.state = State::Large(event);
                    } else {
                        self.piece.extend_from_slice(&event);
                        if self.piece.len() < PIECE {
                            continue;
                        }
                    }
                    return Some(Ok(self.piece.split().freeze()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(sizes: &[usize]) -> (usize, String, usize) {
        let events: Vec<_> = sizes
            .iter()
            .map(|size| Bytes::from(format!("\"{}\"", "x".repeat(*size))))
            .collect();
        let pieces = Pieces {
            piece: BytesMut::from(&b"{\"messages\":["[..]),
            events: events.into_iter(),
            state: State::First,
        };
        let announced = pieces.bytes();
        let parts: Vec<Bytes> = pieces.map(|Ok(piece)| piece).collect();
        let text = String::from_utf8(parts.concat()).unwrap();
        (announced, text, parts.len())
    }

    #[test]
    fn pieces_make_one_json_of_the_announced_length() {
        for sizes in [
            &[][..],
            &[1],
            &[1, 2, 3],
            &[PIECE],
            &[PIECE, PIECE, 1],
            &[1, PIECE * 3, 1, PIECE],
            &[100; 1000],
        ] {
            let (announced, text, _) = joined(sizes);
            assert_eq!(announced, text.len());
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            let lengths: Vec<_> = json["messages"]
                .as_array()
                .unwrap()
                .iter()
                .map(|event| event.as_str().unwrap().len())
                .collect();
            assert_eq!(lengths, sizes);
        }
    }

    #[test]
    fn small_events_go_out_together() {
        let (_, _, pieces) = joined(&[100; 1000]);
        assert!(pieces < 10, "{pieces}");
    }
}
