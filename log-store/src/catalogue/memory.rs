//! A key-value store in memory that remembers its history, so that simulations can go back to any earlier state.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use super::kv::{Kv, KvError, Pair};

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// A simulated store; clones are the same store.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryKv(Arc<Mutex<History>>);

#[derive(Debug, Default)]
struct History {
    /// The last one is the current state; all before it are states that a power cut may bring back.
    states: Vec<Entries>,
    failing: bool,
}

impl MemoryKv {
    /// How many states a power cut could leave: everything since the last flush.
    pub(crate) fn states(&self) -> usize {
        self.0.lock().expect("unpoisoned").states.len().max(1)
    }

    /// Goes back to one of them and forgets the later ones.
    pub(crate) fn go_back_to(&self, state: usize) {
        let mut history = self.0.lock().expect("unpoisoned");
        let entries = history.states.get(state).cloned().unwrap_or_default();
        *history = History { states: vec![entries], failing: false };
    }

    /// From now on every change fails.
    pub(crate) fn fail(&self) {
        self.0.lock().expect("unpoisoned").failing = true;
    }

    fn change(&self, act: impl FnOnce(&mut Entries)) -> Result<(), KvError> {
        let mut history = self.0.lock().expect("unpoisoned");
        if history.failing {
            return Err(KvError::new("it was told to fail"));
        }
        let mut entries = history.states.last().cloned().unwrap_or_default();
        act(&mut entries);
        history.states.push(entries);
        Ok(())
    }

    fn read<T>(&self, act: impl FnOnce(&Entries) -> T) -> T {
        act(self.0.lock().expect("unpoisoned").states.last().unwrap_or(&Entries::new()))
    }
}

impl Kv for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.read(|entries| entries.get(key).cloned()))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.change(|entries| _ = entries.insert(key.into(), value.into()))
    }

    fn remove(&self, key: &[u8]) -> Result<(), KvError> {
        self.change(|entries| _ = entries.remove(key))
    }

    fn put_all(&self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), KvError> {
        self.change(|entries| {
            for (key, value) in changes {
                match value {
                    Some(value) => _ = entries.insert(key.clone(), value.clone()),
                    None => _ = entries.remove(key),
                }
            }
        })
    }

    fn remove_range(&self, from: &[u8], end: &[u8]) -> Result<(), KvError> {
        self.change(|entries| entries.retain(|key, _| key.as_slice() < from || key.as_slice() >= end))
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<Pair>, KvError> {
        Ok(self.read(|entries| {
            let found = entries.iter().filter(|(key, _)| key.starts_with(prefix));
            found.map(|(key, value)| (key.clone(), value.clone())).collect()
        }))
    }

    fn last_in(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, KvError> {
        Ok(self.read(|entries| {
            let found = entries.range(from.to_vec()..=to.to_vec()).next_back();
            found.map(|(key, value)| (key.clone(), value.clone()))
        }))
    }

    fn flush(&self) -> Result<(), KvError> {
        let mut history = self.0.lock().expect("unpoisoned");
        if let Some(last) = history.states.pop() {
            history.states = vec![last];
        }
        Ok(())
    }
}
