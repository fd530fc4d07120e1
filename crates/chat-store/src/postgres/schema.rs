//! The tables, and how older ones become like them.

use super::{
    connection::{Connector, NoSession},
    failure::Failure,
    session::Session,
};

/// Steps from an empty schema to today's format; the table `versions` tells those done. A step that
/// was released is never changed.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
    include_str!("migrations/0004.sql"),
];

/// Makes processes that start together migrate one after the other.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('hark'), hashtext('migrate'))";

/// Takes care that the database has today's format.
pub(super) async fn prepare(
    connector: &Connector,
    session: &Session,
    migrate: bool,
) -> Result<(), NoSession> {
    let known = MIGRATIONS.len();
    let found = version(session)
        .await
        .map_err(|failure| explain(connector, failure))?;
    if found == known {
        return Ok(());
    }
    if found > known {
        return Err(newer(connector, found));
    }
    if !migrate {
        let reason = match found {
            0 => "it holds no schema hark: run `hark migrate`, or set store.postgres.migrate"
                .to_owned(),
            _ => format!(
                "its format is {found} and this program needs {known}: run `hark migrate`, or set store.postgres.migrate"
            ),
        };
        return Err(connector.refuse(reason));
    }
    let reached = session
        .transaction(bring_up(session))
        .await
        .map_err(|failure| explain(connector, failure))?;
    if reached > known {
        return Err(newer(connector, reached));
    }
    tracing::info!(
        database = connector.database,
        from = found,
        to = known,
        "schema migrated"
    );
    Ok(())
}

fn newer(connector: &Connector, found: usize) -> NoSession {
    connector.refuse(format!(
        "its format is {found} and this program knows up to {}: use the newer program that made it",
        MIGRATIONS.len()
    ))
}

/// What the server refuses here, it will refuse again.
fn explain(connector: &Connector, failure: Failure) -> NoSession {
    match failure {
        Failure::Refused(refusal) => connector.refuse(format!(
            "{}; the user needs CREATE on the database, or the schema hark as its own",
            refusal.reason
        )),
        other => other.into(),
    }
}

/// 0 for a database without the schema. Asked of the catalog itself: what a session remembers of
/// names that do not exist may be older than the lock that it has just been given.
async fn version(session: &Session) -> Result<usize, Failure> {
    let exists = session
        .seldom(
            "SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
                WHERE nspname = 'hark' AND relname = 'versions')",
            &[],
        )
        .await?;
    if !exists[0].get::<_, bool>(0) {
        return Ok(0);
    }
    let rows = session
        .seldom("SELECT coalesce(max(version), 0) FROM hark.versions", &[])
        .await?;
    // Versions are counted from 1; none is 0.
    Ok(usize::try_from(rows[0].get::<_, i32>(0)).unwrap_or(0))
}

/// All steps that are missing, inside the open transaction; the version that there is now.
async fn bring_up(session: &Session) -> Result<usize, Failure> {
    // A table may be large, and another process may be at it.
    session
        .run("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        .await?;
    session.run_long(LOCK).await?;
    let done = version(session).await?;
    if done == 0 {
        let exists = session
            .seldom(
                "SELECT count(*) FROM pg_namespace WHERE nspname = 'hark'",
                &[],
            )
            .await?;
        if exists[0].get::<_, i64>(0) == 0 {
            session.run("CREATE SCHEMA hark").await?;
        }
        session
            .run(
                "CREATE TABLE versions (
                    version integer PRIMARY KEY, migrated_at timestamptz NOT NULL DEFAULT now())",
            )
            .await?;
    }
    for (number, step) in MIGRATIONS.iter().enumerate().skip(done) {
        session.run_long(step).await?;
        session
            .run(&format!(
                "INSERT INTO versions (version) VALUES ({})",
                number + 1
            ))
            .await?;
    }
    Ok(done.max(MIGRATIONS.len()))
}
