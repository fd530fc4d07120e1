use std::fmt;

use axum::http::{Uri, uri::Scheme};

/// The URL of a service, to which paths are appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    /// With a slash at its end.
    text: String,
    https: bool,
}

/// Why a text is not the URL of a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must begin with http:// or https:// and name a host, and have no query: {0:?} does not")]
pub(crate) struct NotABaseUrl(String);

impl BaseUrl {
    pub(crate) fn is_https(&self) -> bool {
        self.https
    }

    /// The URL of `path`, which begins without a slash and may have a query.
    pub(crate) fn join(&self, path: &str) -> Uri {
        format!("{}{path}", self.text)
            .parse()
            .expect("what this service asks for, at a URL that was checked, is a URL")
    }
}

impl std::str::FromStr for BaseUrl {
    type Err = NotABaseUrl;

    fn from_str(text: &str) -> Result<Self, NotABaseUrl> {
        let refuse = || NotABaseUrl(text.to_owned());
        let url: Uri = text.parse().map_err(|_| refuse())?;
        let https = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(refuse()),
        };
        let host = url.host().unwrap_or_default();
        if host.is_empty() || url.query().is_some() || text.contains('#') {
            return Err(refuse());
        }
        Ok(Self {
            text: format!("{}/", text.trim_end_matches('/')),
            https,
        })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_appended() {
        for (base, url) in [
            ("http://chat:8080", "http://chat:8080/heads"),
            ("https://chat/a/b/", "https://chat/a/b/heads"),
            ("http://[::1]:80", "http://[::1]:80/heads"),
        ] {
            let base: BaseUrl = base.parse().unwrap();
            assert_eq!(base.join("heads"), url);
            assert_eq!(base.is_https(), url.starts_with("https"));
        }
    }

    #[test]
    fn what_is_no_service_is_refused() {
        for text in [
            "",
            "chat:8080",
            "/a",
            "ftp://chat",
            "http://",
            "http://a?b",
            "http://a#b",
            "http://a b",
        ] {
            assert!(text.parse::<BaseUrl>().is_err(), "{text}");
        }
    }
}
