//! Deleting a stream: a mark first, then the files, so that a power cut in between leaves no half of a stream behind.

use std::{io, path::Path};

use super::{StreamWriter, Surroundings, stream_dir};
use crate::error::Error;

/// A stream directory with this file in it is as good as gone.
const MARK: &str = "deleted";

impl StreamWriter {
    /// Lets go of the files, because the stream is deleted.
    pub(crate) fn let_go(self) {
        drop(self.active);
        self.core.refuse_held();
        self.core.let_go();
    }
}

/// Deletes a stream that nobody has open. After an error it may be deleted or not.
pub(crate) fn delete(around: &Surroundings, dir: &Path, name: &str) -> Result<(), Error> {
    let path = dir.join(MARK);
    let marked = match around.disk.create(&path) {
        Ok(file) => file.sync().and_then(|()| around.disk.sync_dir(dir)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => around.disk.sync_dir(dir),
        Err(error) => Err(error),
    };
    marked.map_err(|source| Error::Io { action: "mark as deleted", path, source })?;
    finish(around, dir, name)
}

/// Ends deletions that a power cut interrupted.
pub(crate) fn finish_deletions(around: &Surroundings, data_dir: &Path, streams: &[String]) -> Result<(), Error> {
    for name in streams {
        let dir = stream_dir(data_dir, name);
        match around.disk.list(&dir) {
            Ok(names) if names.iter().any(|name| name == MARK) => finish(around, &dir, name)?,
            // The last step is missing. An empty one that is still wanted is made again.
            Ok(names) if names.is_empty() => _ = around.disk.remove_dir(&dir),
            _ => {}
        }
    }
    Ok(())
}

/// Removes everything of a stream that is marked. The mark goes last.
fn finish(around: &Surroundings, dir: &Path, name: &str) -> Result<(), Error> {
    around.catalogue.forget_stream(name);
    around.catalogue.flush();
    let remove = || -> io::Result<()> {
        let names = around.disk.list(dir)?;
        for name in names.iter().filter(|name| *name != MARK) {
            around.disk.remove(&dir.join(name))?;
        }
        around.disk.sync_dir(dir)?;
        around.disk.remove(&dir.join(MARK))?;
        around.disk.remove_dir(dir)?;
        around.disk.sync_dir(dir.parent().expect("a stream has a directory above it"))
    };
    remove().map_err(|source| Error::Io { action: "delete", path: dir.into(), source })
}
