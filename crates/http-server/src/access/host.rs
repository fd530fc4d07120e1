//! Parses hosts as requests and pages name them: in `Host`, in `:authority`, in `Origin`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host without its port. Names keep their case; comparisons must ignore it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Host<'a> {
    Address(IpAddr),
    Name(&'a str),
}

impl<'a> Host<'a> {
    /// Reads `host` or `host:port` (RFC 3986, section 3.2, without a user). `None` if the text is
    /// anything else. It is checked to the last character, because code that compares only the beginning
    /// or the end of such a text can be fooled.
    ///
    /// A name consists of letters, digits, `-`, `_` and dots. Its last part is not a number: browsers
    /// would take such a name for an address (WHATWG URL, section 3.5).
    pub(crate) fn parse(authority: &'a str) -> Option<Self> {
        if let Some(rest) = authority.strip_prefix('[') {
            let (address, after) = rest.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            let port = after.strip_prefix(':');
            if !after.is_empty() && !is_port(port?) {
                return None;
            }
            return Some(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
        if !is_port(port) {
            return None;
        }
        if host.as_bytes().first()?.is_ascii_digit()
            && let Ok(address) = host.parse::<Ipv4Addr>()
        {
            return Some(Self::Address(IpAddr::V4(address)));
        }
        is_name(host).then_some(Self::Name(host.strip_suffix('.').unwrap_or(host)))
    }

    /// Whether it always means this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => name.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Whether it is a name that no stranger can register. Public DNS has no names without a dot, and
    /// none below the domains reserved for private use (RFC 6761, 6762, 8375; `internal` by ICANN's
    /// resolution 2024.07.29.06).
    pub(crate) fn is_private_name(&self) -> bool {
        let Self::Name(name) = self else {
            return false;
        };
        let private = ["local", "internal", "localhost", "home.arpa"];
        !name.contains('.') || private.iter().any(|domain| is_below(name, domain))
    }
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(one), Self::Address(other)) => one == other,
            (Self::Name(one), Self::Name(other)) => one.eq_ignore_ascii_case(other),
            _ => false,
        }
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

/// The host in a page's `Origin`, which consists of a scheme and an authority only.
pub(crate) fn of_page(origin: &str) -> Option<Host<'_>> {
    let authority = ["http://", "https://"].iter().find_map(|scheme| {
        let (start, rest) = origin.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    Host::parse(authority?)
}

fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_name(text: &str) -> bool {
    let dotless = text.strip_suffix('.').unwrap_or(text);
    let last = dotless.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.as_bytes().starts_with(b"0x")
        || last.as_bytes().starts_with(b"0X");
    !number
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn is_below(name: &str, domain: &str) -> bool {
    let Some(start) = name.len().checked_sub(domain.len() + 1) else {
        return false;
    };
    name.as_bytes()[start] == b'.' && name[start + 1..].eq_ignore_ascii_case(domain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_only_looks_like_a_host_is_none() {
        for bad in [
            "",
            ":80",
            "[::1",
            "[::1]x",
            "[::1].evil.com",
            "[::1]:x",
            "[localhost]",
            "::1",
            "localhost:80@evil.com",
            "localhost@evil.com",
            "localhost:evil.com",
            "localhost:80:80",
            "localhost:123456",
            "local host",
            "localhost/x",
            "localhost#",
            "%6cocalhost",
            "127.1",
            "2130706433",
            "0x7f.0.0.0x1",
            "127.0.0.256",
            "127.0.0.1.2",
            ".",
        ] {
            assert!(Host::parse(bad).is_none(), "{bad}");
        }
        for page in [
            "http://[::1].evil.com",
            "http://localhost:80@evil.com",
            "http://localhost:evil.com",
            "http://localhost/",
            "file://localhost",
            "localhost",
            "null",
            "http://",
            "http",
        ] {
            assert!(of_page(page).is_none(), "{page}");
        }
    }

    #[test]
    fn hosts_are_read_with_and_without_a_port() {
        for (text, same) in [
            ("LOCALHOST", "localhost:8080"),
            ("localhost.", "localhost:"),
            ("[::1]:8080", "[0:0::1]"),
            ("[::ffff:192.0.2.1]", "192.0.2.1:80"),
            ("my_chat-1", "MY_chat-1:1"),
        ] {
            assert_eq!(Host::parse(text).unwrap(), Host::parse(same).unwrap());
        }
        assert_ne!(Host::parse("a.b"), Host::parse("b.a"));
        assert!(of_page("HTTPS://127.9.9.9:1").unwrap().is_loopback());
    }

    #[test]
    fn private_names_are_those_that_nobody_can_register() {
        for name in ["chat", "box.local", "a.b.svc.cluster.LOCAL", "x.home.arpa"] {
            assert!(Host::parse(name).unwrap().is_private_name(), "{name}");
        }
        for name in ["chat.example", "evillocal.com", "local.com", "a.internal.x"] {
            assert!(!Host::parse(name).unwrap().is_private_name(), "{name}");
        }
    }

    proptest! {
        /// Whatever this code reads as a host is the same host to a browser.
        #[test]
        fn no_text_means_another_host_to_a_browser(
            text in "(\\[?[:0-9a-f.]{0,12}\\]?|localhost|[a-z0-9.@:/?#\\\\%_ -]{0,12})(:[0-9]{1,6})?([@:/.#]?[a-z.]{0,9})"
        ) {
            let origin = format!("http://{text}");
            let Some(ours) = of_page(&origin) else { return Ok(()) };
            let browsers = url::Url::parse(&origin);
            // Browsers refuse labels that are empty or not punycode; here they are simply unknown.
            let Ok(theirs) = browsers else { return Ok(()) };
            prop_assert_eq!(theirs.path(), "/");
            prop_assert!(theirs.username().is_empty() && theirs.password().is_none());
            match (ours, theirs.host().unwrap()) {
                (Host::Address(ours), url::Host::Ipv4(theirs)) => prop_assert_eq!(ours, theirs),
                (Host::Address(ours), url::Host::Ipv6(theirs)) => {
                    prop_assert_eq!(ours, IpAddr::V6(theirs).to_canonical());
                }
                (Host::Name(ours), url::Host::Domain(theirs)) => {
                    prop_assert_eq!(ours, theirs.strip_suffix('.').unwrap_or(theirs));
                }
                (ours, theirs) => prop_assert!(false, "{ours} is {theirs}"),
            }
        }
    }
}
