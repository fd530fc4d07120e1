//! Translates the names of a service's settings into those that they have in `hark`.

use service_kit::config::ConfigError;
use toml::{Table, Value};

/// A text from `service`, with its settings renamed: `limits.message` of chat-service becomes
/// `chat_service.limits.message`. Settings that the services share keep their names.
pub(crate) fn as_here(service: &str, said: &str) -> String {
    match super::defaults() {
        Ok(mut all) => rename(said, service, &super::take(&mut all, service)),
        // The defaults are part of the program; if they cannot be read, that was reported earlier.
        Err(_) => said.to_owned(),
    }
}

/// Does the same for a refused setting.
pub(super) fn refusal(service: &str, error: ConfigError) -> ConfigError {
    match error {
        ConfigError::Invalid { reason } => ConfigError::Invalid {
            reason: as_here(service, &reason),
        },
        other => other,
    }
}

fn rename(said: &str, service: &str, settings: &Table) -> String {
    let in_key = |byte: u8| byte.is_ascii_alphanumeric() || b"._".contains(&byte);
    let mut renamed = String::with_capacity(said.len() + 32);
    let mut rest = said;
    while !rest.is_empty() {
        let length = rest.bytes().take_while(|&byte| in_key(byte)).count();
        let (word, behind) = rest.split_at(length);
        // A name without a table is an ordinary word, unless it is quoted as a key.
        let quoted = renamed.ends_with('`');
        let key = word.trim_end_matches('.');
        if (quoted || key.contains('.')) && is_setting(key, settings) {
            renamed.push_str(service);
            renamed.push('.');
        }
        renamed.push_str(word);
        let other = behind
            .find(|next: char| u8::try_from(next).is_ok_and(in_key))
            .unwrap_or(behind.len());
        let (between, next) = behind.split_at(other);
        renamed.push_str(between);
        rest = next;
    }
    renamed
}

fn is_setting(key: &str, settings: &Table) -> bool {
    let (name, inner) = key
        .split_once('.')
        .map_or((key, None), |(name, inner)| (name, Some(inner)));
    match (settings.get(name), inner) {
        (Some(_), None) => true,
        (Some(Value::Table(table)), Some(inner)) => is_setting(inner, table),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_settings_get_the_name_that_they_have_here() {
        for (said, here) in [
            (
                "`limits.message` must fit into mqtt.max_packet; lower it",
                "`chat_service.limits.message` must fit into chat_service.mqtt.max_packet; lower it",
            ),
            (
                "run `hark migrate`, or set store.postgres.migrate.",
                "run `hark migrate`, or set chat_service.store.postgres.migrate.",
            ),
            (
                "cannot listen: `listen`",
                "cannot listen: `chat_service.listen`",
            ),
            (
                "add it to access.allowed_origins",
                "add it to access.allowed_origins",
            ),
            ("`tls.cert` and ö `log`", "`tls.cert` and ö `log`"),
            ("", ""),
        ] {
            assert_eq!(as_here("chat_service", said), here);
        }
    }
}
