//! The commands for a store: `new-epoch`, `backup`, `restore`, `check` and `migrate`.

use std::path::Path;
use std::time::Duration;

use chat_model::Damaged;
use chat_service::{Config, StoreConfig};
use clock::SystemClock;
use service_command::Failure;
use tokio::task::spawn_blocking;
use tokio::time::interval;

use crate::cli::{Backup, Check, Migrate, NewEpoch, Restore};

/// How often a long copy reports its progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

pub(crate) async fn new_epoch(options: NewEpoch) -> Result<(), Failure> {
    let clock = SystemClock::shared();
    let logs = match options.data {
        Some(folder) => chat_store::new_epoch(&folder, &clock).map(Some),
        None => store(options.config.as_deref())?.new_epoch(clock).await,
    };
    match logs.map_err(Failure::failed)? {
        Some(logs) => println!("{logs} logs have a new epoch"),
        None => println!("all logs have a new epoch; they could not be counted"),
    }
    Ok(())
}

pub(crate) async fn backup(options: Backup) -> Result<(), Failure> {
    let (data, file) = (options.data, options.file);
    let part = file.clone();
    let mut copying = spawn_blocking(move || chat_store::backup(&data, &part));
    let mut progress = interval(PROGRESS_EVERY);
    let copied = loop {
        tokio::select! {
            copied = &mut copying => break copied,
            _ = progress.tick() => {
                let bytes = chat_store::backup_progress(&file);
                if bytes > 0 {
                    eprintln!("{} so far", mebibytes(bytes));
                }
            }
        }
    };
    let bytes = copied.map_err(Failure::failed)?.map_err(Failure::failed)?;
    println!("{}: {}", file.display(), mebibytes(bytes));
    Ok(())
}

pub(crate) async fn restore(options: Restore) -> Result<(), Failure> {
    let (data, file) = (options.data, options.file);
    let clock = SystemClock::shared();
    let restored = spawn_blocking(move || chat_store::restore(&file, &data, &clock)).await;
    let logs = restored
        .map_err(Failure::failed)?
        .map_err(Failure::failed)?;
    println!("{logs} logs are back, each with a new epoch");
    Ok(())
}

pub(crate) async fn check(options: Check) -> Result<(), Failure> {
    let data = options.data.clone();
    let checking = spawn_blocking(move || {
        chat_store::check(&data, |channel, Damaged { from, to }| match to - from {
            0 => println!("{channel}: message {from} is damaged"),
            _ => println!("{channel}: messages {from} to {to} are damaged"),
        })
    });
    let checked = checking.await.map_err(Failure::failed)?;
    let checked = checked.map_err(Failure::failed)?;
    for line in &checked.database {
        println!("database: {line}");
    }
    println!(
        "{} channels, {} messages are sound, {} are damaged",
        checked.channels, checked.sound, checked.damaged
    );
    if checked.is_sound() {
        return Ok(());
    }
    Err(Failure::failed(
        "the store is damaged. Check the disk and the memory of this machine. Streams report \
         damaged messages as a gap and go on; to get them back, stop the service, move the folder \
         away and restore the newest good copy with `hark restore`. If the database itself is \
         complained about, do that soon: it may get worse",
    ))
}

pub(crate) async fn migrate(options: Migrate) -> Result<(), Failure> {
    let store = store(options.config.as_deref())?;
    let migrated = store.migrate(SystemClock::shared()).await;
    migrated.map_err(Failure::failed)?;
    println!("the store has the current format");
    Ok(())
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Where the chat-service of a configuration keeps its messages.
fn store(file: Option<&Path>) -> Result<StoreConfig, Failure> {
    Ok(Config::load(file, std::env::vars())?.store)
}
