//! A server that takes over and lacks the newest of what was committed.

use std::collections::HashSet;

use bytes::Bytes;
use parking_lot::Mutex;
use test_kit::Postgres;

/// A copy of the database as it was at some moment, and what has been lost by going back to it.
pub(super) struct Replica {
    database: String,
    lost: Mutex<HashSet<Bytes>>,
    /// One after the other.
    takes_over: tokio::sync::Mutex<()>,
}

const TABLES: [&str; 4] = ["lanes", "channels", "sender_keys", "log"];

/// Ends all sessions of writers and readers.
const END_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'hark';";

impl Replica {
    pub(super) fn of(database: &str) -> Self {
        Self {
            database: database.to_owned(),
            lost: Mutex::default(),
            takes_over: tokio::sync::Mutex::default(),
        }
    }

    /// Receives all that is committed now.
    pub(super) async fn catch_up(&self) {
        let copies =
            TABLES.map(|table| format!("CREATE TABLE replica.{table} AS TABLE hark.{table};"));
        let sql = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ;
             DROP SCHEMA IF EXISTS replica CASCADE;
             CREATE SCHEMA replica;
             CREATE TABLE replica.state AS TABLE hark.state;
             {}
             COMMIT",
            copies.concat()
        );
        let _alone = self.takes_over.lock().await;
        Postgres::shared().await.run(&self.database, &sql).await;
    }

    /// Becomes the server, on another timeline: every session ends, and whoever connects finds what
    /// the replica had. One that has never received anything cannot take over.
    pub(super) async fn take_over(&self) {
        let copies = TABLES.map(|table| {
            format!(
                "DELETE FROM {table};
                 INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM replica.{table};"
            )
        });
        // Nobody gets a look at it in between: who came before the locks is ended, who comes later
        // waits for them before it has read anything.
        let sql = format!(
            "SET search_path = hark;
             SET deadlock_timeout = '60s';
             {END_SESSIONS}
             BEGIN;
             LOCK TABLE lanes, state, channels, sender_keys, log IN ACCESS EXCLUSIVE MODE;
             {END_SESSIONS}
             SELECT convert_from(event, 'UTF8') FROM log
                WHERE NOT EXISTS (SELECT FROM replica.log kept WHERE kept.event = log.event);
             {}
             UPDATE state SET incarnations = kept.incarnations,
                origin = replace(state.origin, '/00000001/', '/00000007/')
                FROM replica.state kept;
             COMMIT",
            copies.concat()
        );
        let _alone = self.takes_over.lock().await;
        let server = Postgres::shared().await;
        let has_copy = "SELECT to_regclass('replica.log') IS NOT NULL";
        if server.run(&self.database, has_copy).await == "t" {
            let lost = server.run(&self.database, &sql).await;
            let events = lost.lines().filter(|line| line.starts_with('{'));
            let events = events.map(|event| Bytes::copy_from_slice(event.as_bytes()));
            self.lost.lock().extend(events);
        }
    }

    /// Whether it was committed once, and went with a server.
    pub(super) fn has_lost(&self, event: &[u8]) -> bool {
        self.lost.lock().contains(event)
    }
}
