//! The key-value store that sled keeps, guarded: sled 0.34 may panic on damaged files, and that must cost us no more
//! than the catalogue.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};

use super::kv::{Kv, KvError, Pair};
use crate::disk::is_full;

/// sled's threads may hold its files for a moment after it was closed. The data directory's lock is ours, so nobody else
/// can be meant.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Opens or creates the database.
///
/// # Errors
/// Whatever sled says, or panics with.
#[expect(clippy::disallowed_methods, reason = "sled only lets its lock be polled; no decision hangs on the time")]
pub(crate) fn open_sled(path: &Path) -> Result<Box<dyn Kv>, KvError> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        let opened = guarded(|| {
            sled::Config::new()
                .path(path)
                // The catalogue is small and rarely read; 1 MiB is the least that sled works well with.
                .cache_capacity(1 << 20)
                // We flush when a checkpoint is due; sled's own timer would write for nothing.
                .flush_every_ms(None)
                .mode(sled::Mode::LowSpace)
                .open()
        });
        match opened {
            Ok(db) => return Ok(Box::new(SledKv(Some(db)))),
            Err(error) if error.reason.contains("could not acquire lock") && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Present until it is dropped.
struct SledKv(Option<sled::Db>);

impl SledKv {
    fn with<T>(&self, act: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, KvError> {
        guarded(|| act(self.0.as_ref().expect("present until it is dropped")))
    }
}

impl Drop for SledKv {
    fn drop(&mut self) {
        // Closing writes, and may meet the damage that opening did not.
        let db = self.0.take();
        let _ = guarded(|| {
            drop(db);
            Ok(())
        });
    }
}

fn guarded<T>(act: impl FnOnce() -> sled::Result<T>) -> Result<T, KvError> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(outcome) => outcome.map_err(|error| KvError {
            is_full: matches!(&error, sled::Error::Io(error) if is_full(error)),
            reason: error.to_string(),
        }),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
            Err(KvError::new(format!("sled panicked: {}", said.unwrap_or("no message"))))
        }
    }
}

fn pair(entry: (sled::IVec, sled::IVec)) -> Pair {
    (entry.0.to_vec(), entry.1.to_vec())
}

impl Kv for SledKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.with(|db| Ok(db.get(key)?.map(|value| value.to_vec())))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.with(|db| db.insert(key, value).map(drop))
    }

    fn remove(&self, key: &[u8]) -> Result<(), KvError> {
        self.with(|db| db.remove(key).map(drop))
    }

    fn put_all(&self, entries: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), KvError> {
        // sled writes its buffer out for every batch, for 50 to 100 us; what stands alone needs none.
        if let [(key, Some(value))] = entries {
            return self.put(key, value);
        }
        let mut batch = sled::Batch::default();
        for (key, value) in entries {
            match value {
                Some(value) => batch.insert(key.as_slice(), value.as_slice()),
                None => batch.remove(key.as_slice()),
            }
        }
        self.with(|db| db.apply_batch(batch))
    }

    fn remove_range(&self, from: &[u8], end: &[u8]) -> Result<(), KvError> {
        self.with(|db| {
            for key in db.range(from..end).keys() {
                db.remove(key?)?;
            }
            Ok(())
        })
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<Pair>, KvError> {
        self.with(|db| db.scan_prefix(prefix).map(|entry| entry.map(pair)).collect())
    }

    fn last_in(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, KvError> {
        self.with(|db| db.range(from..=to).next_back().map(|entry| entry.map(pair)).transpose())
    }

    fn flush(&self) -> Result<(), KvError> {
        self.with(|db| db.flush().map(drop))
    }
}
