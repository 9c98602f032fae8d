//! What the person watching sees: bars on a terminal, plain lines elsewhere.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::ledger::Totals;

/// Between two plain lines of figures.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// The terminal, or whatever stands in its place.
pub(super) struct Screen {
    begun: Instant,
    bars: Option<Bars>,
    last_line: Instant,
}

struct Bars {
    all: MultiProgress,
    published: ProgressBar,
    acknowledged: ProgressBar,
    stored: ProgressBar,
    delivered: ProgressBar,
}

impl Screen {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let bars = std::io::stdout().is_terminal().then(Bars::new);
        Self { begun: now, bars, last_line: now }
    }

    /// Tells an event.
    pub(super) fn say(&mut self, what: &str) {
        let line = format!("{:5.1} s  {what}", self.begun.elapsed().as_secs_f64());
        match &self.bars {
            // Where the terminal has gone away there is nobody to tell.
            Some(bars) => _ = bars.all.println(line),
            None => println!("{line}"),
        }
    }

    /// Shows the figures; `stored` is unknown while the agent is down.
    pub(super) fn draw(&mut self, totals: &Totals, stored: Option<u64>) {
        match &self.bars {
            Some(bars) => bars.draw(totals, stored),
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                let Totals { published, acknowledged, delivered, duplicates } = totals;
                let stored = stored.map_or("-".to_owned(), |stored| stored.to_string());
                self.say(&format!(
                    "published {published}, acknowledged {acknowledged}, stored {stored}, delivered {delivered} \
                     (and {duplicates} again)"
                ));
            }
            None => {}
        }
    }

    /// Leaves the last figures standing.
    pub(super) fn finish(&mut self) {
        if let Some(bars) = self.bars.take() {
            for bar in [bars.published, bars.acknowledged, bars.stored, bars.delivered] {
                bar.abandon();
            }
        }
    }
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let bar = |name: &'static str, colour: &str| {
            let template = format!("        {{prefix:<13}}{{bar:40.{colour}}} {{pos:>7}} {{msg}}");
            let style = ProgressStyle::with_template(&template).expect("the template is sound");
            all.add(ProgressBar::new(1).with_style(style).with_prefix(name))
        };
        let (published, acknowledged) = (bar("published", "white"), bar("acknowledged", "cyan"));
        let (stored, delivered) = (bar("stored", "blue"), bar("delivered", "green"));
        Self { all, published, acknowledged, stored, delivered }
    }

    fn draw(&self, totals: &Totals, stored: Option<u64>) {
        for bar in [&self.published, &self.acknowledged, &self.stored, &self.delivered] {
            bar.set_length(totals.published.max(1));
        }
        self.published.set_position(totals.published);
        self.acknowledged.set_position(totals.acknowledged);
        match stored {
            Some(stored) => {
                self.stored.set_position(stored.min(totals.published));
                self.stored.set_message("");
            }
            None => self.stored.set_message("(the agent is down)"),
        }
        self.delivered.set_position(totals.delivered);
        let backlog = totals.acknowledged.saturating_sub(totals.delivered);
        self.delivered.set_message(match (backlog, totals.duplicates) {
            (0, 0) => String::new(),
            (0, again) => format!("({again} again)"),
            (backlog, again) => format!("(backlog {backlog}, {again} again)"),
        });
    }
}
