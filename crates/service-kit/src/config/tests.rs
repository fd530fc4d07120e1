use std::io::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::*;

const DEFAULTS: &str = r#"
listen = "127.0.0.1:8080"
ratio = 0.5
open = false
[store]
max_age = "30d"
max_size = "64KiB"
workers = 4
[access]
allowed_origins = []
password = ""
user = ""
"#;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    listen: String,
    ratio: f64,
    open: bool,
    store: Store,
    access: Access,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Store {
    #[serde(with = "duration")]
    max_age: Duration,
    #[serde(with = "size")]
    max_size: u64,
    workers: u16,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Access {
    allowed_origins: Vec<String>,
    password: Secret<String>,
    #[serde(with = "optional")]
    user: Option<String>,
}

fn load_with(file: Option<&str>, env: &[(&str, &str)]) -> Result<Sample, ConfigError> {
    let env = env
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let Some(text) = file else {
        return load(DEFAULTS, None, "HARK_", env);
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    load(DEFAULTS, Some(file.path()), "HARK_", env)
}

fn refusal(file: Option<&str>, env: &[(&str, &str)]) -> String {
    load_with(file, env).unwrap_err().to_string()
}

#[test]
fn defaults_alone_are_enough() {
    let config = load_with(None, &[("PATH", "/bin")]).unwrap();
    assert_eq!(config.store.max_age, Duration::from_secs(30 * 86_400));
    assert_eq!(config.store.max_size, 64 * 1024);
    assert_eq!(config.access.user, None);
}

#[test]
fn environment_beats_file_beats_defaults() {
    let config = load_with(
        Some("ratio = 1\n[store]\nmax_age = \"7d\"\nworkers = 2\n"),
        &[
            ("HARK_STORE__MAX_AGE", "200ms"),
            ("HARK_OPEN", "true"),
            (
                "HARK_ACCESS__ALLOWED_ORIGINS",
                "https://a.example, https://b.example",
            ),
            ("HARK_ACCESS__USER", "hark"),
        ],
    )
    .unwrap();
    assert_eq!(config.store.max_age, Duration::from_millis(200));
    assert_eq!(config.store.workers, 2);
    assert_eq!(config.ratio, 1.0);
    assert!(config.open);
    assert_eq!(
        config.access.allowed_origins,
        ["https://a.example", "https://b.example"]
    );
    assert_eq!(config.access.user.as_deref(), Some("hark"));
    assert_eq!(config.listen, "127.0.0.1:8080");
}

#[test]
fn unknown_keys_are_named_with_their_source() {
    let text = refusal(Some("[store]\nmax_agee = \"7d\"\n"), &[]);
    assert!(text.contains("`store.max_agee`"), "{text}");
    for name in [
        "HARK_STORE__MAX_AGEE",
        "HARK_SHOP__MAX_AGE",
        "HARK_LISTEN__PORT",
        "HARK_",
    ] {
        let text = refusal(None, &[(name, "1")]);
        assert!(
            text.contains(name) && text.contains("unknown key"),
            "{text}"
        );
    }
}

#[test]
fn wrong_types_are_named_with_their_source() {
    let text = refusal(Some("[store]\nworkers = \"four\"\n"), &[]);
    assert!(
        text.contains("`store.workers` must be a whole number"),
        "{text}"
    );
    let text = refusal(None, &[("HARK_STORE__WORKERS", "four")]);
    assert!(
        text.contains("HARK_STORE__WORKERS") && text.contains("\"four\""),
        "{text}"
    );
    let text = refusal(None, &[("HARK_STORE", "x")]);
    assert!(text.contains("must be a table"), "{text}");
    let text = refusal(Some("store = 1"), &[]);
    assert!(text.contains("must be a table"), "{text}");
}

#[test]
fn unusable_values_name_their_key() {
    let text = refusal(None, &[("HARK_STORE__MAX_AGE", "soon")]);
    assert!(text.contains("max_age") && text.contains("soon"), "{text}");
    let text = refusal(None, &[("HARK_STORE__MAX_SIZE", "a lot")]);
    assert!(text.contains("max_size"), "{text}");
    let text = refusal(None, &[("HARK_STORE__WORKERS", "70000")]);
    assert!(text.contains("workers"), "{text}");
}

#[test]
fn broken_and_missing_files_are_named() {
    assert!(refusal(Some("listen = "), &[]).contains("not valid TOML"));
    let text = load::<Sample>(
        DEFAULTS,
        Some(Path::new("/nonexistent/hark.toml")),
        "HARK_",
        [],
    )
    .unwrap_err()
    .to_string();
    assert!(text.contains("/nonexistent/hark.toml"), "{text}");
}

#[test]
fn what_is_printed_can_be_read_again_and_hides_secrets() {
    let config = load_with(
        None,
        &[
            ("HARK_ACCESS__PASSWORD", "hunter2"),
            ("HARK_STORE__MAX_SIZE", "1000"),
        ],
    )
    .unwrap();
    assert_eq!(config.access.password.reveal(), "hunter2");
    let text = render(&config).unwrap();
    assert!(!text.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
    let again: Sample = load(&text, None, "HARK_", []).unwrap();
    assert_eq!(again.store.max_age, config.store.max_age);
    assert_eq!(again.store.max_size, 1000);
}
