//! What a receiver says, in either of its languages, as fixes. Pure.

use super::{
    config::Receiver,
    epoch::Epochs,
    fix::Fix,
    gpsd::{self, Report, Reports},
    nmea,
};

/// Puts fixes together.
#[derive(Debug)]
pub(super) enum Words {
    Nmea(Epochs),
    Gpsd(Reports),
}

/// What a line brought.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// It was understood, at least in part.
    pub(super) understood: bool,
    /// What is to be counted.
    pub(super) refused: Vec<&'static str>,
    /// The fix before, if the line begins another; and the device that gpsd names.
    pub(super) fix: Option<(Fix, Option<String>)>,
    /// What gpsd says to a person.
    pub(super) complaint: Option<String>,
}

impl Words {
    pub(super) fn of(receiver: &Receiver) -> Self {
        match receiver {
            Receiver::Gpsd { .. } => Self::Gpsd(Reports::default()),
            Receiver::Serial(_) | Receiver::Tcp { .. } | Receiver::Udp(_) => Self::Nmea(Epochs::default()),
        }
    }

    /// Longest line in bytes.
    pub(super) fn longest_line(&self) -> usize {
        match self {
            Self::Nmea(_) => nmea::LINE_BYTES_MAX,
            Self::Gpsd(_) => gpsd::LINE_BYTES_MAX,
        }
    }

    /// Takes a line.
    pub(super) fn take(&mut self, line: &[u8]) -> Said {
        let mut said = Said::default();
        match self {
            Self::Nmea(epochs) => {
                let heard = nmea::read(line);
                if heard.noise {
                    said.refused.push(nmea::Refusal::Noise.reason());
                }
                match heard.outcome {
                    Ok(part) => {
                        said.understood = true;
                        said.fix = part.and_then(|part| epochs.take(part)).map(|fix| (fix, None));
                    }
                    Err(refusal) => said.refused.push(refusal.reason()),
                }
            }
            Self::Gpsd(reports) => match gpsd::read(line) {
                None => said.refused.push(nmea::Refusal::Malformed.reason()),
                Some(Report::Error { message }) => {
                    said.refused.push("gpsd-error");
                    said.complaint = Some(message.unwrap_or_default());
                }
                Some(report) => {
                    said.understood = true;
                    said.fix = reports.take(report);
                }
            },
        }
        said
    }

    /// Whether a fix is under way, which silence ends.
    pub(super) fn is_pending(&self) -> bool {
        match self {
            Self::Nmea(epochs) => epochs.is_pending(),
            Self::Gpsd(reports) => reports.is_pending(),
        }
    }

    /// Gives the fix that is under way.
    pub(super) fn flush(&mut self) -> Option<(Fix, Option<String>)> {
        match self {
            Self::Nmea(epochs) => epochs.flush().map(|fix| (fix, None)),
            Self::Gpsd(reports) => reports.flush(),
        }
    }
}
