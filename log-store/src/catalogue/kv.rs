//! What the catalogue needs of a key-value store.

/// A failure of the key-value store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KvError {
    /// What failed, in words.
    pub(crate) reason: String,
    /// Whether there was no room, which says nothing against the store.
    pub(crate) is_full: bool,
}

impl KvError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_full: false }
    }
}

/// A key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// An ordered key-value store. After a power cut it holds some earlier state, at least that of the last flush.
pub(crate) trait Kv: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), KvError>;
    fn remove(&self, key: &[u8]) -> Result<(), KvError>;
    /// Puts entries, and removes those without a value: all or none.
    fn put_all(&self, entries: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), KvError>;
    /// Removes the keys from `from` to before `end`.
    fn remove_range(&self, from: &[u8], end: &[u8]) -> Result<(), KvError>;
    /// Everything whose key begins with `prefix`, in order.
    fn scan(&self, prefix: &[u8]) -> Result<Vec<Pair>, KvError>;
    /// The last entry from `from` to `to`, both inclusive.
    fn last_in(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, KvError>;
    fn flush(&self) -> Result<(), KvError>;
}

/// Holds nothing and keeps nothing.
pub(crate) struct NoKv;

impl Kv for NoKv {
    fn get(&self, _key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(None)
    }

    fn put(&self, _key: &[u8], _value: &[u8]) -> Result<(), KvError> {
        Ok(())
    }

    fn remove(&self, _key: &[u8]) -> Result<(), KvError> {
        Ok(())
    }

    fn put_all(&self, _entries: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), KvError> {
        Ok(())
    }

    fn remove_range(&self, _from: &[u8], _end: &[u8]) -> Result<(), KvError> {
        Ok(())
    }

    fn scan(&self, _prefix: &[u8]) -> Result<Vec<Pair>, KvError> {
        Ok(Vec::new())
    }

    fn last_in(&self, _from: &[u8], _to: &[u8]) -> Result<Option<Pair>, KvError> {
        Ok(None)
    }

    fn flush(&self) -> Result<(), KvError> {
        Ok(())
    }
}
