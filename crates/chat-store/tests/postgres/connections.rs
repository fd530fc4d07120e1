//! Which connection answers what.

use std::time::Duration;

use chat_store::{Log, PageLimit, PageRange, PostgresStore, Store};
use futures_util::FutureExt;
use tokio_postgres::NoTls;

use crate::posts::{channel, post, text};
use crate::support::Database;

const PATIENCE: Duration = Duration::from_secs(20);

/// A store with a message in a channel, both of whose connections stand.
async fn with_two_connections(database: &Database) -> PostgresStore {
    let mut options = database.options();
    options.connections = 2;
    options.statement_timeout = PATIENCE * 2;
    let store = PostgresStore::open(&options).await.unwrap();
    post(&store, text(1, "words")).await.unwrap();
    let asked = [channel(1)];
    let (one, other) = tokio::join!(store.heads(&asked), store.heads(&asked));
    assert_eq!(one.unwrap(), other.unwrap(), "both connections are there");
    store
}

/// The server is still at work for whoever has gone: another connection answers the next one.
#[tokio::test]
async fn question_that_nobody_waits_for_holds_up_no_other() {
    let database = Database::new().await;
    let store = with_two_connections(&database).await;
    let asked = [channel(1)];
    let (client, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
    let somebody = async {
        let lock = "BEGIN; LOCK TABLE hark.log";
        client.batch_execute(lock).await.unwrap();
        let page = store.page(channel(1), PageRange::Newest, PageLimit::MAX);
        assert!(page.now_or_never().is_none(), "asked, and given up");
        let answer = tokio::time::timeout(PATIENCE, store.heads(&asked)).await;
        answer.expect("on the other connection").unwrap();
    };
    tokio::select! {
        () = somebody => {}
        ended = connection => panic!("{ended:?}"),
    }
    store.close().await;
}

#[tokio::test]
async fn logs_that_cannot_be_counted_have_their_new_epoch() {
    let database = Database::new().await;
    let store = database.open().await;
    post(&store, text(1, "words")).await.unwrap();
    let before = store.heads(&[channel(1)]).await.unwrap().remove(0);
    let name = database.url.rsplit('/').next().unwrap();
    let no_more = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
    test_kit::Postgres::shared()
        .await
        .run("postgres", &no_more)
        .await;
    assert_eq!(store.new_epoch().await.unwrap(), None);
    let after = store.heads(&[channel(1)]).await.unwrap().remove(0);
    assert!(after.epoch > before.epoch);
    store.close().await;
}

/// However many pages are slow: heads and the outbox have a connection of their own.
#[tokio::test]
async fn slow_pages_do_not_hold_up_heads() {
    let database = Database::new().await;
    let store = with_two_connections(&database).await;
    let asked = [channel(1)];
    let (client, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
    let lock = "BEGIN; LOCK TABLE hark.log";
    let pages = || {
        let page = || store.page(channel(1), PageRange::Newest, PageLimit::MAX);
        futures_util::future::join_all([page(), page(), page()])
    };
    let somebody = async {
        client.batch_execute(lock).await.unwrap();
        let heads = async {
            for _ in 0..3 {
                store.heads(&asked).await.unwrap();
            }
        };
        tokio::select! {
            answers = pages() => panic!("{answers:?}"),
            () = tokio::time::sleep(PATIENCE) => panic!("heads wait"),
            () = heads => {}
        }
    };
    tokio::select! {
        () = somebody => {}
        ended = connection => panic!("{ended:?}"),
    }
    store.close().await;
}

/// A connection is taken as long as the server is at work on it, also for whoever has gone.
#[tokio::test]
async fn pages_that_nobody_waits_for_do_not_hold_up_heads() {
    let database = Database::new().await;
    let store = with_two_connections(&database).await;
    let asked = [channel(1)];
    let (client, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
    let somebody = async {
        let lock = "BEGIN; LOCK TABLE hark.log";
        client.batch_execute(lock).await.unwrap();
        for _ in 0..3 {
            let page = store.page(channel(1), PageRange::Newest, PageLimit::MAX);
            assert!(page.now_or_never().is_none(), "asked, and given up");
            tokio::task::yield_now().await;
        }
        let answer = tokio::time::timeout(PATIENCE, store.heads(&asked)).await;
        answer.expect("on the other connection").unwrap();
    };
    tokio::select! {
        () = somebody => {}
        ended = connection => panic!("{ended:?}"),
    }
    store.close().await;
}
