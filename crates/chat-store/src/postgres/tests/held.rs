//! Tables of the log that somebody holds for long.

use std::time::Duration;

use chat_model::NewMessage;
use tokio_postgres::NoTls;
use tokio_util::task::AbortOnDropHandle;

use super::control::{Database, channel, task};
use crate::{Append, Appended, Log, Owner, PostgresStore, Store};

const HOUR: Duration = Duration::from_secs(3600);

/// A session of somebody else.
struct Somebody {
    client: tokio_postgres::Client,
    _driver: AbortOnDropHandle<()>,
}

impl Somebody {
    async fn connect(database: &Database) -> Self {
        let (client, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
        let drive = async move { connection.await.unwrap() };
        Self {
            client,
            _driver: task(drive),
        }
    }

    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }
}

async fn post(store: &PostgresStore, number: u128) {
    let new = Append {
        channel: channel(number),
        message: NewMessage::text("words"),
        key: None,
        owner: Owner::default(),
        max_event_bytes: 64 * 1024,
    };
    let stored = store.append(new).await.unwrap();
    assert!(matches!(stored, Appended::Stored { .. }));
}

/// A store with three segments that have expired, with an event each.
async fn expired(database: &Database) -> PostgresStore {
    let mut options = database.options();
    options.retention.max_age = HOUR * 16;
    options.statement_timeout = Duration::from_secs(10);
    let store = PostgresStore::open(&options).await.unwrap();
    for number in 1..=3 {
        post(&store, number).await;
        database.clock.advance(HOUR);
        assert_eq!(store.expire().await.unwrap(), 0);
    }
    post(&store, 4).await;
    database.clock.advance(HOUR * 15 + HOUR / 2);
    store
}

async fn segments(database: &Database) -> String {
    let segments = "SELECT string_agg(n::text, ' ' ORDER BY n) FROM segments";
    database.run(segments).await
}

/// What waits for a table of the log makes all who come later wait behind it.
async fn somebody_waits(watcher: &Somebody) -> bool {
    let waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'hark.log'::regclass";
    !watcher.client.query(waiting, &[]).await.unwrap().is_empty()
}

#[tokio::test]
async fn dump_holds_up_neither_posts_nor_what_expires() {
    let database = Database::new().await;
    let store = expired(&database).await;
    let (dump, watcher) = (
        Somebody::connect(&database).await,
        Somebody::connect(&database).await,
    );
    dump.run("BEGIN; LOCK TABLE hark.log IN ACCESS SHARE MODE")
        .await;
    let watching = async {
        loop {
            assert!(!somebody_waits(&watcher).await, "posts wait");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let removed = tokio::select! {
        removed = store.expire() => removed.unwrap(),
        () = watching => unreachable!(),
    };
    assert_eq!(removed, 3);
    let heads = store.heads(&[1, 2, 3, 4].map(channel)).await.unwrap();
    let firsts: Vec<_> = heads.iter().map(|head| head.first).collect();
    assert_eq!(firsts, [2, 2, 2, 1]);
    assert_eq!(segments(&database).await, "1 2 3 4 5");
    post(&store, 1).await;
    dump.run("COMMIT").await;
    assert_eq!(store.expire().await.unwrap(), 0);
    assert_eq!(segments(&database).await, "4 5");
    store.close().await;
}

#[tokio::test]
async fn segment_that_is_locked_does_not_hold_up_the_others() {
    let database = Database::new().await;
    let store = expired(&database).await;
    let somebody = Somebody::connect(&database).await;
    somebody.run("BEGIN; LOCK TABLE hark.log_1").await;
    assert_eq!(store.expire().await.unwrap(), 2);
    assert_eq!(segments(&database).await, "1 4 5");
    somebody.run("COMMIT").await;
    assert_eq!(store.expire().await.unwrap(), 1);
    assert_eq!(segments(&database).await, "4 5");
    store.close().await;
}

/// A batch that stands still holds the rows of its channels; whoever waits for them must hold
/// nothing.
#[tokio::test]
async fn channel_that_is_locked_does_not_hold_up_the_others() {
    let database = Database::new().await;
    let store = expired(&database).await;
    let somebody = Somebody::connect(&database).await;
    somebody
        .run("BEGIN; SELECT FROM hark.channels WHERE no = 2 FOR UPDATE")
        .await;
    assert_eq!(store.expire().await.unwrap(), 2);
    assert_eq!(segments(&database).await, "2 4 5");
    somebody.run("COMMIT").await;
    assert_eq!(store.expire().await.unwrap(), 1);
    assert_eq!(segments(&database).await, "4 5");
    store.close().await;
}
