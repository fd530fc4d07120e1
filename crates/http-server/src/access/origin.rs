//! Parses origins from the configuration, and says what to do when a page's origin is not allowed.

use service_kit::config::ConfigError;
use thiserror::Error;
use url::Url;

use super::AccessConfig;

/// The text is not an origin. The message says how to write one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "write an origin as scheme, host and port without a path, such as https://chat.example, or `*` for every page"
)]
pub struct NotAnOrigin;

/// Reads an origin to be allowed (RFC 6454, section 6.2): `https://chat.example:8443`, `null` (files and
/// sandboxed frames), or `*` for all. Returns it as browsers send it: in ASCII, without the default port
/// of its scheme.
///
/// # Errors
/// [`NotAnOrigin`] for text that no browser would send: it would silently allow nobody.
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
    // An extension, for example, has an origin that the URL standard calls opaque.
    let port = url.port().map(|port| format!(":{port}"));
    let port = port.unwrap_or_default();
    Ok(format!("{}://{host}{port}", url.scheme()))
}

impl AccessConfig {
    /// Checks what the types cannot express.
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

/// What to do so that a page of `origin` may use the service.
pub(super) fn advice(origin: &str) -> String {
    if origin == "null" {
        "this page was opened from a file (file://) or is in a sandboxed frame, so its origin is \"null\", \
         which any page can give itself: serve the page over http, for example with `python3 -m http.server 8001` \
         in its folder, and open http://localhost:8001/"
            .to_owned()
    } else {
        format!(
            "pages of {origin:?} may not use this service; to allow them, add it to access.allowed_origins (hark: \
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
