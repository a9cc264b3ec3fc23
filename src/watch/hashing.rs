//! Hashes in place of what is only compared, to save memory.

use std::hash::{DefaultHasher, Hash, Hasher};

pub(crate) fn hash(it: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    it.hash(&mut hasher);
    hasher.finish()
}
