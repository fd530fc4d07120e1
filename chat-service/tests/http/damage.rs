//! A store in which the disk has changed something.

use rusqlite::Connection;
use serde_json::json;

use crate::support::{Answer, Setup, channel};

#[tokio::test]
async fn damaged_head_is_named_and_the_others_are_answered() {
    let setup = Setup::new();
    let (good, lost) = (channel(), channel());
    let service = setup.start().await;
    for channel in [&good, &lost, &good] {
        service.say(channel, "words").await;
    }
    service.stop().await;
    let database = Connection::open(setup.data().join("store.sqlite3")).unwrap();
    let bytes = uuid::Uuid::parse_str(&lost).unwrap().into_bytes();
    let damage = "UPDATE epochs SET epoch = -1
        WHERE channel_no = (SELECT channel_no FROM channels WHERE uuid = ?1)";
    assert_eq!(database.execute(damage, [bytes]).unwrap(), 1);
    drop(database);

    let service = setup.start().await;
    let heads = service.heads(&[&lost, &good, &lost]).await;
    assert_eq!(heads["damaged"], json!([lost, lost]));
    assert_eq!(heads["heads"].as_array().unwrap().len(), 1);
    assert_eq!(heads["heads"][0]["channel"], json!(good));
    assert_eq!(heads["heads"][0]["head"], 2);
    assert!(service.heads(&[&good]).await.get("damaged").is_none());
    for request in [
        service.get(&format!("/channels/{lost}")),
        service.get(&format!("/channels/{lost}/messages")),
        service.post(&lost).body("words"),
    ] {
        Answer::of(request).await.problem(500, "store-damaged");
    }
    assert_eq!(service.say(&good, "words").await["seq"], 3);
    service.stop().await;
}
