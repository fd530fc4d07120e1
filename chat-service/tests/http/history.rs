use serde_json::{Value, json};

use crate::support::{Answer, Service, Setup, channel};

async fn page(service: &Service, channel: &str, query: &str) -> Value {
    let answer = Answer::of(service.get(&format!("/channels/{channel}/messages{query}"))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );
    answer.json()
}

fn seqs(page: &Value) -> Vec<u64> {
    let messages = page["messages"].as_array().unwrap();
    messages
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn pages_ascend_from_both_sides() {
    let service = Setup::new().start().await;
    let channel = channel();
    let mut epoch = Value::Null;
    for n in 1..=120 {
        epoch = service.say(&channel, &n.to_string()).await["epoch"].clone();
    }
    let newest = page(&service, &channel, "").await;
    assert_eq!(seqs(&newest), (71..=120).collect::<Vec<_>>());
    assert_eq!(newest["channel"], channel);
    assert_eq!(
        (&newest["epoch"], &newest["head"], &newest["first"]),
        (&epoch, &json!(120), &json!(1))
    );
    assert_eq!(newest["epochs"], json!([{"epoch": epoch, "from": 1}]));
    assert_eq!(
        seqs(&page(&service, &channel, "?after=0&limit=3").await),
        [1, 2, 3]
    );
    assert_eq!(
        seqs(&page(&service, &channel, "?after=118").await),
        [119, 120]
    );
    assert_eq!(
        seqs(&page(&service, &channel, "?before=4&limit=2").await),
        [2, 3]
    );
    assert_eq!(seqs(&page(&service, &channel, "?limit=1").await), [120]);
    assert_eq!(seqs(&page(&service, &channel, "?after=120").await), [0; 0]);
    assert_eq!(
        seqs(&page(&service, &channel, "?after=9007199254740991").await),
        [0; 0]
    );
    assert_eq!(seqs(&page(&service, &channel, "?before=1").await), [0; 0]);
    assert_eq!(
        seqs(&page(&service, &channel, "?after=0&limit=1000").await).len(),
        120
    );
    service.stop().await;
}

#[tokio::test]
async fn unknown_channel_has_an_empty_log() {
    let service = Setup::new().start().await;
    let channel = channel();
    let head = json!({"channel": channel, "epoch": "0", "head": 0, "first": 1, "epochs": []});
    assert_eq!(
        Answer::of(service.get(&format!("/channels/{channel}")))
            .await
            .json(),
        head
    );
    let page = page(&service, &channel, "?after=7").await;
    assert_eq!(seqs(&page), [0; 0]);
    assert_eq!(page["epoch"], "0");
    assert_eq!(
        service.heads(&[&channel]).await,
        json!({"behind": false, "heads": [head]})
    );
    assert_eq!(
        service.heads(&[]).await,
        json!({"behind": false, "heads": []})
    );
    service.stop().await;
}

#[tokio::test]
async fn page_is_cut_at_a_mebibyte_and_goes_on_after_it() {
    let service = Setup::new().start().await;
    let channel = channel();
    let text = "x".repeat(60_000);
    for _ in 0..40 {
        service.say(&channel, &text).await;
    }
    let mut after = 0;
    let mut pages = 0;
    while after < 40 {
        let answer = service.get(&format!(
            "/channels/{channel}/messages?after={after}&limit=1000"
        ));
        let answer = Answer::of(answer).await;
        assert!(
            answer.body.len() <= (1 << 20) + 1000,
            "{}",
            answer.body.len()
        );
        let seqs = seqs(&answer.json());
        assert_eq!(seqs[0], after + 1);
        after = *seqs.last().unwrap();
        pages += 1;
    }
    assert_eq!(pages, 3);
    service.stop().await;
}

#[tokio::test]
async fn expired_events_leave_first_behind() {
    let service = Setup::new()
        .set("STORE__MAX_PER_CHANNEL", "5")
        .start()
        .await;
    let channel = channel();
    for n in 0..20 {
        service.say(&channel, &n.to_string()).await;
    }
    test_kit::eventually!(crate::support::LONG, {
        let page = page(&service, &channel, "?after=0").await;
        test_kit::ensure!(page["first"] == 16, "{}", page["first"]);
        test_kit::ensure!(seqs(&page) == [16, 17, 18, 19, 20], "{page}");
        Ok(())
    });
    service.stop().await;
}
