//! Memory of requests that are done with, for those to come. Large buffers that are freed go back to the kernel, which has to
//! find, clear and map the pages of the next one anew: a tenth of the time of a delivery of large records.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// How much is kept, in all.
const KEPT_BYTES: usize = 4 << 20;

/// Shared by all requests of a destination.
#[derive(Debug, Clone, Default)]
pub(in crate::destination) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// An empty buffer with room for so many bytes.
    pub(in crate::destination) fn take(&self, bytes: usize) -> Vec<u8> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = kept.iter().enumerate().filter(|(_, buffer)| buffer.capacity() >= bytes);
        let best = fits.min_by_key(|(_, buffer)| buffer.capacity()).map(|(place, _)| place);
        best.map_or_else(|| Vec::with_capacity(bytes), |place| kept.swap_remove(place))
    }

    /// What was taken is not needed any more.
    pub(in crate::destination) fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever sends larger requests than before has no use for the small buffers.
        while kept.iter().map(Vec::capacity).sum::<usize>() + buffer.capacity() > KEPT_BYTES {
            let smallest = kept.iter().enumerate().min_by_key(|(_, buffer)| buffer.capacity());
            match smallest {
                Some((place, smallest)) if smallest.capacity() < buffer.capacity() => drop(kept.swap_remove(place)),
                _ => return,
            }
        }
        kept.push(buffer);
    }

    /// Bytes that give their memory back once nobody has them.
    pub(in crate::destination) fn share(&self, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Shared { buffer, buffers: self.clone() })
    }
}

struct Shared {
    buffer: Vec<u8>,
    buffers: Buffers,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.buffers.give_back(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(buffers: &Buffers) -> Vec<usize> {
        let mut kept: Vec<_> = buffers.0.lock().expect("no panic").iter().map(Vec::capacity).collect();
        kept.sort_unstable();
        kept
    }

    #[test]
    fn a_request_takes_the_memory_of_one_before() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take(1000);
        buffer.extend_from_slice(b"body");
        let shared = buffers.share(buffer);
        let (other, part) = (shared.clone(), shared.slice(1..3));
        assert_eq!((&shared[..], &part[..]), (&b"body"[..], &b"od"[..]));
        drop((shared, other));
        assert_eq!(kept(&buffers), [] as [usize; 0], "a part is still there");
        drop(part);
        assert_eq!(kept(&buffers), [1000]);
        assert_eq!(buffers.take(1001).capacity(), 1001, "too large for it");
        assert_eq!(buffers.take(900), [] as [u8; 0]);
        assert_eq!(kept(&buffers), [] as [usize; 0], "it has been taken");
    }

    #[test]
    fn the_smallest_that_fits_is_taken() {
        let buffers = Buffers::default();
        [300, 100, 200].into_iter().for_each(|bytes| buffers.give_back(Vec::with_capacity(bytes)));
        assert_eq!(buffers.take(150).capacity(), 200);
        assert_eq!(kept(&buffers), [100, 300]);
    }

    #[test]
    fn only_so_much_is_kept_and_rather_what_is_large() {
        let buffers = Buffers::default();
        let quarter = KEPT_BYTES / 4;
        (0..9).for_each(|_| buffers.give_back(Vec::with_capacity(quarter)));
        assert_eq!(kept(&buffers), [quarter; 4]);
        buffers.give_back(Vec::with_capacity(2 * quarter));
        assert_eq!(kept(&buffers), [quarter, quarter, 2 * quarter]);
        buffers.give_back(Vec::with_capacity(KEPT_BYTES + 1));
        assert!(kept(&buffers).iter().sum::<usize>() <= KEPT_BYTES);
    }
}
