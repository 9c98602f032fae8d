//! Whether the disk can hold what the configuration allows: told at the start, before it matters.

use std::path::Path;

use crate::config::{Config, size};

/// What a person should know about the quotas and the disk; nothing if all is well or the disk does not tell its size.
#[must_use]
pub fn warnings(config: &Config) -> Vec<String> {
    let dir = std::path::absolute(&config.store.dir).unwrap_or_else(|_| config.store.dir.clone());
    // Before the first start, the directory's disk is that of the nearest parent.
    let Some(disk) = dir.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok()) else { return Vec::new() };
    let size = disk.f_blocks.saturating_mul(disk.f_frsize);
    let quotas = config.streams.values().fold(0_u64, |sum, stream| sum.saturating_add(stream.quota));
    quota_warning(quotas, size, &dir).into_iter().collect()
}

fn quota_warning(quotas: u64, disk: u64, dir: &Path) -> Option<String> {
    (quotas > disk && disk > 0).then(|| {
        let (quotas, disk, dir) = (size::show(quotas), size::show(disk), dir.display());
        format!("the streams' quotas add up to {quotas}, but the disk of {dir} has only {disk}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_beyond_the_disk_are_told() {
        let dir = Path::new("/var/lib/forebay");
        assert_eq!(quota_warning(1 << 30, 1 << 30, dir), None);
        assert_eq!(
            quota_warning(12 << 30, 8 << 30, dir).as_deref(),
            Some("the streams' quotas add up to 12.0 GiB, but the disk of /var/lib/forebay has only 8.0 GiB")
        );
        // Some file systems do not tell.
        assert_eq!(quota_warning(1, 0, dir), None);
    }
}
