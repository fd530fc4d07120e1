use std::fs;

use super::Postgres;

/// Bytes of a page, as everybody builds it.
const PAGE: usize = 8192;

impl Postgres {
    /// Breaks the page of a table or an index in which these bytes stand first, as a bad disk would,
    /// while the server is stopped; starts it again. From then on it refuses to read that page
    /// (SQLSTATE XX001, `invalid page in block`).
    ///
    /// # Panics
    /// When the bytes are nowhere in it, or the server does not stop or start.
    pub async fn break_page(&mut self, database: &str, relation: &str, bytes: &[u8]) {
        let path = format!("SELECT pg_relation_filepath('{relation}')");
        let path = self.run(database, &path).await;
        let path = self.folder.data().join(path);
        // What it has in memory goes to the disk.
        self.stop().await;
        let mut file = fs::read(&path).expect("read a relation");
        let place = file.windows(bytes.len()).position(|part| part == bytes);
        let place = place.expect("the bytes stand in the relation");
        let start = place / PAGE * PAGE;
        // No header of any page.
        file[start..start + 24].fill(0xee);
        fs::write(&path, file).expect("write a relation");
        self.restart().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn page_that_is_broken_is_refused() {
        let mut postgres = Postgres::start().await;
        let fill = "CREATE TABLE t (n int, words text);
            INSERT INTO t SELECT n, 'row ' || n || '.' FROM generate_series(1, 5000) n";
        postgres.run("postgres", fill).await;
        postgres.break_page("postgres", "t", b"row 2000.").await;
        let refused = "DO $$ BEGIN PERFORM count(*) FROM t; RAISE 'it was read';
            EXCEPTION WHEN data_corrupted THEN NULL; END $$";
        postgres.run("postgres", refused).await;
        let first = "SELECT words FROM t LIMIT 1";
        assert_eq!(postgres.run("postgres", first).await, "row 1.");
    }
}
