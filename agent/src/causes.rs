//! Errors and what caused them: libraries wrap the one that says most into others of their own.

use std::{error::Error, io};

/// An error and its causes, outermost first.
pub(crate) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| cause(*error))
}

fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    // What an I/O error holds is not its source; that is the source of what it holds.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(held) => Some(held),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no connection")]
    struct Outer(#[source] io::Error);

    #[test]
    fn what_an_io_error_holds_is_among_the_causes() {
        let outer = Outer(io::Error::other(Outer(io::Error::from(io::ErrorKind::ConnectionReset))));
        let found: Vec<_> = causes(&outer).map(|cause| cause.is::<io::Error>()).collect();
        assert_eq!(found, [false, true, false, true]);
        let innermost = causes(&outer).last().and_then(|cause| cause.downcast_ref::<io::Error>());
        assert_eq!(innermost.map(io::Error::kind), Some(io::ErrorKind::ConnectionReset));
    }
}
