//! Origins as people write them into a configuration, and what to tell a page of one that is not
//! allowed.

use axum::http::Uri;
use thiserror::Error;

use super::AccessConfig;
use crate::config::ConfigError;

/// The text names no origin; says how to write one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "an origin is scheme, host and port without a path, such as https://chat.example; or `*` for every page"
)]
pub struct NotAnOrigin;

/// Reads an origin (RFC 6454, section 6.2) that shall be allowed: `https://chat.example:8443`, `null`
/// (files and sandboxed frames), or `*` for all.
///
/// # Errors
/// [`NotAnOrigin`]: what a browser would never send would allow nobody, in silence.
pub fn parse(text: &str) -> Result<String, NotAnOrigin> {
    let origin = text.trim().trim_end_matches('/').to_ascii_lowercase();
    if ["*", "null"].contains(&origin.as_str()) {
        return Ok(origin);
    }
    let uri: Uri = origin.parse().map_err(|_| NotAnOrigin)?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let plain = uri.path() == "/" && uri.query().is_none() && !origin.contains(['#', '@']);
    if plain && uri.scheme().is_some() && uri.host().is_some_and(|host| !host.is_empty()) {
        let scheme = uri.scheme_str().unwrap_or_default();
        return Ok(format!("{scheme}://{authority}"));
    }
    Err(NotAnOrigin)
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
