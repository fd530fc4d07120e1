//! What a process left in its write-ahead log, before SQLite opens it.
//!
//! SQLite reads such a log up to the first frame whose checksum is wrong, takes that for its end,
//! and removes the log once it is in the database. For one that was being written when the machine
//! stopped, that is right: nobody was told of its last transaction. But a bit that a disk has
//! changed further in front cuts off what was acknowledged, and leaves the database malformed where
//! some of that is in it already. The frames behind tell: a transaction begins to be written after
//! the one before it is on the disk.
//!
//! The format is that of <https://sqlite.org/fileformat2.html#walformat>.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::folder::DATABASE;
use crate::OpenError;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// Without its last bit, which says in which order the checksum takes the bytes.
const MAGIC: u32 = 0x377f_0682;
/// Copies of damaged logs that a folder has at most.
const MOST_KEPT: u32 = 3;

/// The write-ahead log of a folder.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(format!("{DATABASE}-wal"))
}

/// What was committed and will not be read, in words; `None` if that cannot be said of anything.
pub(super) fn cut_off(log: &Path) -> std::io::Result<Option<String>> {
    let mut file = match File::open(log) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => BufReader::with_capacity(1 << 20, file?),
    };
    let mut header = [0; HEADER];
    if !fills(&mut file, &mut header)? {
        return Ok(None);
    }
    let magic = number(&header, 0);
    let is_big_endian = magic & 1 == 1;
    let (summed, sum) = header.split_at(24);
    let mut before = (number(sum, 0), number(sum, 4));
    let page = number(&header, 8);
    if magic & !1 != MAGIC
        || checksum((0, 0), summed, is_big_endian) != before
        || !page.is_power_of_two()
        || !(512..=65_536).contains(&page)
    {
        return Ok(Some(
            "the header of its write-ahead log is damaged".to_owned(),
        ));
    }
    let mut frame = vec![0; FRAME_HEADER + page as usize];
    let (mut frames, mut damaged, mut after_commit) = (0_u64, None, false);
    while fills(&mut file, &mut frame)? {
        frames += 1;
        // Each continues the checksum of the one before, as that is written there: so those behind
        // a damaged one can still be told from what an earlier use of the file has left.
        let sum = checksum(before, &frame[..8], is_big_endian);
        let sum = checksum(sum, &frame[FRAME_HEADER..], is_big_endian);
        before = (number(&frame, 16), number(&frame, 20));
        let is_sound = frame[8..16] == header[16..24] && sum == before;
        match damaged {
            None if !is_sound => damaged = Some(frames),
            Some(damaged) if is_sound && after_commit => {
                return Ok(Some(format!(
                    "frame {damaged} of its write-ahead log is damaged, and what was committed \
                     with it and after it is cut off"
                )));
            }
            _ => {}
        }
        after_commit = number(&frame, 4) != 0;
    }
    Ok(None)
}

/// Keeps a copy of the log, which is about to go; where. `None` if there are enough already.
pub(super) fn keep(dir: &Path) -> Result<Option<PathBuf>, OpenError> {
    let log = path(dir);
    for number in 1..=MOST_KEPT {
        let copy = dir.join(format!("{DATABASE}-wal.damaged-{number}"));
        if copy.exists() {
            continue;
        }
        let part = dir.join(format!("{DATABASE}-wal.part"));
        let copied = std::fs::copy(&log, &part)
            .and_then(|_| File::open(&part)?.sync_all())
            .and_then(|()| std::fs::rename(&part, &copy));
        return match copied {
            Ok(()) => Ok(Some(copy)),
            Err(error) => {
                // Whatever there is of it is of no use.
                let _gone = std::fs::remove_file(&part);
                Err(OpenError::Unusable {
                    dir: dir.to_owned(),
                    reason: format!(
                        "its write-ahead log is damaged, and no copy of it can be kept: {error}; \
                         make room, or move the folder away and put a copy back with `hark restore`"
                    ),
                })
            }
        };
    }
    Ok(None)
}

/// Whether there was enough to fill it.
fn fills(file: &mut impl Read, bytes: &mut [u8]) -> std::io::Result<bool> {
    match file.read_exact(bytes) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

fn checksum(before: (u32, u32), bytes: &[u8], is_big_endian: bool) -> (u32, u32) {
    let (mut first, mut second) = before;
    for pair in bytes.chunks_exact(8) {
        let word = |at| {
            let word = number(pair, at);
            if is_big_endian {
                word
            } else {
                word.swap_bytes()
            }
        };
        first = first.wrapping_add(word(0)).wrapping_add(second);
        second = second.wrapping_add(word(4)).wrapping_add(first);
    }
    (first, second)
}

/// Big-endian, as all numbers of the log.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4]
        .iter()
        .fold(0, |number, &byte| number << 8 | u32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    const FRAME: usize = FRAME_HEADER + 4096;

    /// A log of ten transactions of one frame each, behind which an earlier use has left some.
    fn log() -> (tempfile::TempDir, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let database = Connection::open(dir.path().join(DATABASE)).unwrap();
        database
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
                 CREATE TABLE t (n); INSERT INTO t VALUES (0);",
            )
            .unwrap();
        for round in [30, 10] {
            let restart = "PRAGMA wal_checkpoint(RESTART)";
            database.query_row(restart, [], |_| Ok(())).unwrap();
            for _ in 0..round {
                database.execute("UPDATE t SET n = n + 1", []).unwrap();
            }
        }
        let bytes = std::fs::read(path(dir.path())).unwrap();
        assert!(bytes.len() >= HEADER + 30 * FRAME);
        (dir, bytes)
    }

    #[test]
    fn a_flipped_bit_is_told_from_the_end_of_a_log() {
        let (dir, bytes) = log();
        let copy = dir.path().join("copy");
        let found = |bytes: &[u8]| {
            std::fs::write(&copy, bytes).unwrap();
            cut_off(&copy).unwrap()
        };
        assert_eq!(found(&bytes), None, "it ends where an earlier use goes on");
        let frames = HEADER..HEADER + 8 * FRAME;
        for at in (0..HEADER).chain(frames.step_by(211)) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(found(&flipped).is_some(), "byte {at}");
        }
        // The last transaction, of which nobody may have been told, and what comes behind.
        for at in (HEADER + 9 * FRAME..HEADER + 12 * FRAME).step_by(211) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert_eq!(found(&flipped), None, "byte {at}");
        }
        // Cut anywhere, it is the mark that tells.
        for length in (0..bytes.len()).step_by(501) {
            assert_eq!(found(&bytes[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn some_copies_are_kept_and_no_more() {
        let (dir, bytes) = log();
        std::fs::write(path(dir.path()), &bytes).unwrap();
        for number in 1..=MOST_KEPT {
            let copy = keep(dir.path()).unwrap().unwrap();
            assert!(copy.ends_with(format!("{DATABASE}-wal.damaged-{number}")));
            assert!(std::fs::read(copy).unwrap() == bytes);
        }
        assert_eq!(keep(dir.path()).unwrap(), None);
    }
}
