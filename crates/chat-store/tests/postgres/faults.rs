//! Sessions that the server ends, a network that is cut, a server that stands still.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chat_model::EventView;
use chat_store::{Appended, Log, PageLimit, PageRange, PostgresStore, Store, StoreError};
use futures_util::FutureExt;
use rustix::process::{Pid, Signal, kill_process};
use test_kit::{FaultProxy, Postgres, ensure, eventually};

use crate::posts::{channel, post, text};
use crate::support::Database;

const PATIENCE: Duration = Duration::from_secs(30);

/// Posts one after the other from several callers until it is dropped; the answers by text.
async fn post_all(
    store: &PostgresStore,
    count: usize,
) -> HashMap<String, Result<Appended, StoreError>> {
    let callers = (0..8).map(|caller| async move {
        let mut answers = Vec::new();
        for number in 0..count {
            let words = format!("{caller}/{number}");
            answers.push((words.clone(), store.append(text(1, words)).await));
        }
        answers
    });
    let all = futures_util::future::join_all(callers).await;
    all.into_iter().flatten().collect()
}

async fn texts(store: &PostgresStore) -> HashMap<String, usize> {
    let mut texts = HashMap::new();
    let mut after = 0;
    loop {
        // The last of the faults may still be on its way.
        let page = eventually!(PATIENCE, {
            let range = PageRange::After(after);
            Ok(store.page(channel(1), range, PageLimit::MAX).await?)
        });
        if page.events.is_empty() {
            assert_eq!(after, page.head.head, "dense");
            return texts;
        }
        after += page.events.len() as u64;
        for event in page.events {
            let text = EventView::parse(&event).unwrap().text.unwrap().into_owned();
            *texts.entry(text).or_default() += 1;
        }
    }
}

fn check(answers: &HashMap<String, Result<Appended, StoreError>>, texts: &HashMap<String, usize>) {
    for (words, answer) in answers {
        let found = texts.get(words).copied().unwrap_or(0);
        match answer {
            Ok(_) => assert_eq!(found, 1, "{words}"),
            Err(StoreError::OutcomeUnknown { .. }) => assert!(found <= 1, "{words}"),
            Err(error) => assert_eq!(found, 0, "{words}: {error}"),
        }
    }
}

#[tokio::test]
async fn sessions_that_the_server_ends_lose_nothing() {
    let database = Database::new().await;
    let store = Arc::new(database.open().await);
    let mut answers = None;
    let posting = async { answers = Some(post_all(&store, 200).await) };
    let ending = async {
        loop {
            database
                .run(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'hark'",
                )
                .await;
        }
    };
    tokio::select! {
        () = posting => {}
        () = ending => {}
    }
    let answers = answers.unwrap();
    assert!(answers.values().any(Result::is_ok));
    check(&answers, &texts(&store).await);
    store.close().await;
}

#[tokio::test]
async fn network_that_is_cut_loses_nothing() {
    let server = Postgres::shared().await;
    let database = Database::new().await;
    let proxy = FaultProxy::start(server.address()).await;
    let name = database.url.rsplit('/').next().unwrap();
    let mut options = database.options();
    options.url = Postgres::url_at(proxy.address(), name);
    let store = PostgresStore::open(&options).await.unwrap();
    let mut answers = None;
    let posting = async { answers = Some(post_all(&store, 100).await) };
    let cutting = async {
        let mut stored = 0;
        loop {
            // After every few commits.
            eventually!(PATIENCE, {
                let now = store.stats().commits;
                ensure!(now > stored + 5, "no progress");
                stored = now;
                Ok(())
            });
            proxy.cut();
        }
    };
    tokio::select! {
        () = posting => {}
        () = cutting => {}
    }
    let answers = answers.unwrap();
    check(&answers, &texts(&store).await);
    assert!(
        answers.values().all(Result::is_ok),
        "a lost connection is soon back"
    );
    store.close().await;
}

/// Of the store, on the server.
async fn sessions(database: &Database) -> HashSet<String> {
    let sessions = "SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'hark'";
    let pids = database.run(sessions).await;
    pids.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn question_that_nobody_waits_for_costs_no_connection() {
    let database = Database::new().await;
    let mut options = database.options();
    options.connections = 1;
    let store = PostgresStore::open(&options).await.unwrap();
    post(&store, text(1, "words")).await.unwrap();
    store.heads(&[channel(1)]).await.unwrap();
    let before = sessions(&database).await;
    for _ in 0..20 {
        let page = store.page(channel(1), PageRange::Newest, PageLimit::MAX);
        assert!(page.now_or_never().is_none(), "asked, and given up");
        store.heads(&[channel(1)]).await.unwrap();
    }
    let kept = before.is_subset(&sessions(&database).await);
    assert!(kept, "a connection was lost over it");
    store.close().await;
}

/// Errors of the server's own in the round trip that ends with COMMIT: the others of a batch, and the
/// next batch, do not suffer.
#[tokio::test]
async fn event_that_the_server_refuses_harms_no_other() {
    let database = Database::new().await;
    let store = database.open().await;
    post(&store, text(1, "first")).await.unwrap();
    database
        .run(
            "CREATE SEQUENCE hark.deadlocks;
             CREATE FUNCTION hark.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             DECLARE event text := convert_from(NEW.event, 'UTF8');
             BEGIN
                IF event LIKE '%bad one%' THEN RAISE USING ERRCODE = '22P05'; END IF;
                IF event LIKE '%large%' THEN RAISE USING ERRCODE = '53100'; END IF;
                IF event LIKE '%unlucky%' AND nextval('hark.deadlocks') < 3
                    THEN RAISE USING ERRCODE = '40P01'; END IF;
                RETURN NEW;
             END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON hark.log
                FOR EACH ROW EXECUTE FUNCTION hark.refuse()",
        )
        .await;
    let before = sessions(&database).await;
    let batch =
        ["good", "bad one", "also good", "unlucky"].map(|words| post(&store, text(1, words)));
    let answers = futures_util::future::join_all(batch).await;
    let told = |answer: &Result<u64, StoreError>, code| match answer {
        Err(StoreError::Unavailable { reason }) => reason.contains(code),
        _ => false,
    };
    assert!(told(&answers[1], "22P05"), "{:?}", answers[1]);
    for good in [0, 2, 3] {
        assert!(answers[good].is_ok(), "{:?}", answers[good]);
    }
    let refused = post(&store, text(1, "too large")).await;
    assert!(told(&refused, "53100"), "{refused:?}");
    assert_eq!(post(&store, text(1, "innocent")).await.unwrap(), 5);
    let kept = before.is_subset(&sessions(&database).await);
    assert!(kept, "a connection was lost over it");
    assert_eq!(texts(&store).await.len(), 5);
    store.close().await;
}

/// A server that panics, as PostgreSQL does when fsync fails, ends all sessions and recovers from
/// its log: what became of the batch is found out then.
#[tokio::test]
async fn server_that_panics_is_judged_when_it_is_back() {
    let server = Postgres::start().await;
    let database = Database::at(server.database().await);
    let name = database.url.rsplit('/').next().unwrap();
    let store = database.open().await;
    post(&store, text(1, "before")).await.unwrap();
    let mut answers = None;
    let posting = async { answers = Some(post_all(&store, 150).await) };
    let panicking = async {
        let mut seen = 0;
        loop {
            eventually!(PATIENCE, {
                let now = store.stats().commits;
                ensure!(now > seen + 20, "no progress");
                seen = now;
                Ok(())
            });
            let session = "SELECT pid FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'hark'
                ORDER BY query LIKE '%COMMIT%' DESC LIMIT 1";
            // It may not be back yet.
            let pid = server.try_run(name, session).await;
            if let Some(pid) = pid.ok().and_then(|pid| Pid::from_raw(pid.parse().ok()?)) {
                // To the postmaster one that is killed is as bad as one that panicked. It may be
                // gone already.
                let _gone = kill_process(pid, Signal::KILL);
            }
        }
    };
    tokio::select! {
        () = posting => {}
        () = panicking => {}
    }
    let answers = answers.unwrap();
    assert!(answers.values().any(Result::is_ok));
    check(&answers, &texts(&store).await);
    store.close().await;
}

/// A server that is stopped takes connections and answers nothing.
#[tokio::test]
async fn server_that_stands_still_is_not_waited_for_long() {
    let server = Postgres::start().await;
    let database = Database::at(server.database().await);
    let mut options = database.options();
    options.connect_timeout = Duration::from_millis(300);
    options.statement_timeout = Duration::from_secs(1);
    let store = PostgresStore::open(&options).await.unwrap();
    post(&store, text(1, "before")).await.unwrap();
    let signal = |signal| {
        let group = server_processes(&server);
        for pid in group {
            kill_process(pid, signal).unwrap();
        }
    };
    signal(Signal::STOP);
    let stuck = tokio::time::timeout(PATIENCE, post(&store, text(1, "stuck"))).await;
    assert!(stuck.expect("an answer").is_err());
    let read = tokio::time::timeout(PATIENCE, store.heads(&[channel(1)])).await;
    assert!(read.expect("an answer").is_err());
    let failed = post(&store, text(1, "at once")).await;
    assert!(
        matches!(failed, Err(StoreError::Unavailable { .. })),
        "{failed:?}"
    );
    signal(Signal::CONT);
    eventually!(PATIENCE, {
        post(&store, text(1, "after")).await?;
        store.heads(&[channel(1)]).await?;
        Ok(())
    });
    texts(&store).await;
    store.close().await;
}

/// The postmaster and its children.
fn server_processes(server: &Postgres) -> Vec<Pid> {
    let postmaster = server.pid();
    let children = format!("/proc/{postmaster}/task/{postmaster}/children");
    let children = std::fs::read_to_string(children).unwrap();
    let pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
    let pids = pids.chain([postmaster.cast_signed()]);
    pids.map(|pid| Pid::from_raw(pid).unwrap()).collect()
}
