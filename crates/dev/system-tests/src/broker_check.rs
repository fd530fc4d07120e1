use std::time::Duration;

use serde_json::Value;
use test_kit::{Unmet, ensure, eventually};

use crate::{Node, Sender};

/// Longer than it takes to notice that heartbeats do not come, on a busy machine.
const NOTICED: Duration = Duration::from_secs(60);

/// Waits until this node's readiness says that all is well with its broker.
///
/// # Panics
/// When it does not.
pub async fn broker_is_well(node: &Node) {
    eventually!(NOTICED, {
        let check = broker_check(node).await?;
        ensure!(check["status"] == "ok", "{check}");
        Ok(())
    });
}

/// Waits until this node's readiness names a trouble with its broker, with all of these words in
/// its sentence. The node is ready all the same.
///
/// # Panics
/// When it does not.
pub async fn broker_trouble(node: &Node, words: &[&str]) {
    eventually!(NOTICED, {
        let check = broker_check(node).await?;
        ensure!(check["status"] == "degraded", "{check}");
        let reason = check["reason"].as_str().ok_or("no reason")?;
        for word in words {
            ensure!(reason.contains(word), "no {word:?} in {reason:?}");
        }
        Ok(())
    });
}

async fn broker_check(node: &Node) -> Result<Value, Unmet> {
    let url = format!("{}/readyz", node.operations_url());
    let (status, body) = Sender::to(node.url()).check(&url).await?;
    ensure!(status == 200, "{status}: {body}");
    let readiness: Value = serde_json::from_str(&body)?;
    Ok(readiness["checks"]["broker"].clone())
}
