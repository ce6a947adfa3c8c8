//! A bounded memory of what the store said lately, in two generations: what is used stays, what
//! is not used for a whole generation goes.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash};

use rustc_hash::FxHasher;

/// Answers by key, at most twice as many as one generation holds. Keys that people choose need a
/// hasher `S` that nobody can foresee.
#[derive(Debug)]
pub(super) struct Cache<K, V, S = BuildHasherDefault<FxHasher>> {
    young: HashMap<K, V, S>,
    old: HashMap<K, V, S>,
    generation_max: usize,
}

impl<K: Hash + Eq, V: Clone, S: BuildHasher + Default> Cache<K, V, S> {
    /// An empty one, of twice `generation_max` entries.
    pub(super) fn new(generation_max: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), generation_max }
    }

    /// What is remembered under a key; it counts as used.
    pub(super) fn get(&mut self, key: K) -> Option<V> {
        if let Some(value) = self.young.get(&key) {
            return Some(value.clone());
        }
        let value = self.old.remove(&key)?;
        self.put(key, value.clone());
        Some(value)
    }

    /// Remembers.
    pub(super) fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Forgets all keys for which `keep` is false.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        self.young.retain(|key, _| keep(key));
        self.old.retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_size_is_bounded() {
        let mut cache: Cache<u64, u64> = Cache::new(10);
        for key in 0..1_000 {
            cache.put(key, key);
            assert_eq!(cache.get(0), Some(0), "after {key}");
            assert!(cache.young.len() + cache.old.len() <= 20);
        }
        assert_eq!(cache.get(500), None);
        cache.retain(|key| *key != 0);
        assert_eq!(cache.get(0), None);
        assert_eq!(cache.get(999), Some(999));
    }
}
