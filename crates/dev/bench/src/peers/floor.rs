use std::io;

use super::simple::Simple;
use super::{Peer, Place, Running};

/// Our own minimal server: what the machine allows.
pub(super) struct Floor;

impl Peer for Floor {
    fn name(&self) -> &'static str {
        "floor"
    }

    fn setup(&self) -> &'static str {
        "`bench floor`: one thread, one epoll, nothing stored, one `send` for each listener"
    }

    fn start(&self, place: &Place<'_>) -> io::Result<Running> {
        own_server(place, "floor")
    }
}

/// A program that only sends, to measure the load generator itself.
pub(super) struct Feed;

impl Peer for Feed {
    fn name(&self) -> &'static str {
        "feed"
    }

    fn setup(&self) -> &'static str {
        "`bench feed`: the same made-up events to all streams without end, 64 KiB at a time"
    }

    fn start(&self, place: &Place<'_>) -> io::Result<Running> {
        own_server(place, "feed")
    }
}

/// A server that is a command of the bench itself.
pub(super) fn own_server(place: &Place<'_>, command: &str) -> io::Result<Running> {
    let launch = place.launch_own("bench").arg(command);
    let server = launch.until_ready(place.folder)?;
    let address = server.address("http")?;
    let dialect = Simple {
        listen: "/sub",
        publish: "/pub",
    };
    Ok(Running::single(server, address, dialect))
}
