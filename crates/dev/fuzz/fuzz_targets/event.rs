//! The body of a post, and a payload on a channel's topic: any bytes.
//!
//! Neither may panic. A body that is accepted must encode to one line that reads back with the
//! same text, data and type.
#![no_main]

use chat_model::{Epoch, Event, EventHead, EventView, MESSAGE_TYPE, NewMessage};
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

fuzz_target!(|input: &[u8]| {
    if let Ok(head) = EventHead::parse(input) {
        let text = std::str::from_utf8(input).expect("JSON is UTF-8 (RFC 8259 §8.1)");
        assert!(text.trim_start().starts_with('{'), "an event is an object");
        let line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        assert!(
            !input.iter().any(line_end),
            "a payload that breaks the stream's framing"
        );
        let name = head.event_type.unwrap_or_default();
        assert!(
            !name.as_bytes().iter().any(line_end),
            "a type that breaks the stream's framing"
        );
    }
    // It may refuse, but not panic.
    drop(EventView::parse(input));
    let messages = [
        NewMessage::from_json(input),
        NewMessage::from_text(input),
        NewMessage::from_form(input),
    ];
    for message in messages.into_iter().flatten() {
        assert_survives(&message);
    }
});

fn assert_survives(message: &NewMessage) {
    let event = Event {
        channel: Uuid::nil().into(),
        epoch: Epoch::from_value(77).expect("a small number"),
        seq: 42,
        id: message.id.unwrap_or_default(),
        at: 1_795_251_600_123,
        message,
    };
    let line = event.encode();
    assert!(!line.iter().any(|byte| matches!(byte, b'\r' | b'\n')));
    let head = EventHead::parse(&line).expect("our own event");
    assert_eq!((head.seq, head.epoch), (42, event.epoch));
    assert_eq!(
        head.event_type.as_deref().unwrap_or(MESSAGE_TYPE),
        message.event_type.as_str()
    );
    let view = EventView::parse(&line).expect("our own event");
    assert_eq!(view.text.as_deref(), message.text.as_deref());
    if let Some(data) = &message.data {
        let end = format!(r#","data":{data}}}"#);
        assert!(line.ends_with(end.as_bytes()), "data changed its tokens");
    }
}
