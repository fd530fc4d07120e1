//! Opening a store: what is waited for, and what is refused with a sentence.

use std::time::Duration;

use chat_store::{
    Log, OpenError, Outbox, PostgresOptions, PostgresStore, Store, StoreError, postgres,
};
use test_kit::{Postgres, ensure, eventually};

use crate::posts::{post, text};
use crate::support::Database;

const PATIENCE: Duration = Duration::from_secs(30);

async fn refused(options: &PostgresOptions) -> String {
    match PostgresStore::open(options).await {
        Err(error @ OpenError::UnusableDatabase { .. }) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[tokio::test]
async fn what_an_operator_must_change_is_said() {
    let database = Database::new().await;
    let mut options = database.options();
    options.password = Some("wrong".to_owned());
    let error = refused(&options).await;
    holds(
        &error,
        &["password authentication failed", "check user, password"],
    );
    assert!(!error.contains("wrong"), "{error}");
    options.password = None;
    options.url = options.url.replace(Postgres::PASSWORD, "");
    holds(&refused(&options).await, &["check user"]);
    options.url = database.url.clone() + "_missing";
    holds(
        &refused(&options).await,
        &["does not exist", "create the database"],
    );
    options.url.clone_from(&database.url);
    options.tls = true;
    holds(
        &refused(&options).await,
        &["does not support TLS", "setting tls"],
    );
}

#[tokio::test]
async fn bad_options_are_refused() {
    let database = Database::new().await;
    let bad = async |change: fn(&mut PostgresOptions), part: &str| {
        let mut options = database.options();
        change(&mut options);
        match PostgresStore::open(&options).await {
            Err(error @ OpenError::BadOption { .. }) => holds(&error.to_string(), &[part]),
            other => panic!("not refused: {other:?}"),
        }
    };
    bad(|o| o.connections = 0, "connections").await;
    bad(
        |o| o.url = "mysql://root:secret@there/db".into(),
        "postgres://",
    )
    .await;
    bad(|o| o.url = String::new(), "must name a host").await;
    bad(|o| o.url += "?sslmode=require", "setting tls").await;
    bad(|o| o.batch = 0, "batch").await;
    bad(|o| o.retention.max_per_channel = 0, "max_per_channel").await;
    bad(
        |o| {
            o.tls = true;
            o.ca_file = Some("/nowhere/ca.pem".into());
        },
        "/nowhere/ca.pem",
    )
    .await;
}

#[tokio::test]
async fn schema_is_made_when_it_may_be() {
    let database = Database::new().await;
    let mut options = database.options();
    options.migrate = false;
    holds(&refused(&options).await, &["hark migrate"]);
    postgres::migrate(&options).await.unwrap();
    postgres::migrate(&options).await.unwrap();
    let store = PostgresStore::open(&options).await.unwrap();
    assert_eq!(post(&store, text(1, "a")).await.unwrap(), 1);
    store.close().await;
    database
        .run("INSERT INTO hark.versions VALUES (1000)")
        .await;
    for migrate in [true, false] {
        options.migrate = migrate;
        holds(
            &refused(&options).await,
            &["format is 1000", "newer program"],
        );
    }
    let error = postgres::migrate(&options).await.unwrap_err().to_string();
    holds(&error, &["newer program"]);
}

#[tokio::test]
async fn stores_that_start_together_make_the_schema_once() {
    let database = Database::new().await;
    let options = database.options();
    let (one, two, three) = tokio::join!(
        PostgresStore::open(&options),
        PostgresStore::open(&options),
        PostgresStore::open(&options),
    );
    for store in [one, two, three] {
        post(&store.unwrap(), text(1, "a")).await.unwrap();
    }
    assert_eq!(database.run("SELECT count(*) FROM hark.log").await, "3");
}

/// A user with no rights but those on a schema of its own.
#[tokio::test]
async fn user_needs_no_more_than_its_schema() {
    let database = Database::new().await;
    let name = database.url.rsplit('/').next().unwrap();
    let role = format!("user_of_{name}");
    database
        .run(&format!("CREATE ROLE {role} LOGIN PASSWORD 'own'"))
        .await;
    let mut options = database.options();
    options.url = database
        .url
        .replace(&format!("{}:{}", Postgres::USER, Postgres::PASSWORD), &role);
    options.password = Some("own".to_owned());
    holds(
        &refused(&options).await,
        &["permission denied", "needs CREATE"],
    );
    database
        .run(&format!("CREATE SCHEMA hark AUTHORIZATION {role}"))
        .await;
    let store = PostgresStore::open(&options).await.unwrap();
    assert_eq!(post(&store, text(1, "a")).await.unwrap(), 1);
    store.expire().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn server_that_is_away_is_waited_for() {
    let mut server = Postgres::start().await;
    let database = Database::at(server.database().await);
    server.stop().await;
    let store = database.open().await;
    let away = StoreError::Unavailable {
        reason: String::new(),
    };
    let is_away =
        |error: StoreError| std::mem::discriminant(&error) == std::mem::discriminant(&away);
    assert!(is_away(store.published_to().await.unwrap_err()));
    assert!(is_away(store.heads(&[]).await.unwrap_err()));
    assert!(is_away(store.check().await.unwrap_err()));
    assert!(is_away(post(&store, text(1, "a")).await.unwrap_err()));
    server.restart().await;
    eventually!(PATIENCE, {
        let seq = post(&store, text(1, "b")).await?;
        ensure!(seq == 1, "what was refused is there");
        Ok(())
    });
    store.check().await.unwrap();
    assert_eq!(store.heads(&[]).await.unwrap(), []);
    // And again, in the middle of its life.
    server.restart().await;
    eventually!(PATIENCE, {
        ensure!(
            post(&store, text(1, "c")).await? == 2,
            "what was refused is there"
        );
        Ok(())
    });
    server.kill().await;
    eventually!(PATIENCE, {
        let refused = post(&store, text(1, "d")).await;
        ensure!(refused.is_err_and(is_away), "still there");
        Ok(())
    });
    server.restart().await;
    eventually!(PATIENCE, {
        ensure!(
            post(&store, text(1, "e")).await? == 3,
            "what was refused is there"
        );
        Ok(())
    });
    store.close().await;
}
