use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire;

fn guard() -> Guard {
    let share = Share::new("192.0.2.1".parse().unwrap());
    let state = GuardState::new(&BrokerConfig::default());
    Guard::new(&state, share, false)
}

fn admit(guard: &mut Guard, packet: &[u8]) -> Result<Admitted, Refusal> {
    let mut inbox = BytesMut::from(packet);
    let read = wire::read(&mut inbox, 1000)?;
    guard.admit(read.expect("a whole packet"))
}

/// PUBLISH of QoS 2 to "a" (MQTT 3.1.1 §3.3), and its PUBREL (§3.6).
fn begin(guard: &mut Guard, id: u8) -> Result<Admitted, Refusal> {
    admit(guard, &[0x34, 6, 0, 1, b'a', 0, id, b'!'])
}

fn release(guard: &mut Guard, id: u8) -> Result<Admitted, Refusal> {
    admit(guard, &[0x62, 2, 0, id])
}

fn acknowledge(guard: &mut Guard, id: u8) -> Result<Admitted, Refusal> {
    admit(guard, &[0x40, 2, 0, id])
}

#[test]
fn message_of_qos_2_is_passed_on_once() {
    let mut guard = guard();
    let passed = Publish::new("a", "!", false);
    let received = PubRec {
        pkid: 7,
        reason: PubRecReason::Success,
    };
    let first = Admitted::PassAndAnswer(passed, received.clone());
    let received = Packet::PubRec(received, None);
    assert_eq!(begin(&mut guard, 7), Ok(first.clone()));
    assert_eq!(begin(&mut guard, 7), Ok(Admitted::Answer(received)));
    let released = release(&mut guard, 7).unwrap();
    assert!(matches!(released, Admitted::Answer(Packet::PubComp(..))));
    assert_eq!(begin(&mut guard, 7), Ok(first));
}

#[test]
fn as_many_messages_of_qos_2_may_be_begun_as_there_are_packet_ids() {
    let mut guard = guard();
    for id in 1..=u16::MAX {
        let [high, low] = id.to_be_bytes();
        let begun = admit(&mut guard, &[0x34, 6, 0, 1, b'a', high, low, b'!']);
        assert!(
            matches!(begun, Ok(Admitted::PassAndAnswer(..))),
            "{id}: {begun:?}"
        );
    }
}

#[test]
fn topics_of_the_process_itself_do_not_count() {
    let config = BrokerConfig {
        max_topics: 2,
        ..BrokerConfig::default()
    };
    let state = GuardState::new(&config);
    let [mut own, mut stranger] = [true, false].map(|own| {
        let share = Share::new("127.0.0.1".parse().unwrap());
        Guard::new(&state, share, own)
    });
    let publish = |guard: &mut Guard, topic| admit(guard, &[0x30, 4, 0, 1, topic, b'!']);
    for topic in b'a'..=b'z' {
        publish(&mut own, topic).unwrap();
    }
    publish(&mut stranger, b'a').unwrap();
    publish(&mut stranger, b'b').unwrap_err();
}

#[test]
fn only_what_was_delivered_can_be_acknowledged() {
    let mut guard = guard();
    acknowledge(&mut guard, 1).unwrap_err();
    guard.deliver(1);
    guard.deliver(2);
    acknowledge(&mut guard, 1).unwrap();
    acknowledge(&mut guard, 3).unwrap_err();
}

#[test]
fn small_message_does_not_keep_what_was_read_with_it() {
    let mut inbox = BytesMut::with_capacity(10_000);
    let memory = inbox.as_ptr();
    inbox.extend_from_slice(&[0x30, 4, 0, 1, b'a', b'!']);
    let read = wire::read(&mut inbox, 1000).unwrap().unwrap();
    let _passed = guard().admit(read).unwrap();
    inbox.reserve(10_000);
    assert_eq!(inbox.as_ptr(), memory, "the same memory, free again");
}

proptest! {
    /// What a stranger sends never panics, and nothing passes that the router does not survive.
    #[test]
    fn whatever_is_sent_only_passes_what_the_router_survives(
        packets in vec(packet(), 1..20),
    ) {
        let mut guard = guard();
        let mut inbox = BytesMut::from(packets.concat().as_slice());
        while let Ok(Some(read)) = wire::read(&mut inbox, 1000) {
            match guard.admit(read) {
                Ok(
                    Admitted::Pass(Packet::Publish(publish, _))
                    | Admitted::PassAndAnswer(publish, _),
                ) => {
                    prop_assert!(!publish.retain && publish.topic[0].is_ascii());
                }
                Ok(Admitted::Pass(Packet::Subscribe(subscribe, _))) => {
                    for filter in subscribe.filters {
                        prop_assert_ne!(filter.qos, QoS::ExactlyOnce);
                        prop_assert!(!filter.path.starts_with('$'));
                    }
                }
                Ok(Admitted::Pass(passed)) => prop_assert!(
                    matches!(passed, Packet::Unsubscribe(..)),
                    "{:?}",
                    passed
                ),
                Ok(Admitted::Answer(_)) => {}
                Ok(Admitted::Farewell) | Err(_) => break,
            }
        }
    }
}

/// A header of any kind with a body of its length, mostly of bytes that mean something.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => 0_u8..4,
        2 => proptest::sample::select(b"a/+#$\xc3\xa9".as_slice()),
        1 => any::<u8>(),
    ];
    (any::<u8>(), vec(byte, 0..40)).prop_map(|(first, body)| {
        let length = u8::try_from(body.len()).unwrap();
        [&[first, length], body.as_slice()].concat()
    })
}
