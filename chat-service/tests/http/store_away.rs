use http_server::operations::Health;
use reqwest::StatusCode;
use test_kit::{ensure, eventually};

use crate::support::{Answer, LONG, Service, Setup, channel};

async fn store_health(service: &Service) -> Health {
    let readiness = service.operations.readiness().await;
    let store = readiness.into_iter().find(|(name, _)| name == "store");
    store.unwrap().1
}

#[tokio::test]
async fn store_that_cannot_write_is_a_503_and_recovers_by_itself() {
    let setup = Setup::new();
    let service = setup.start().await;
    let channel = channel();
    service.say(&channel, "before").await;
    assert_eq!(store_health(&service).await, Health::Ok);

    let intruder = rusqlite::Connection::open(setup.data().join("store.sqlite3")).unwrap();
    intruder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = Answer::of(service.post(&channel).body("during")).await;
    answer.problem(503, "store-unavailable");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    eventually!(LONG, {
        let health = store_health(&service).await;
        ensure!(matches!(health, Health::Failed(_)), "{health:?}");
        Ok(())
    });
    // Reading goes on, and nothing was stored.
    assert_eq!(service.heads(&[&channel]).await["heads"][0]["head"], 1);

    intruder.execute_batch("ROLLBACK").unwrap();
    drop(intruder);
    eventually!(LONG, {
        let answer = Answer::of(service.post(&channel).body("after")).await;
        ensure!(answer.status == StatusCode::ACCEPTED, "{answer:?}");
        ensure!(answer.json()["seq"] == 2, "{answer:?}");
        Ok(())
    });
    eventually!(LONG, {
        let health = store_health(&service).await;
        ensure!(health == Health::Ok, "{health:?}");
        Ok(())
    });
    service.stop().await;
}

#[tokio::test]
async fn full_store_is_a_503_and_history_stays_readable() {
    let service = Setup::new()
        .set("STORE__MAX_FILE_BYTES", "1MiB")
        .start()
        .await;
    let channel = channel();
    let mut stored = 0;
    let refused = loop {
        let answer = Answer::of(service.post(&channel).body("x".repeat(50_000))).await;
        if !answer.status.is_success() {
            break answer;
        }
        stored += 1;
    };
    refused.problem(503, "store-unavailable");
    assert!(stored > 5);
    assert_eq!(service.heads(&[&channel]).await["heads"][0]["head"], stored);
    assert!(matches!(store_health(&service).await, Health::Failed(_)));
    service.stop().await;
}
