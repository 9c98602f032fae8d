//! Logging to standard error: as text with fields, in colour on a terminal, without times when the journal adds its own.

use std::{env, io::IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer as _, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::agent::LogLevel;

/// Says how much is logged, such as `debug` or `warn,forebay=trace`; goes before the configuration.
pub const VARIABLE: &str = "FOREBAY_LOG";

/// How the names of all of the SDK's crates begin: `aws_config`, `aws_smithy_runtime`, `aws_sdk_kinesis` and others.
const AWS: &str = "aws_";

/// Begins logging. Only the first call counts.
pub fn init(level: LogLevel) {
    let (filter, complaint) = filter(level, env::var(VARIABLE).ok().as_deref());
    let stderr = std::io::stderr;
    let colours = stderr().is_terminal() && env::var_os("NO_COLOR").is_none();
    let layer = fmt::layer().with_writer(stderr).with_ansi(colours).with_target(false);
    // systemd sets this when it connects standard error to its journal, which notes the time of each line.
    let layer = if env::var_os("JOURNAL_STREAM").is_some() { layer.without_time().boxed() } else { layer.boxed() };
    let first = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().is_ok();
    if let Some(complaint) = complaint.filter(|_| first) {
        tracing::warn!("{complaint}");
    }
}

/// The filter, and a complaint about the variable.
fn filter(level: LogLevel, variable: Option<&str>) -> (Targets, Option<String>) {
    let level: LevelFilter = level.as_str().parse().expect("every level is one of tracing's");
    // Libraries have their own idea of what a person should hear. AWS's warn at length of each attempt that fails, which we
    // tell ourselves, once: they are heard where more is asked for.
    let of_libraries = level.min(LevelFilter::WARN);
    let of_aws = if level >= LevelFilter::DEBUG { of_libraries } else { level.min(LevelFilter::ERROR) };
    let usual = Targets::new().with_default(of_libraries).with_target(AWS, of_aws).with_target("forebay", level);
    match variable.filter(|text| !text.is_empty()).map(str::parse::<Targets>) {
        None => (usual, None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (usual, Some(format!("{VARIABLE} is not understood, and not used: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn the_variable_goes_before_the_configuration() {
        let (usual, _) = filter(LogLevel::Debug, None);
        assert!(usual.would_enable("forebay::agent", &Level::DEBUG));
        assert!(!usual.would_enable("hyper", &Level::INFO));
        let (chosen, complaint) = filter(LogLevel::Debug, Some("warn,forebay=trace"));
        assert!(chosen.would_enable("forebay::agent", &Level::TRACE) && complaint.is_none());
        let (quiet, _) = filter(LogLevel::Error, None);
        assert!(!quiet.would_enable("hyper", &Level::WARN));
    }

    #[test]
    fn the_sdk_is_heard_where_more_is_asked_for() {
        for (level, heard) in [
            (LogLevel::Error, None),
            (LogLevel::Warn, None),
            (LogLevel::Info, None),
            (LogLevel::Debug, Some(Level::WARN)),
            (LogLevel::Trace, Some(Level::WARN)),
        ] {
            let (usual, _) = filter(level, None);
            for target in ["aws_config::imds::region", "aws_smithy_runtime", "aws_sdk_kinesis", "aws_runtime"] {
                let most = heard.unwrap_or(Level::ERROR);
                assert!(usual.would_enable(target, &most), "{level:?} {target}");
                assert_eq!(usual.would_enable(target, &Level::WARN), heard.is_some(), "{level:?} {target}");
                assert!(!usual.would_enable(target, &Level::INFO), "{level:?} {target}");
            }
            assert_eq!(usual.would_enable("hyper", &Level::WARN), level.as_str() != "error", "{level:?}");
        }
        let (chosen, _) = filter(LogLevel::Info, Some("warn,aws_config=info"));
        assert!(chosen.would_enable("aws_config", &Level::INFO));
    }

    #[test]
    fn a_variable_that_makes_no_sense_is_told_and_not_used() {
        let (filter, complaint) = filter(LogLevel::Info, Some("forebay=loud"));
        assert!(filter.would_enable("forebay::agent", &Level::INFO));
        assert!(complaint.is_some());
    }
}
