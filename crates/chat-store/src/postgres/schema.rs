//! The tables, and how older ones become like them; and what every new connection is asked first.

use super::connection::Connector;
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

/// Makes processes that start together migrate one after the other.
const BEGIN: &str = "BEGIN; SELECT pg_advisory_xact_lock(hashtext('hark'), hashtext('migrate'))";

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
) -> Result<Session, Failure> {
    let mut session = prepare(connector, connector.options.migrate).await?;
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

/// A session with a database of today's format.
pub(super) async fn prepare(connector: &Connector, migrate: bool) -> Result<Session, Failure> {
    let known = MIGRATIONS.len();
    let needed = "the user needs CREATE on the database, or the schema hark as its own";
    let explain = |failure| connector.explain(failure, needed);
    let session = connector.reach().await?;
    let mut found = version(&session).await.map_err(explain)?;
    if migrate && found < known {
        // On a connection of its own: after a failure it is of no use any more.
        let session = connector.reach().await?.without_limits().await?;
        let before = std::mem::replace(&mut found, bring_up(&session).await.map_err(explain)?);
        let database = &connector.database;
        tracing::info!(database, from = before, to = found, "schema migrated");
    }
    let advice = match found {
        _ if found == known => return Ok(session),
        _ if found > known => "use the newer program that made it",
        _ => "run `hark migrate`, or set store.postgres.migrate",
    };
    Err(connector.refuse(match found {
        0 => format!("it holds no schema hark: {advice}"),
        _ => format!("its format is {found} and this program knows {known}: {advice}"),
    }))
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
    session.run(BEGIN).await?;
    let done = version(session).await?;
    if done == 0 {
        session.run(CREATE).await?;
    }
    for (step, number) in MIGRATIONS.iter().zip(1..).skip(done) {
        let note = format!("INSERT INTO versions (version) VALUES ({number})");
        session.run(step).await?;
        session.run(&note).await?;
    }
    session.run("COMMIT").await?;
    Ok(done.max(MIGRATIONS.len()))
}
