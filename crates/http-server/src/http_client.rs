//! An HTTP/1.1 client for calls to other services, plain or with TLS, over connections that are kept.
//!
//! It is hyper's client with rustls and one set of trusted authorities. It has no redirects, no proxies,
//! and only a time-out for connecting: the caller knows how long an answer may take.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::uri::{Authority, Scheme};
use axum::http::{HeaderValue, Request, Response, Uri};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

/// A client for any number of servers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl HttpClient {
    /// `trust` says whom to trust for `https`; connecting may take `connect_timeout`.
    pub fn new(trust: &ClientConfig, connect_timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trust.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self(client)
    }

    /// Sends a request and returns the head of the answer; its body is still to come. A user name and
    /// password in the URL become the header `Authorization` (RFC 7617).
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, NoAnswer> {
        authorize(&mut request);
        let answer = self.0.request(request).await;
        answer.map_err(|error| NoAnswer::of(&error))
    }
}

fn authorize(request: &mut Request<Full<Bytes>>) {
    let authority = request.uri().authority().map_or("", Authority::as_str);
    let Some((user, _host)) = authority.rsplit_once('@') else {
        return;
    };
    let basic = format!("Basic {}", BASE64_STANDARD.encode(user));
    let mut basic = HeaderValue::from_str(&basic).expect("base64 is a header value");
    basic.set_sensitive(true);
    request.headers_mut().entry(AUTHORIZATION).or_insert(basic);
}

/// Why there is no answer, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(String);

impl NoAnswer {
    /// An error with all its causes: the outermost error alone often says nothing.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let causes = std::iter::successors(Some(error), |error| (*error).source());
        let mut words: Vec<String> = causes.map(ToString::to_string).collect();
        words.dedup();
        Self(words.join(": "))
    }
}

/// The URL of a service, to which paths are appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// Ends with a slash.
    text: String,
    https: bool,
}

/// The text is not the URL of a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must begin with http:// or https://, name a host, and have no query: {0:?}")]
pub struct NotABaseUrl(String);

impl BaseUrl {
    /// Whether TLS is spoken there.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The URL of `path`, which does not begin with a slash and may have a query.
    ///
    /// # Panics
    /// When `path` is not a path. It must come from the program itself.
    pub fn join(&self, path: &str) -> Uri {
        format!("{}{path}", self.text)
            .parse()
            .expect("a checked URL with the program's own path is a URL")
    }
}

impl FromStr for BaseUrl {
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
    /// Shows the URL without its password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.split_once("://") {
            Some((scheme, rest)) => {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                let host = authority
                    .rsplit_once('@')
                    .map_or(authority, |(_, host)| host);
                write!(f, "{scheme}://{host}/{path}")
            }
            None => f.write_str(&self.text),
        }
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

    #[test]
    fn password_is_sent_and_not_shown() {
        let base: BaseUrl = "https://ada:s3cret@chat.example/x".parse().unwrap();
        assert_eq!(base.to_string(), "https://chat.example/x/");
        let mut request = Request::new(Full::default());
        *request.uri_mut() = base.join("heads");
        authorize(&mut request);
        // RFC 7617, section 2: "ada:s3cret".
        assert_eq!(request.headers()[AUTHORIZATION], "Basic YWRhOnMzY3JldA==");
    }
}
