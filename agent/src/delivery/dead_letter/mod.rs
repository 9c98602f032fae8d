//! Dead letters: records that a destination will never take as it is, kept in a stream of their own with the reason, so that
//! a person can look at them and nothing else waits for them.
//!
//! `burial` puts them there; [`Letter`] is one as it is read; [`Letters`] are all of a destination: shown, delivered once
//! more, and dropped. What was settled in either way is noted in marks of their stream (`settled`), so that it survives
//! whatever the letters themselves survive. `docs/dead-letters.md` says what a person does with them.

mod burial;
mod letter;
mod letters;
mod replay;
mod settled;
mod summary;
#[cfg(test)]
mod tests;

pub(super) use burial::{Began, batch};
pub use letter::Letter;
pub use letters::{Counts, Letters, LettersError, Page, Selection, Settlement, Verb};
pub use summary::Summary;

/// The consumer of a dead-letter stream whose checkpoint says up to where every letter is settled: the log then knows which
/// of them are lost if they have to go. No destination can have this name.
pub const SETTLED: &str = "forebay.settled";
