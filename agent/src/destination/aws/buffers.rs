//! Memory of requests that are done with, for those to come. Large buffers that are freed go back to the kernel, which has to
//! find, clear and map the pages of the next one anew: a tenth of the time of a delivery of large records.
//!
//! All destinations share what is kept, so that it does not grow with their number.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// How much is kept, in all.
const KEPT_BYTES: usize = 4 << 20;
const KEPT_BUFFERS: usize = 16;
/// What is smaller is no trouble to the allocator.
const WORTH_BYTES: usize = 64 << 10;

static KEPT: Mutex<Kept> = Mutex::new(Kept(Vec::new()));

/// An empty buffer with room for so many bytes.
pub(in crate::destination) fn take(bytes: usize) -> Vec<u8> {
    let kept = (bytes >= WORTH_BYTES).then(|| KEPT.lock().unwrap_or_else(PoisonError::into_inner).take(bytes));
    kept.flatten().unwrap_or_else(|| Vec::with_capacity(bytes))
}

/// What was taken is not needed any more.
pub(in crate::destination) fn give_back(buffer: Vec<u8>) {
    if (WORTH_BYTES..=KEPT_BYTES).contains(&buffer.capacity()) {
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).give_back(buffer);
    }
}

/// Bytes that give their memory back once nobody has them.
pub(in crate::destination) fn share(buffer: Vec<u8>) -> Bytes {
    Bytes::from_owner(Shared(buffer))
}

struct Shared(Vec<u8>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.0));
    }
}

#[derive(Debug)]
struct Kept(Vec<Vec<u8>>);

impl Kept {
    fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let fits = self.0.iter().enumerate().filter(|(_, buffer)| buffer.capacity() >= bytes);
        let best = fits.min_by_key(|(_, buffer)| buffer.capacity()).map(|(place, _)| place);
        best.map(|place| self.0.swap_remove(place))
    }

    fn give_back(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        // Whoever sends larger requests than before has no use for the small buffers.
        while self.0.len() == KEPT_BUFFERS || self.bytes() + buffer.capacity() > KEPT_BYTES {
            let smallest = self.0.iter().enumerate().min_by_key(|(_, buffer)| buffer.capacity());
            match smallest {
                Some((place, smallest)) if smallest.capacity() < buffer.capacity() => drop(self.0.swap_remove(place)),
                _ => return,
            }
        }
        self.0.push(buffer);
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(Vec::capacity).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(kept: &Kept) -> Vec<usize> {
        let mut sizes: Vec<_> = kept.0.iter().map(Vec::capacity).collect();
        sizes.sort_unstable();
        sizes
    }

    fn keeping(sizes: impl IntoIterator<Item = usize>) -> Kept {
        let mut kept = Kept(Vec::new());
        sizes.into_iter().for_each(|bytes| kept.give_back(Vec::with_capacity(bytes)));
        kept
    }

    #[test]
    fn the_smallest_that_fits_is_taken_and_comes_back_empty() {
        let mut kept = keeping([300, 100]);
        let mut buffer = kept.take(50).expect("two fit");
        assert_eq!((buffer.capacity(), sizes(&kept)), (100, vec![300]));
        assert_eq!(kept.take(301), None);
        buffer.extend_from_slice(b"body");
        kept.give_back(buffer);
        assert_eq!(kept.take(100), Some(Vec::new()));
    }

    #[test]
    fn only_so_much_is_kept_and_rather_what_is_large() {
        let quarter = KEPT_BYTES / 4;
        let mut kept = keeping([quarter; 9]);
        assert_eq!(sizes(&kept), [quarter; 4]);
        kept.give_back(Vec::with_capacity(2 * quarter));
        assert_eq!(sizes(&kept), [quarter, quarter, 2 * quarter]);
        let kept = keeping((0..100).map(|more| WORTH_BYTES + more));
        assert_eq!(sizes(&kept), (84..100).map(|more| WORTH_BYTES + more).collect::<Vec<_>>());
    }

    /// Other tests take and give at the same time, so what was given back may be gone now and then.
    #[test]
    fn what_is_shared_comes_back_and_what_is_too_small_or_too_large_does_not() {
        const OWN: usize = WORTH_BYTES + 12_345;
        let comes_back = |_| {
            let mut buffer = Vec::with_capacity(OWN);
            buffer.extend_from_slice(b"body");
            let shared = share(buffer);
            let part = shared.slice(1..3);
            assert_eq!((&shared[..], &part[..]), (&b"body"[..], &b"od"[..]));
            drop((shared, part));
            KEPT.lock().expect("no panic").0.iter().any(|buffer| buffer.capacity() == OWN)
        };
        assert!((0..100).any(comes_back));
        [10, KEPT_BYTES + 1].into_iter().for_each(|bytes| give_back(Vec::with_capacity(bytes)));
        let kept = sizes(&KEPT.lock().expect("no panic"));
        assert!(kept.iter().all(|bytes| (WORTH_BYTES..=KEPT_BYTES).contains(bytes)), "{kept:?}");
    }
}
