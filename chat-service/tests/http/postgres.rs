//! Several services on one PostgreSQL database.

use reqwest::StatusCode;
use test_kit::{Postgres, ensure, eventually};

use crate::support::{Answer, LONG, Setup, channel};

fn on(url: &str) -> Setup {
    Setup::new()
        .set("STORE__ENGINE", "postgres")
        .set("STORE__POSTGRES__URL", url)
}

#[tokio::test]
async fn two_services_share_the_logs() {
    let url = Postgres::shared().await.database().await;
    let services = [on(&url).start().await, on(&url).start().await];
    let channel = channel();
    for (number, service) in services.iter().cycle().take(10).enumerate() {
        let said = service.say(&channel, "hello").await;
        assert_eq!(said["seq"], number as u64 + 1);
    }
    let keyed = |service: usize| {
        let post = services[service].post(&channel).body("once");
        Answer::of(post.header("idempotency-key", "key"))
    };
    let (first, again) = (keyed(0).await, keyed(1).await);
    assert_eq!(again.status, StatusCode::OK);
    assert_eq!(first.json(), again.json());
    for service in services {
        let heads = service.heads(&[&channel]).await;
        assert_eq!(heads["heads"][0]["head"], 11);
        // There is no broker: what one has stored is behind for all.
        assert_eq!(
            service
                .get(&format!("/channels/{channel}/messages"))
                .send()
                .await
                .unwrap()
                .status(),
            200
        );
        service.stop().await;
    }
}

#[tokio::test]
async fn server_that_is_away_is_a_503_and_comes_back() {
    let mut server = Postgres::start().await;
    let service = on(&server.database().await).start().await;
    let channel = channel();
    service.say(&channel, "before").await;
    server.kill().await;
    for request in [
        service.post(&channel).body("during"),
        service.get(&format!("/channels/{channel}/messages")),
    ] {
        let answer = Answer::of(request).await;
        answer.problem(503, "store-unavailable");
        assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    }
    server.restart().await;
    eventually!(LONG, {
        let answer = Answer::of(service.post(&channel).body("after")).await;
        ensure!(answer.status == StatusCode::ACCEPTED, "{answer:?}");
        ensure!(answer.json()["seq"] == 2, "{answer:?}");
        Ok(())
    });
    service.stop().await;
}

#[tokio::test]
async fn commit_that_is_not_answered_is_a_503_of_its_own_and_a_retry_is_safe() {
    let server = Postgres::start().await;
    let url = server.database().await;
    let service = on(&url)
        .set("STORE__POSTGRES__STATEMENT_TIMEOUT", "1s")
        .start()
        .await;
    let channel = channel();
    service.say(&channel, "before").await;
    // A commit waits for a replica that does not exist: it is on the disk, but the client is not told.
    let wait_for = async |replica: &str| {
        let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{replica}'");
        server.run("postgres", &set).await;
        server.run("postgres", "SELECT pg_reload_conf()").await;
    };
    wait_for("nobody").await;
    let post = |id| service.post_json(&channel, format!(r#"{{"id":"{id}","text":"during"}}"#));
    let mut seq = 1;
    // A new message each time, because one that is already stored needs no commit.
    let id = eventually!(LONG, {
        let id = uuid::Uuid::new_v4();
        let answer = Answer::of(post(id)).await;
        seq += 1;
        ensure!(
            !answer.status.is_success(),
            "it has not reloaded yet: {answer:?}"
        );
        answer.problem(503, "outcome-unknown");
        Ok(id)
    });
    wait_for("").await;
    eventually!(LONG, {
        let answer = Answer::of(post(id)).await;
        ensure!(answer.status.is_success(), "{answer:?}");
        ensure!(answer.json()["seq"] == seq, "{answer:?}");
        Ok(())
    });
    assert_eq!(service.heads(&[&channel]).await["heads"][0]["head"], seq);
    service.stop().await;
}
