//! What the kernel counts of connections, on the whole machine.

use std::fs;
use std::io;

/// Counters of `TcpExt` in /proc/net/netstat (RFC 9293 leaves their like to implementations).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Connections {
    /// SYNs and SYN-ACKs that were sent again.
    pub(crate) syn_retransmits: u64,
    /// Connections that found a full accept queue.
    pub(crate) overflows: u64,
}

impl Connections {
    pub(crate) fn read() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/net/netstat")?;
        Self::parse(&text)
            .ok_or_else(|| io::Error::other("/proc/net/netstat: it is not as expected"))
    }

    /// A line of names is followed by one of values, both with the same first word.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next()?, lines.next()?);
        let value = |name| {
            let mut both = names.split(' ').zip(values.split(' '));
            both.find(|(other, _)| *other == name)?.1.parse().ok()
        };
        Some(Self {
            syn_retransmits: value("TCPSynRetrans")?,
            overflows: value("ListenOverflows")?,
        })
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            syn_retransmits: self.syn_retransmits.saturating_sub(before.syn_retransmits),
            overflows: self.overflows.saturating_sub(before.overflows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_names() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPSynRetrans\n\
                    TcpExt: 1 22 333 4444\n\
                    IpExt: ListenOverflows\nIpExt: 9\n";
        let read = Connections::parse(text).unwrap();
        assert_eq!((read.syn_retransmits, read.overflows), (4444, 22));
        assert_eq!(Connections::parse("TcpExt: ListenOverflows\n"), None);
        assert_eq!(Connections::parse("TcpExt: A\nTcpExt: 1\n"), None);
    }

    #[test]
    fn this_machine_has_them() {
        let before = Connections::read().unwrap();
        let now = Connections::read().unwrap();
        assert!(now.since(before).overflows <= now.overflows);
    }
}
