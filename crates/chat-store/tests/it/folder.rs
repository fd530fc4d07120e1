//! Folders that cannot be used say why.

use chat_store::{OpenError, SqliteOptions, SqliteStore, Store};

use crate::posts::{post, text};
use crate::support::Folder;

#[tokio::test]
async fn second_opening_is_refused_until_the_first_is_closed() {
    let folder = Folder::new();
    let store = folder.open();
    let error = SqliteStore::open(&folder.options()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }));
    assert!(error.to_string().contains("in use by another process"));
    store.close().await;
    store.close().await;
    folder.open().close().await;
}

#[tokio::test]
async fn data_of_a_newer_program_is_left_alone() {
    let folder = Folder::new();
    folder.open().close().await;
    let path = folder.dir.path().join("store.sqlite3");
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(database);
    let error = SqliteStore::open(&folder.options()).unwrap_err();
    assert!(
        matches!(error, OpenError::NewerSchema { found: 99, .. }),
        "{error}"
    );
    assert!(matches!(
        chat_store::new_epoch(folder.dir.path(), &folder.clock.shared()),
        Err(OpenError::NewerSchema { .. })
    ));
}

#[tokio::test]
async fn database_of_another_program_is_left_alone() {
    let folder = Folder::new();
    let path = folder.dir.path().join("store.sqlite3");
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute_batch("CREATE TABLE theirs (a)").unwrap();
    drop(database);
    let error = SqliteStore::open(&folder.options()).unwrap_err();
    assert!(error.to_string().contains("another program"), "{error}");
    std::fs::write(&path, "not a database at all, but long enough for a header").unwrap();
    let error = SqliteStore::open(&folder.options()).unwrap_err();
    assert!(matches!(error, OpenError::Unusable { .. }), "{error}");
}

#[test]
fn folder_that_cannot_be_made_says_so() {
    let folder = Folder::new();
    let file = folder.dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let options = SqliteOptions::new(file.join("below"), folder.clock.shared());
    let error = SqliteStore::open(&options).unwrap_err();
    assert!(error.to_string().contains("cannot be created"), "{error}");
    // No user can write here, not even root.
    let options = SqliteOptions::new("/proc/hark", folder.clock.shared());
    let error = SqliteStore::open(&options).unwrap_err();
    assert!(matches!(error, OpenError::Unusable { .. }), "{error}");
}

#[test]
fn senseless_options_are_refused_by_name() {
    let folder = Folder::new();
    let mut options = folder.options();
    options.readers = 0;
    let error = SqliteStore::open(&options).unwrap_err();
    assert!(error.to_string().contains("readers"), "{error}");
}

#[tokio::test]
async fn file_can_shrink_and_is_known_by_its_header() {
    let folder = Folder::new();
    let store = folder.open();
    post(&store, text(1, "x")).await.unwrap();
    let path = folder.dir.path().join("store.sqlite3");
    let database = rusqlite::Connection::open(&path).unwrap();
    let pragma = |name: &str| -> i64 {
        database
            .query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(pragma("auto_vacuum"), 2, "incremental");
    assert_eq!(
        pragma("application_id"),
        i64::from(u32::from_be_bytes(*b"Hark"))
    );
    drop(database);
    store.close().await;
    assert!(
        !path.with_extension("sqlite3-wal").exists(),
        "folded in at close"
    );
}
