//! Checks what the services report about themselves, if their operations listeners can be reached.

use std::path::Path;

use axum::http::StatusCode;
use http_server::http_client::BaseUrl;
use service_command::Failure;

use super::findings::Findings;
use crate::client::{ask, client, get};

/// A service that may open fewer files than this runs out of files before it runs out of anything else.
const ENOUGH_FILES: f64 = 65_536.0;

pub(super) async fn check(
    findings: &mut Findings,
    ops: &BaseUrl,
    ca_file: Option<&Path>,
) -> Result<(), Failure> {
    let client = client(ops, ca_file)?;
    match ask(&client, get(ops.join("readyz"))).await {
        Ok(answer) if answer.status() == StatusCode::OK => {
            let said = String::from_utf8_lossy(answer.body());
            if said.contains("degraded") {
                findings.warn(
                    &format!("{ops}readyz: {}", said.trim()),
                    "see docs/operations.md, Watching it",
                );
            } else {
                findings.ok(&format!("{ops}readyz is green"));
            }
        }
        Ok(answer) => {
            let said = String::from_utf8_lossy(answer.body());
            findings.fail(
                &format!("{ops}readyz answers {}: {}", answer.status(), said.trim()),
                "see docs/operations.md, Watching it",
            );
        }
        Err(error) => {
            findings.fail(
                &format!("{ops} does not answer: {error}"),
                "it listens on loopback of its own machine unless operations.listen says otherwise",
            );
            return Ok(());
        }
    }
    let metrics = match ask(&client, get(ops.join("metrics"))).await {
        Ok(metrics) => metrics,
        Err(error) => {
            findings.note(&format!("{ops}metrics was not read: {error}"));
            return Ok(());
        }
    };
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    match value(&metrics, "process_max_fds") {
        Some(most) if most < ENOUGH_FILES => findings.warn(
            &format!("{ops}: the service may open {most} files, and every connection takes one"),
            "raise LimitNOFILE= of its unit, or `ulimit -Hn`",
        ),
        Some(_) => findings.ok("the limit of open files is high enough"),
        None => findings.note("it does not report its limit of open files"),
    }
    Ok(())
}

/// The value of a metric without labels.
fn value(metrics: &str, name: &str) -> Option<f64> {
    let line = metrics.lines().find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(' '))
    })?;
    line.split(' ').nth(1)?.parse().ok()
}
