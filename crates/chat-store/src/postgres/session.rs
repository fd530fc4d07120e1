//! One connection: statements, each answered within a time.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Row, Statement, types::ToSql};
use tokio_util::task::AbortOnDropHandle;

use super::failure::Failure;

/// A connection. Dropping it closes the socket, and the server rolls back what was open.
pub(super) struct Session {
    client: Client,
    /// After which a server that does not answer is given up.
    limit: Duration,
    #[cfg(test)]
    is_cut: std::sync::atomic::AtomicBool,
    #[cfg(test)]
    steps: super::steps::Steps,
    _driver: AbortOnDropHandle<()>,
}

/// Parameters of a statement.
type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Session {
    /// `driver` moves its bytes; an answer that takes longer than `limit` does not come.
    pub(super) fn new(client: Client, limit: Duration, driver: AbortOnDropHandle<()>) -> Self {
        Self {
            client,
            limit,
            #[cfg(test)]
            is_cut: std::sync::atomic::AtomicBool::new(false),
            #[cfg(test)]
            steps: super::steps::Steps::default(),
            _driver: driver,
        }
    }

    /// Runs statements without parameters.
    pub(super) async fn run(&self, sql: &str) -> Result<(), Failure> {
        self.limited(self.client.batch_execute(sql)).await
    }

    /// The same for what may take long, such as changing a large table.
    pub(super) async fn run_long(&self, sql: &str) -> Result<(), Failure> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// Rows of what may take long, such as counting those of a large table.
    pub(super) async fn long(&self, sql: &str) -> Result<Vec<Row>, Failure> {
        Ok(self.client.query(sql, &[]).await?)
    }

    pub(super) async fn prepare(&self, sql: &str) -> Result<Statement, Failure> {
        self.timed(self.client.prepare(sql)).await
    }

    pub(super) async fn rows(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Failure> {
        self.limited(self.client.query(statement, params)).await
    }

    pub(super) async fn row(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Option<Row>, Failure> {
        self.limited(self.client.query_opt(statement, params)).await
    }

    /// The number of rows that were changed.
    pub(super) async fn execute(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<u64, Failure> {
        self.limited(self.client.execute(statement, params)).await
    }

    /// A statement that is seldom needed, and not kept.
    pub(super) async fn seldom(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Failure> {
        self.limited(self.client.query(sql, params)).await
    }

    /// Runs `work` between BEGIN and COMMIT. After a failure nothing of it is left, unless it was
    /// the connection that failed.
    pub(super) async fn transaction<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.run("BEGIN").await?;
        let ended = match work.await {
            Ok(done) => self.run("COMMIT").await.map(|()| done),
            Err(failure) => Err(failure),
        };
        match ended {
            Err(failure) if !matches!(failure, Failure::Lost(_)) => {
                self.roll_back().await?;
                Err(failure)
            }
            ended => ended,
        }
    }

    /// Ends the open transaction, also one in which a statement has failed. No session that refuses
    /// that is of use any more.
    pub(super) async fn roll_back(&self) -> Result<(), Failure> {
        let rolled_back = self.run("ROLLBACK").await;
        rolled_back.map_err(|failure| Failure::Lost(failure.reason().to_owned()))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Lets nothing more through, as a network that is cut.
    #[cfg(test)]
    pub(super) fn cut(&self) {
        self.is_cut
            .store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// From now on tests decide what becomes of each statement.
    #[cfg(test)]
    pub(super) fn watch(&mut self, steps: &super::steps::Steps) {
        self.steps = steps.clone();
    }

    #[cfg(test)]
    async fn meet(&self, place: super::steps::Place) -> Result<(), Failure> {
        use super::steps::Order;
        let lost = || Failure::Lost(format!("cut {place:?}"));
        if self.is_cut.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(lost());
        }
        match self.steps.order(place).await {
            Order::GoOn => Ok(()),
            Order::Cut => {
                self.cut();
                Err(lost())
            }
            // The server's own error, which ends its transaction as any other does.
            Order::Refuse(code) => {
                let raise = format!(
                    "DO $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END $$"
                );
                let refused = self.client.batch_execute(&raise).await;
                Err(refused.expect_err("it raises").into())
            }
        }
    }

    async fn limited<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        #[cfg(test)]
        self.meet(super::steps::Place::BeforeStatement).await?;
        let answer = self.timed(answer).await?;
        #[cfg(test)]
        self.meet(super::steps::Place::AfterStatement).await?;
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
