//! One connection: statements, each answered within a time.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};
use tokio_util::task::AbortOnDropHandle;

use super::failure::Failure;

/// A connection. Dropping it closes the socket, and the server rolls back what was open.
pub(super) struct Session {
    client: Client,
    /// After which a server that does not answer is given up.
    limit: Duration,
    prepared: HashMap<&'static str, Statement>,
    #[cfg(test)]
    stops: super::tests::Stops,
    _driver: AbortOnDropHandle<()>,
}

/// Parameters of a statement.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Session {
    /// `driver` moves its bytes; an answer that takes longer than `limit` does not come.
    pub(super) fn new(client: Client, limit: Duration, driver: AbortOnDropHandle<()>) -> Self {
        Self {
            client,
            limit,
            prepared: HashMap::new(),
            #[cfg(test)]
            stops: super::tests::Stops::default(),
            _driver: driver,
        }
    }

    /// From now on tests decide what becomes of each statement.
    #[cfg(test)]
    pub(super) fn stopped_by(self, control: &super::tests::MayBeStopped) -> Self {
        Self {
            stops: super::tests::Stops::by(control),
            ..self
        }
    }

    /// Prepares what this connection is often asked.
    pub(super) async fn prepare(&mut self, statements: &[&'static str]) -> Result<(), Failure> {
        let all = try_join_all(statements.iter().map(|sql| self.client.prepare(sql)));
        let prepared = self.timed(all).await?;
        self.prepared = statements.iter().copied().zip(prepared).collect();
        Ok(())
    }

    /// Runs statements without parameters.
    pub(super) async fn run(&self, sql: &str) -> Result<(), Failure> {
        self.limited(sql, self.client.batch_execute(sql)).await
    }

    /// Lets statements take as long as they will, such as to change a large table, or count it.
    pub(super) async fn without_limits(mut self) -> Result<Self, Failure> {
        self.run("SET statement_timeout = 0; SET lock_timeout = 0")
            .await?;
        self.limit = Duration::MAX;
        Ok(self)
    }

    pub(super) async fn rows(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Failure> {
        match self.prepared.get(sql) {
            Some(statement) => {
                self.limited(sql, self.client.query(statement, params))
                    .await
            }
            None => self.limited(sql, self.client.query(sql, params)).await,
        }
    }

    /// [`rows`](Self::rows), or none if it need not be asked.
    pub(super) async fn rows_if(
        &self,
        needed: bool,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Failure> {
        match needed {
            true => self.rows(sql, params).await,
            false => Ok(Vec::new()),
        }
    }

    /// What always has one row.
    pub(super) async fn row(&self, sql: &str, params: Params<'_>) -> Result<Row, Failure> {
        let rows = self.rows(sql, params).await?;
        let row = rows.into_iter().next();
        row.ok_or_else(|| Failure::Lost("a statement had no row".to_owned()))
    }

    /// Ends the open transaction, also one in which a statement has failed. No session that refuses
    /// that is of use any more.
    pub(super) async fn roll_back(&self) -> Result<(), Failure> {
        let rolled_back = self.run("ROLLBACK").await;
        rolled_back.map_err(|failure| Failure::Lost(failure.reason()))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    async fn limited<T>(
        &self,
        sql: &str,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        #[cfg(test)]
        self.stops.before(sql, &self.client).await?;
        let answer = self.timed(answer).await?;
        #[cfg(test)]
        self.stops.after(sql).await?;
        // Only tests look at it.
        let _ = sql;
        Ok(answer)
    }

    async fn timed<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        match timeout(self.limit, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Failure::Lost(format!(
                "no answer within {} ms",
                self.limit.as_millis()
            ))),
        }
    }
}

/// Sends statements one right after the other and then waits for all their answers: one round trip.
/// This crate's own tests, which stop between two of them, send each after the last one's answer.
macro_rules! pipelined {
    ($($statement:expr),+ $(,)?) => {{
        #[cfg(not(test))]
        { tokio::join!(biased; $(async { $statement.await }),+) }
        #[cfg(test)]
        { ($($statement.await,)+) }
    }};
}
pub(super) use pipelined;
