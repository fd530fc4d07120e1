//! The tables, and how older ones become like them; and what every new connection is asked first.

use super::connection::{Connector, NoSession};
use super::epochs;
use super::failure::Failure;
use super::session::Session;
use crate::expiry_clock::now;

/// Steps from an empty schema to today's format; the table `versions` tells those done. A step that
/// was released is never changed.
const MIGRATIONS: [&str; 6] = [
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
    include_str!("migrations/0004.sql"),
    include_str!("migrations/0005.sql"),
    include_str!("migrations/0006.sql"),
];

/// Makes processes that start together migrate one after the other. A table may be large, and another
/// process may be at it.
const BEGIN: &str = "BEGIN;
    SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;
    SELECT pg_advisory_xact_lock(hashtext('hark'), hashtext('migrate'))";

/// Only if it is missing: who owns it need not have the right to make one.
const CREATE: &str = "DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'hark') THEN CREATE SCHEMA hark; END IF;
    END $$;
    CREATE TABLE versions (version integer PRIMARY KEY, migrated_at timestamptz NOT NULL DEFAULT now());";

/// A session with a database of today's format, whose logs have the epoch that they must have, and
/// that knows these statements.
pub(super) async fn connect(
    connector: &Connector,
    statements: &[&'static str],
) -> Result<Session, NoSession> {
    let mut session = connector.reach().await?;
    prepare(connector, &session, connector.options.migrate).await?;
    let moved = epochs::check_origin(&session, now(&connector.options.clock)).await;
    let moved = moved.map_err(|failure| {
        let needed = "the user must be able to read and write the tables of the schema hark, and to run \
             pg_control_system and pg_walfile_name";
        connector.explain(failure, needed)
    })?;
    if let Some((before, here)) = moved {
        tracing::warn!(
            database = connector.database,
            before,
            here,
            "the database is another one than before, or on another timeline: all logs have a new epoch"
        );
    }
    session.prepare(statements).await?;
    Ok(session)
}

/// Takes care that the database has today's format. After a failure the session is of no use any more.
pub(super) async fn prepare(
    connector: &Connector,
    session: &Session,
    migrate: bool,
) -> Result<(), NoSession> {
    let known = MIGRATIONS.len();
    let needed = "the user needs CREATE on the database, or the schema hark as its own";
    let explain = |failure| connector.explain(failure, needed);
    let found = version(session).await.map_err(explain)?;
    let reached = if migrate && found < known {
        bring_up(session).await.map_err(explain)?
    } else {
        found
    };
    if reached < known {
        let what = match reached {
            0 => "it holds no schema hark".to_owned(),
            _ => format!("its format is {found} and this program needs {known}"),
        };
        return Err(connector.refuse(format!(
            "{what}: run `hark migrate`, or set store.postgres.migrate"
        )));
    }
    if reached > known {
        return Err(connector.refuse(format!(
            "its format is {reached} and this program knows up to {known}: use the newer program that \
             made it"
        )));
    }
    if found < known {
        let database = &connector.database;
        tracing::info!(database, from = found, to = known, "schema migrated");
    }
    Ok(())
}

/// 0 for a database without the schema. Asked of the catalog itself: what a session remembers of
/// names that do not exist may be older than the lock that it has just been given.
async fn version(session: &Session) -> Result<usize, Failure> {
    let exists = "SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname = 'hark' AND relname = 'versions')";
    if !session.row(exists, &[]).await?.get::<_, bool>(0) {
        return Ok(0);
    }
    let version = "SELECT coalesce(max(version), 0) FROM hark.versions";
    // Versions are counted from 1; none is 0.
    Ok(usize::try_from(session.row(version, &[]).await?.get::<_, i32>(0)).unwrap_or(0))
}

/// All steps that are missing, in one transaction; the version that there is now.
async fn bring_up(session: &Session) -> Result<usize, Failure> {
    session.run_long(BEGIN).await?;
    let done = version(session).await?;
    if done == 0 {
        session.run(CREATE).await?;
    }
    for (step, number) in MIGRATIONS.iter().zip(1..).skip(done) {
        let note = format!("INSERT INTO versions (version) VALUES ({number})");
        session.run_long(step).await?;
        session.run(&note).await?;
    }
    session.run("COMMIT").await?;
    Ok(done.max(MIGRATIONS.len()))
}
