use super::*;
use crate::peers::Simple;

fn floor() -> Target {
    let listener = crate::floor::listen().unwrap();
    let address = listener.local_addr().unwrap();
    // Ends with the process of the test.
    std::thread::spawn(|| crate::floor::run(listener));
    Target {
        listen: address,
        publish: address,
        dialect: Box::new(Simple {
            listen: "/sub",
            publish: "/pub",
        }),
    }
}

#[test]
fn everything_that_is_published_is_checked_on_every_stream() {
    let target = floor();
    let channels = ["a", "b", "c"].map(str::to_owned).to_vec();
    let mut load = Load::new(&target, channels, 100).unwrap();
    load.open_streams(7, Begin::Live, Pace::ClosedLoop).unwrap();
    load.add_publishers(4).unwrap();
    load.warm_up().unwrap();
    let window = Duration::from_millis(20);
    for pace in [
        Pace::ClosedLoop,
        Pace::PerSecond(500.0),
        Pace::PerSecond(900.0),
    ] {
        if pace == Pace::PerSecond(900.0) {
            load.read_every(Duration::from_millis(5));
        }
        load.publish_for(pace, window).unwrap();
        let measured = load.finish(pace).unwrap();
        assert!(measured.faults.is_none(), "{:?}", measured.faults);
        assert!(measured.posted > 0);
        assert_eq!(measured.delivered, measured.expected);
        assert!(measured.latency.quantile(1.0).is_some());
    }
}

#[test]
fn what_no_stream_got_is_lost() {
    let target = floor();
    let mut load = Load::new(&target, vec!["a".to_owned()], 100).unwrap();
    load.open_streams(2, Begin::Live, Pace::ClosedLoop).unwrap();
    load.add_publishers(1).unwrap();
    load.warm_up().unwrap();
    // As if three posts had been accepted that the server then forgot.
    load.sent[0][0] += 3;
    assert_eq!(load.faults().lost, 6);
}

#[test]
fn a_server_that_cannot_begin_there_is_an_error() {
    let target = floor();
    let mut load = Load::new(&target, vec!["a".to_owned()], 100).unwrap();
    let opened = load.open_streams(1, Begin::Newest(1), Pace::ClosedLoop);
    assert!(opened.is_err());
}

#[test]
fn streams_come_and_go() {
    let target = floor();
    let mut load = Load::new(&target, vec!["a".to_owned()], 100).unwrap();
    let time = Duration::from_secs(60);
    assert_eq!(load.come_and_go(1_300, time).unwrap(), 1_300);
    assert_eq!(load.come_and_go(1_300, Duration::ZERO).unwrap(), 0);
    assert!(load.faults().is_none());
    load.open_streams(1, Begin::Live, Pace::PerSecond(1e6))
        .unwrap();
}

#[test]
fn a_server_without_cursors_cannot_be_resumed() {
    let target = floor();
    let mut load = Load::new(&target, vec!["a".to_owned()], 100).unwrap();
    load.add_publishers(1).unwrap();
    let error = load.mark().unwrap_err();
    assert!(error.to_string().contains("cursor"), "{error}");
}
