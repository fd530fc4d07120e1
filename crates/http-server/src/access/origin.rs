//! Origins as people write them into a configuration, and what to tell a page of one that is not
//! allowed.

use service_kit::config::ConfigError;
use thiserror::Error;
use url::Url;

use super::AccessConfig;

/// The text names no origin; says how to write one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "an origin is scheme, host and port without a path, such as https://chat.example; or `*` for every page"
)]
pub struct NotAnOrigin;

/// Reads an origin (RFC 6454, section 6.2) that shall be allowed: `https://chat.example:8443`, `null`
/// (files and sandboxed frames), or `*` for all. It comes out as browsers send it: in ASCII, without a
/// port that its scheme implies.
///
/// # Errors
/// [`NotAnOrigin`]: what a browser would never send would allow nobody, in silence.
pub fn parse(text: &str) -> Result<String, NotAnOrigin> {
    let text = text.trim().trim_end_matches('/');
    if text == "*" || text.eq_ignore_ascii_case("null") {
        return Ok(text.to_ascii_lowercase());
    }
    let plain = text.contains("://") && !text.contains(['?', '#', '@', '*', '\\']);
    let url = plain.then(|| Url::parse(text).ok()).flatten();
    let url = url.filter(|url| matches!(url.path(), "" | "/"));
    let url = url.ok_or(NotAnOrigin)?;
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or(NotAnOrigin)?;
    let origin = url.origin();
    if origin.is_tuple() {
        return Ok(origin.ascii_serialization());
    }
    // Such as that of an extension, which to the URL standard is none.
    let port = url.port().map(|port| format!(":{port}"));
    let port = port.unwrap_or_default();
    Ok(format!("{}://{host}{port}", url.scheme()))
}

impl AccessConfig {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for origin in &self.allowed_origins {
            parse(origin).map_err(|error| {
                ConfigError::invalid("access.allowed_origins", format!("has {origin:?}: {error}"))
            })?;
        }
        Ok(())
    }
}

/// What whoever opened a page of `origin` can do, so that it may use a service.
pub(super) fn advice(origin: &str) -> String {
    if origin == "null" {
        "this page was opened from a file (file://) or is in a sandboxed frame, and so has the origin \"null\", \
         which any page can give itself: serve it over http, for example by `python3 -m http.server 8001` in \
         its folder, and open http://localhost:8001/"
            .to_owned()
    } else {
        format!(
            "pages of {origin:?} may not use this service; add that to access.allowed_origins to let them (hark: \
             --allow-origin {origin})"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_browsers_send_them() {
        for (text, origin) in [
            ("https://Chat.example/", "https://chat.example"),
            ("http://localhost:8000", "http://localhost:8000"),
            ("http://[::1]:8000", "http://[::1]:8000"),
            ("https://chat.example:443", "https://chat.example"),
            (
                "https://Müller.example:8443/",
                "https://xn--mller-kva.example:8443",
            ),
            ("chrome-extension://abc", "chrome-extension://abc"),
            ("*", "*"),
            ("null", "null"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(origin), "{text}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for text in [
            "",
            "chat.example",
            "localhost:8000",
            "https://",
            "https://chat.example/app",
            "https://chat.example?x",
            "https://user@chat.example",
            "https://*.example/*",
            "https://*.example",
            "https:chat.example",
            "file:///home",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let config = AccessConfig {
            allowed_origins: vec!["chat.example".to_owned()],
            allowed_hosts: Vec::new(),
        };
        let refused = config.validate().unwrap_err().to_string();
        assert!(refused.contains("`access.allowed_origins`"), "{refused}");
        assert!(refused.contains("https://chat.example"), "{refused}");
    }
}
