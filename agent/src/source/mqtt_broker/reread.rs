//! Something that is made of files, and made again when one of them changes: users and passwords, certificates and keys.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use crate::file_stamp::Stamp;

/// Makes a value of files.
type Make<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

/// The value, and the files that it was made of.
pub(super) struct Reread<T> {
    files: Vec<PathBuf>,
    make: Make<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    stamp: Stamp,
    value: T,
}

impl<T: Clone> Reread<T> {
    /// Makes the value for the first time.
    ///
    /// # Errors
    /// What `make` says.
    pub(super) fn new(
        files: Vec<PathBuf>,
        make: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        // Looked at before: what is written in between is read again.
        let stamp = Stamp::of(&files);
        let value = make()?;
        Ok(Self { files, make: Box::new(make), state: Mutex::new(State { stamp, value }) })
    }

    /// The value, made again if a file has changed. If it cannot be made, the old one goes on, and why is said, once per
    /// change. It looks at the files each time, and reads them only if need be.
    pub(super) fn get(&self) -> (T, Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Stamp::of(&self.files);
        let mut trouble = None;
        if now != state.stamp {
            state.stamp = now;
            match (self.make)() {
                Ok(value) => state.value = value,
                Err(message) => trouble = Some(message),
            }
        }
        (state.value.clone(), trouble)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_told_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("number");
        let read = {
            let file = file.clone();
            move || fs::read_to_string(&file).map_err(|e| e.to_string())?.parse::<u32>().map_err(|e| e.to_string())
        };
        assert!(Reread::new(vec![file.clone()], read.clone()).is_err());
        fs::write(&file, "1").expect("written");
        let reread = Reread::new(vec![file.clone()], read).expect("a number");
        assert_eq!(reread.get(), (1, None));
        fs::write(&file, "22").expect("written");
        assert_eq!(reread.get(), (22, None));
        fs::write(&file, "three").expect("written");
        assert!(matches!(reread.get(), (22, Some(_))));
        assert_eq!(reread.get(), (22, None));
        fs::remove_file(&file).expect("removed");
        assert!(matches!(reread.get(), (22, Some(_))));
        fs::write(&file, "4").expect("written");
        assert_eq!(reread.get(), (4, None));
    }
}
