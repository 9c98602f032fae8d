//! What a program writes to standard error: told as warnings, a few lines in a while. All of it is read, as a program that cannot
//! complain stands still.

use std::time::{Duration, Instant};

use tokio::{io::AsyncReadExt as _, process::ChildStderr};
use tracing::warn;

use crate::{
    framing::{Framer, Framing},
    source::SourceContext,
};

/// The longest line that is told.
const LINE_BYTES_MAX: usize = 1024;

/// So many lines are told within [`WINDOW`].
const LINES_MAX: u32 = 20;

const WINDOW: Duration = Duration::from_secs(10);

/// The standard error of one run of a program.
pub(super) struct Complaints {
    stderr: Option<ChildStderr>,
    framer: Framer,
    budget: Budget,
}

impl Complaints {
    pub(super) fn of(stderr: ChildStderr) -> Self {
        Self { stderr: Some(stderr), framer: Framing::lines(LINE_BYTES_MAX).framer(), budget: Budget::default() }
    }

    /// Waits for more, and tells it; for ever once there can be no more.
    ///
    /// # Cancel safety
    /// Nothing is lost if it is dropped.
    pub(super) async fn tell(&mut self, context: &SourceContext) {
        let Some(stderr) = &mut self.stderr else { return std::future::pending().await };
        let mut buffer = [0; 4096];
        match stderr.read(&mut buffer).await {
            Ok(bytes) if bytes > 0 => self.framer.push(&buffer[..bytes]),
            _ => {
                self.stderr = None;
                self.framer.on_end();
            }
        }
        self.tell_lines(context);
    }

    /// Tells what is left, once the program has ended. Does not wait for another that may hold its standard error open.
    pub(super) async fn finish(mut self, context: &SourceContext) {
        let rest = async {
            while self.stderr.is_some() {
                self.tell(context).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(50), rest).await;
        self.framer.on_end();
        self.tell_lines(context);
        self.budget.close(context);
    }

    fn tell_lines(&mut self, context: &SourceContext) {
        let Self { framer, budget, .. } = self;
        let mut long = 0;
        while let Some(line) = framer.next(|_| long += 1) {
            budget.tell(context, Instant::now(), || String::from_utf8_lossy(line).into_owned());
        }
        for _ in 0..long {
            budget.tell(context, Instant::now(), || "(a line that is too long to be told)".to_owned());
        }
    }
}

/// Which lines are told.
#[derive(Default)]
struct Budget {
    began: Option<Instant>,
    told: u32,
    left_out: u64,
}

impl Budget {
    fn tell(&mut self, context: &SourceContext, now: Instant, line: impl FnOnce() -> String) {
        if !self.allows(now) {
            self.left_out += 1;
            return;
        }
        self.close(context);
        warn!(source = &*context.name, "stderr: {}", line());
    }

    /// Tells how many lines were not told.
    fn close(&mut self, context: &SourceContext) {
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            warn!(source = &*context.name, left_out, "stderr: more lines than are told");
        }
    }

    fn allows(&mut self, now: Instant) -> bool {
        if self.began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            (self.began, self.told) = (Some(now), 0);
        }
        self.told += 1;
        self.told <= LINES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_room_for_so_many_lines() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        assert_eq!((0..100).filter(|_| budget.allows(now)).count(), LINES_MAX as usize);
        assert!(budget.allows(now + WINDOW));
    }
}
