//! Serial ports: found by path or by the USB device behind them, and opened with their line settings.
//!
//! serial2 sets the line and reads back whether it took the settings: an adapter that cannot do 7 bits with even parity
//! says so at once and does not deliver rubbish for ever (docs/decisions/0008-serial-ports.md says why not tokio-serial).
//!
//! What the kernel drops because nobody reads in time (an overrun) is not told here: the kernel counts it (TIOCGICOUNT),
//! but no crate offers that call without `unsafe`. Frames that lose bytes that way show as bad frames where there is a
//! checksum.

mod config;
mod port;
mod usb;

use std::{fmt, io, path::PathBuf};

use anyhow::{Context as _, anyhow};
use rustix::{fs::FlockOperation, io::Errno};
use serial2::{KeepSettings, SerialPort};

pub use config::Config;
use config::{FlowControl, Parity};
pub use port::Port;
use usb::UsbIdentity;

/// Where a port is and how its line is set: settings that were found right. Made by [`Config::validate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    place: Place,
    baud: u32,
    data_bits: u8,
    parity: Parity,
    stop_bits: u8,
    flow_control: FlowControl,
    exclusive: bool,
    dtr: Option<bool>,
    rts: Option<bool>,
}

/// How a port is found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Device(PathBuf),
    Usb { identity: UsbIdentity, sysfs: PathBuf },
}

/// Why a port cannot be had.
#[derive(Debug)]
pub struct OpenError {
    /// What happened, with what can be done about it.
    pub error: anyhow::Error,
    /// Whether a person has to act: it is not just unplugged.
    pub needs_help: bool,
}

impl Settings {
    /// How the port is named in the configuration, which stays the same wherever the kernel puts it.
    #[must_use]
    pub fn name(&self) -> String {
        self.place.to_string()
    }

    /// The line, in the usual short form: `9600 8N1`.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} {}{}{}", self.baud, self.data_bits, self.parity.letter(), self.stop_bits)
    }

    /// How long a character takes on the line.
    #[must_use]
    pub fn character(&self) -> std::time::Duration {
        let bits = 1 + u32::from(self.data_bits) + u32::from(self.parity != Parity::None) + u32::from(self.stop_bits);
        std::time::Duration::from_secs(1) * bits / self.baud.max(1)
    }

    /// Finds the port and opens it. Takes a few milliseconds; a driver that hangs does not hold the task up, only this call.
    ///
    /// # Errors
    /// It is not there, not allowed, not a serial port, in use, or does not take the settings.
    pub async fn open(&self) -> Result<Port, OpenError> {
        let settings = self.clone();
        match tokio::task::spawn_blocking(move || settings.open_now()).await {
            Ok(opened) => opened,
            Err(error) => Err(OpenError { error: error.into(), needs_help: false }),
        }
    }

    fn open_now(&self) -> Result<Port, OpenError> {
        let passing = |error| OpenError { error, needs_help: false };
        let device = match &self.place {
            Place::Device(device) => device.clone(),
            Place::Usb { identity, sysfs } => identity.find(sysfs).map_err(passing)?,
        };
        let refused = |what: &str, error: &io::Error| OpenError {
            error: anyhow!("{}: {what} ({error})", device.display()),
            needs_help: true,
        };
        let mut port = SerialPort::open(&device, KeepSettings).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::ACCESS | Errno::PERM) => refused(
                "no permission: the user that forebay runs as has to be in the group of the device, as a rule `dialout`",
                &error,
            ),
            Some(Errno::BUSY) => refused("in use by another program", &error),
            Some(Errno::NOTTY | Errno::INVAL) => refused("not a serial port", &error),
            Some(Errno::ISDIR) => refused("a directory, not a serial port", &error),
            _ => passing(anyhow!(error).context(format!("open {}", device.display()))),
        })?;
        if self.exclusive {
            self.lock(&port).map_err(|error| refused("in use by another program", &error))?;
        }
        self.set_line(&mut port).with_context(|| format!("set {} to {}", device.display(), self.line())).map_err(
            |error| OpenError { error: error.context("the port does not take its settings"), needs_help: true },
        )?;
        self.set_signals(&port)
            .with_context(|| format!("set DTR or RTS of {}", device.display()))
            .map_err(|error| OpenError { error, needs_help: true })?;
        Port::new(port).map_err(|error| passing(error.into()))
    }

    /// Against programs that ask (flock), and against all but root's (TIOCEXCL).
    fn lock(&self, port: &SerialPort) -> io::Result<()> {
        rustix::fs::flock(port, FlockOperation::NonBlockingLockExclusive)?;
        rustix::termios::ioctl_tiocexcl(port)?;
        Ok(())
    }

    fn set_line(&self, port: &mut SerialPort) -> io::Result<()> {
        let mut line = port.get_configuration()?;
        line.set_raw();
        line.set_baud_rate(self.baud)?;
        line.set_char_size(match self.data_bits {
            5 => serial2::CharSize::Bits5,
            6 => serial2::CharSize::Bits6,
            7 => serial2::CharSize::Bits7,
            _ => serial2::CharSize::Bits8,
        });
        line.set_parity(match self.parity {
            Parity::None => serial2::Parity::None,
            Parity::Odd => serial2::Parity::Odd,
            Parity::Even => serial2::Parity::Even,
        });
        line.set_stop_bits(match self.stop_bits {
            2 => serial2::StopBits::Two,
            _ => serial2::StopBits::One,
        });
        line.set_flow_control(match self.flow_control {
            FlowControl::None => serial2::FlowControl::None,
            FlowControl::Hardware => serial2::FlowControl::RtsCts,
            FlowControl::Software => serial2::FlowControl::XonXoff,
        });
        port.set_configuration(&line)
    }

    fn set_signals(&self, port: &SerialPort) -> io::Result<()> {
        if let Some(dtr) = self.dtr {
            port.set_dtr(dtr)?;
        }
        if let Some(rts) = self.rts {
            port.set_rts(rts)?;
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(device) => device.display().fmt(f),
            Self::Usb { identity, .. } => identity.fmt(f),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(device: &str) -> Settings {
        Config { device: Some(device.into()), ..Config::default() }
            .validate("s", &mut crate::config::Problems::default())
            .expect("right")
    }

    #[tokio::test]
    async fn what_is_no_serial_port_is_told_as_such() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("written");
        for (device, told, needs_help) in [
            ("/dev/null", "/dev/null: not a serial port", true),
            (&*file.to_string_lossy(), "not a serial port", true),
            (&*dir.path().to_string_lossy(), "not a serial port", true),
            ("/dev/forebay-nowhere", "open /dev/forebay-nowhere: No such file", false),
        ] {
            let error = settings(device).open().await.expect_err(device);
            assert!(error.to_string().contains(told), "{device}: {error}");
            assert_eq!(error.needs_help, needs_help, "{device}: {error}");
        }
    }

    #[test]
    fn a_character_has_a_start_bit_and_what_else_is_set() {
        let character = settings("/dev/ttyS0").character();
        assert_eq!(character.as_micros(), 1041, "10 bits at 9600 baud");
        assert_eq!(settings("/dev/ttyS0").line(), "9600 8N1");
    }
}
