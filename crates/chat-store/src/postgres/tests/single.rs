//! Single cases of what the random runs meet by chance.

use std::time::Duration;

use chat_model::NewMessage;
use test_kit::{ensure, eventually};

use super::control::{Database, Instance, Step, Stop, channel};
use crate::{Append, Appended, Log, Outbox, Owner, PageLimit, PageRange, Store, StoreError};

const PATIENCE: Duration = Duration::from_secs(20);

fn text(number: u128, words: &str) -> Append {
    Append {
        channel: channel(number),
        message: NewMessage::text(words),
        key: None,
        owner: Owner::default(),
        max_event_bytes: 64 * 1024,
    }
}

async fn post(instance: &Instance, number: u128) -> Result<u64, StoreError> {
    let stored = instance.store.append(text(number, "words")).await?;
    match stored {
        Appended::Stored { seq, .. } | Appended::Repeated { seq, .. } => Ok(seq),
    }
}

async fn published(database: &Database, number: u128, seq: u64) {
    eventually!(PATIENCE, {
        let published = database.published.lock();
        let found = published.contains_key(&(channel(number), seq));
        ensure!(found, "{seq} is not published");
        Ok(())
    });
}

#[tokio::test]
async fn lost_answer_of_a_commit_is_found_out() {
    let database = Database::new().await;
    let instance = database.open().await;
    assert_eq!(post(&instance, 1).await.unwrap(), 1);
    instance.control.arm(Step::Committed, Stop::Cut);
    assert_eq!(post(&instance, 1).await.unwrap(), 2, "it was stored");
    instance.control.arm(Step::Commit, Stop::Cut);
    assert_eq!(
        post(&instance, 1).await.unwrap(),
        3,
        "it was not, and is stored again"
    );
    assert_eq!(database.run("SELECT count(*) FROM log").await, "3");
    for seq in 1..=3 {
        published(&database, 1, seq).await;
    }
}

/// A writer that stands still in the middle of a batch, for longer than its lease and its locks
/// last, and comes back when others have its lane's events.
#[tokio::test]
async fn writer_that_was_paused_takes_another_lane() {
    let database = Database::new().await;
    let (paused, other) = (database.open().await, database.open().await);
    let lane = paused.store.published_to().await.unwrap().lane();
    assert_eq!(post(&paused, 1).await.unwrap(), 1);
    paused.control.arm(Step::InsertEvents, Stop::Pause);
    let stuck = tokio::time::timeout(Duration::from_millis(1), post(&paused, 1)).await;
    assert!(stuck.is_err());
    eventually!(PATIENCE, {
        ensure!(paused.control.is_paused(), "not there yet");
        Ok(())
    });
    // It holds the channel until the server ends its session.
    assert_eq!(post(&other, 1).await.unwrap(), 2);
    database.end_leases().await;
    database
        .run("UPDATE lanes SET owner = NULL WHERE lane = (SELECT min(lane) FROM lanes)")
        .await;
    paused.control.wake();
    // What it was about to store is there once, after the other's.
    eventually!(PATIENCE, {
        let count = database.run("SELECT count(*) FROM log").await;
        ensure!(count == "3", "{count} events");
        Ok(())
    });
    assert_eq!(post(&paused, 1).await.unwrap(), 4);
    for seq in 1..=4 {
        published(&database, 1, seq).await;
    }
    let lanes = database.run("SELECT count(*) FROM lanes").await;
    assert!(lanes.parse::<u32>().unwrap() >= 2, "lane {lane} and others");
}

/// Two that both believe to own a lane would each pass over what the other has put there.
#[tokio::test]
async fn lane_has_one_writer() {
    let database = Database::new().await;
    let paused = database.open().await;
    let lane = async |instance: &Instance| instance.store.published_to().await.unwrap().lane();
    let first = lane(&paused).await;
    assert_eq!(post(&paused, 1).await.unwrap(), 1);
    for step in [Step::Begin, Step::RenewLane, Step::Rescue] {
        paused.control.arm(step, Stop::Pause);
    }
    let stuck = tokio::time::timeout(Duration::from_millis(1), post(&paused, 1)).await;
    assert!(stuck.is_err());
    eventually!(PATIENCE, {
        ensure!(paused.control.is_paused(), "not there yet");
        Ok(())
    });
    database.end_leases().await;
    let heir = database.open().await;
    assert_eq!(lane(&heir).await, first, "it is free to take");
    paused.control.disarm();
    assert_eq!(post(&paused, 2).await.unwrap(), 1);
    assert_ne!(lane(&paused).await, first);
    assert_eq!(post(&heir, 3).await.unwrap(), 1);
    let lanes = database
        .run("SELECT count(DISTINCT lane) FROM log WHERE channel_no IN (SELECT no FROM channels WHERE uuid IN ('00000000-0000-0000-0000-000000000002', '00000000-0000-0000-0000-000000000003'))")
        .await;
    assert_eq!(lanes, "2");
}

#[tokio::test]
async fn what_a_killed_process_left_is_published() {
    let database = Database::new().await;
    let (mut killed, other) = (database.open().await, database.open().await);
    assert_eq!(post(&other, 2).await.unwrap(), 1);
    killed.control.arm(Step::Committed, Stop::Kill);
    let lost = tokio::time::timeout(Duration::from_millis(1), post(&killed, 1)).await;
    assert!(lost.is_err());
    eventually!(PATIENCE, {
        ensure!(killed.control.is_dead(), "not there yet");
        Ok(())
    });
    killed.bury();
    published(&database, 1, 1).await;
    let oldest = async || other.store.oldest_unpublished().await.unwrap();
    eventually!(PATIENCE, {
        let oldest = oldest().await;
        ensure!(oldest.is_none(), "{oldest:?}");
        Ok(())
    });
}

#[tokio::test]
async fn another_timeline_gives_new_epochs() {
    let database = Database::new().await;
    let first = database.open().await;
    post(&first, 1).await.unwrap();
    let before = first.store.heads(&[channel(1)]).await.unwrap().remove(0);
    first.store.close().await;
    // As after a replica has taken over.
    database
        .run("UPDATE state SET origin = replace(origin, '/00000001/', '/00000007/')")
        .await;
    let (second, third) = (database.open().await, database.open().await);
    let after = second.store.heads(&[channel(1)]).await.unwrap().remove(0);
    assert!(after.epoch > before.epoch);
    assert_eq!(after.epochs.len(), 2, "one for both that came");
    assert_eq!((after.head, after.epochs[1].from), (1, 2));
    assert_eq!(post(&third, 1).await.unwrap(), 2);
    assert_eq!(post(&third, 2).await.unwrap(), 1);
    let heads = second.store.heads(&[channel(1), channel(2)]).await.unwrap();
    assert_eq!(heads[0].epochs, after.epochs, "written down as it was told");
    assert!(heads[1].epoch >= after.epoch);
}

/// Nobody can connect before it is done, and a statement has a time limit.
#[tokio::test]
async fn taking_over_takes_no_longer_for_many_channels() {
    let database = Database::new().await;
    let instance = database.open().await;
    post(&instance, 1).await.unwrap();
    instance.store.close().await;
    database
        .run(
            "INSERT INTO channels (uuid, head, epoch, epochs, epoch_starts)
                SELECT gen_random_uuid(), 1, 5, '{5}', '{1}' FROM generate_series(1, 5000);
             UPDATE state SET origin = replace(origin, '/00000001/', '/00000007/')",
        )
        .await;
    database.run("SELECT pg_stat_reset()").await;
    database.open().await.store.close().await;
    eventually!(PATIENCE, {
        let sessions = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'hark'";
        ensure!(database.run(sessions).await == "0", "not closed yet");
        Ok(())
    });
    assert_eq!(
        database
            .run("SELECT cardinality(incarnations) FROM state")
            .await,
        "1"
    );
    let read = "SELECT coalesce(seq_tup_read, 0) + coalesce((SELECT sum(idx_tup_read)
            FROM pg_stat_user_indexes WHERE relname = 'channels'), 0)
        FROM pg_stat_user_tables WHERE relname = 'channels'";
    let read: u64 = database.run(read).await.parse().unwrap();
    assert!(read < 100, "{read} channels were read");
}

/// A replica that took over, and lacks the newest of what was published already.
#[tokio::test]
async fn lane_that_went_back_uses_no_position_twice() {
    let database = Database::new().await;
    let instance = database.open().await;
    for seq in 1..=5 {
        assert_eq!(post(&instance, 1).await.unwrap(), seq);
        published(&database, 1, seq).await;
    }
    database
        .run(
            "BEGIN;
             UPDATE state SET origin = replace(origin, '/00000001/', '/00000007/');
             UPDATE lanes SET pos = 1, published_to = 1;
             DELETE FROM log WHERE seq > 1;
             UPDATE channels SET head = 1;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'hark';
             COMMIT",
        )
        .await;
    database.published.lock().clear();
    for seq in 2..=8 {
        assert_eq!(post(&instance, 1).await.unwrap(), seq);
        published(&database, 1, seq).await;
    }
    let epoch = "SELECT cardinality(epochs) FROM channels";
    assert_eq!(database.run(epoch).await, "2");
}

#[tokio::test]
async fn segments_expire_as_a_whole() {
    let database = Database::new().await;
    let mut options = database.options();
    options.retention.max_age = Duration::from_secs(16 * 3600);
    let store = crate::PostgresStore::open(&options).await.unwrap();
    let add = async |number: u128| {
        let stored = store.append(text(number, "words")).await.unwrap();
        assert!(matches!(stored, Appended::Stored { .. }));
    };
    let segments = async || database.run("SELECT count(*) FROM segments").await;
    // An hour each.
    for hour in 0..10 {
        add(hour % 2).await;
        database.clock.advance(Duration::from_secs(3600));
        assert_eq!(store.expire().await.unwrap(), 0);
    }
    assert_eq!(segments().await, "11");
    let firsts = async || {
        let heads = store.heads(&[channel(0), channel(1)]).await.unwrap();
        heads
            .iter()
            .map(|head| (head.first, head.head))
            .collect::<Vec<_>>()
    };
    assert_eq!(firsts().await, [(1, 5), (1, 5)]);
    database.clock.advance(Duration::from_secs(8 * 3600));
    // 18 hours after the first, 17 after the second, 16 after the third.
    assert_eq!(store.expire().await.unwrap(), 3);
    assert_eq!(firsts().await, [(3, 5), (2, 5)]);
    // By age, which may be less than a day, and not for want of room.
    assert_eq!(store.stats().expired_early, 0);
    let page = store
        .page(channel(1), PageRange::After(0), PageLimit::MAX)
        .await
        .unwrap();
    assert_eq!(page.events.len(), 4);
    add(1).await;
    assert_eq!(firsts().await, [(3, 5), (2, 6)]);
    store.close().await;
}

#[tokio::test]
async fn log_that_is_too_large_loses_its_oldest_segments() {
    let database = Database::new().await;
    let mut options = database.options();
    options.retention.max_bytes = 4 << 20;
    let store = crate::PostgresStore::open(&options).await.unwrap();
    let large = "x".repeat(30_000);
    for number in 0..600_u32 {
        // Incompressible enough: the server packs what repeats.
        let words: String = (0..50)
            .map(|part| {
                format!(
                    "{:x}",
                    u128::from(number * 100 + part + 1).pow(3) * 0x9e37_79b9_7f4a_7c15
                )
            })
            .collect();
        let mut new = text(1, &words);
        new.message.data = Some(format!("\"{}\"", &large[..3_000]));
        store.append(new).await.unwrap();
        if number % 50 == 0 {
            store.expire().await.unwrap();
        }
    }
    store.expire().await.unwrap();
    let head = store.heads(&[channel(1)]).await.unwrap().remove(0);
    let bytes = database
        .run("SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits")
        .await;
    assert!(bytes.parse::<u64>().unwrap() <= 5 << 20, "{bytes} bytes");
    assert_eq!(head.head, 600);
    let page = store
        .page(channel(1), PageRange::Newest, PageLimit::events(1))
        .await
        .unwrap();
    assert_eq!(page.events.len(), 1);
    store.close().await;
}

/// A batch of repeats stores nothing, and must not pass for a sign of life.
#[tokio::test]
async fn lane_of_a_writer_that_gets_only_repeats_is_kept() {
    let database = Database::new().await;
    let instance = database.open().await;
    let mut new = text(1, "words");
    new.message.id = Some(uuid::Uuid::from_u128(1));
    let lease = async || database.run("SELECT lease_until FROM lanes").await;
    instance.store.append(new.clone()).await.unwrap();
    let first = lease().await;
    let repeating = async {
        loop {
            let again = instance.store.append(new.clone()).await.unwrap();
            assert!(matches!(again, Appended::Repeated { .. }));
        }
    };
    let renewed = async {
        eventually!(PATIENCE, {
            ensure!(lease().await > first, "the lease was not renewed");
            Ok(())
        });
    };
    tokio::select! {
        () = repeating => {}
        () = renewed => {}
    }
}

/// A repeat is answered from what is there: it shows nothing about the disk.
#[tokio::test]
async fn repeats_do_not_pass_for_room_on_a_full_disk() {
    let database = Database::new().await;
    let mut options = database.options();
    options.timing.lease = Duration::from_secs(600);
    let instance = database.open_with(options).await;
    let mut new = text(1, "words");
    new.message.id = Some(uuid::Uuid::from_u128(1));
    instance.store.append(new.clone()).await.unwrap();
    instance.store.check().await.unwrap();
    let full = || instance.control.arm_after(0, Stop::Refuse("53100"));
    full();
    post(&instance, 1).await.unwrap_err();
    let repeat = instance.store.append(new).await.unwrap();
    assert!(matches!(repeat, Appended::Repeated { .. }));
    full();
    instance.store.check().await.expect_err("it is still full");
    instance.store.check().await.expect("there is room again");
}

/// What a post costs: a batch is as many statements whatever its size, also when it begins channels.
#[tokio::test]
async fn batch_takes_five_statements_or_eight_with_keys() {
    let database = Database::new().await;
    let mut options = database.options();
    options.timing.lease = Duration::from_secs(600);
    let instance = database.open_with(options).await;
    post(&instance, 1).await.unwrap();
    let cost = async |channels: std::ops::Range<u128>, id: Option<u128>| {
        let mut least = u32::MAX;
        // Now and then the watermark is saved in between.
        for round in 0..5 {
            let before = instance.control.statements();
            let posts = channels.clone().map(|number| {
                let mut new = text(number + round * 100, "words");
                new.message.id = id.map(|id| uuid::Uuid::from_u128(id + round * 100 + number));
                instance.store.append(new)
            });
            for stored in futures_util::future::join_all(posts).await {
                assert!(matches!(stored.unwrap(), Appended::Stored { .. }));
            }
            least = least.min(instance.control.statements() - before);
        }
        least
    };
    assert_eq!(cost(1..2, None).await, 5);
    assert_eq!(cost(1_000..1_050, None).await, 5, "each of them is new");
    assert_eq!(cost(1_000..1_050, None).await, 5);
    assert_eq!(cost(1_000..1_050, Some(1)).await, 8);
}
