//! The keys by which a source says which serial port it has and how its line is set.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Place, Settings, UsbIdentity};
use crate::config::Problems;

/// The keys of a source's table that say which port and how. For `reader::split_off`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Path of the port: `"/dev/ttyUSB0"`, or better one that stays: `"/dev/serial/by-id/..."`.
    pub device: Option<PathBuf>,
    /// In place of `device`: the USB device behind the port, wherever it is plugged in.
    pub usb: Option<UsbConfig>,
    /// Bits per second.
    pub baud: u32,
    /// Bits of a character: 5 to 8.
    pub data_bits: u8,
    /// `"none"`, `"odd"` or `"even"`.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
    /// `"none"`, `"hardware"` (RTS and CTS) or `"software"` (XON and XOFF).
    pub flow_control: FlowControl,
    /// Whether other programs are kept from the port.
    pub exclusive: bool,
    /// What DTR is set to once the port is open; left as the driver has it if left out. Some boards are reset by it.
    pub dtr: Option<bool>,
    /// The same for RTS.
    pub rts: Option<bool>,
    /// Where the kernel shows its devices.
    pub sysfs: PathBuf,
}

/// The keys of `usb`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct UsbConfig {
    /// Four hexadecimal digits, as `lsusb` shows them.
    vendor: Option<String>,
    /// Four hexadecimal digits, as `lsusb` shows them.
    product: Option<String>,
    /// For one of several of the kind.
    serial_number: Option<String>,
    /// For one port of a device with several: the number of its interface, from 0.
    interface: Option<u8>,
}

/// A bit that makes the number of ones in a character odd or even.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Parity {
    /// No such bit.
    None,
    /// Odd.
    Odd,
    /// Even.
    Even,
}

/// How one side tells the other to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowControl {
    /// Not at all.
    None,
    /// RTS and CTS.
    Hardware,
    /// XON and XOFF.
    Software,
}

impl Parity {
    pub(super) fn letter(self) -> char {
        match self {
            Self::None => 'N',
            Self::Odd => 'O',
            Self::Even => 'E',
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            device: None,
            usb: None,
            // What most devices come with.
            baud: 9600,
            data_bits: 8,
            parity: Parity::None,
            stop_bits: 1,
            flow_control: FlowControl::None,
            exclusive: true,
            dtr: None,
            rts: None,
            sysfs: "/sys".into(),
        }
    }
}

impl Config {
    /// Notes everything that is wrong; what comes back is to be used only if nothing was.
    #[must_use]
    pub fn validate(&self, path: &str, problems: &mut Problems) -> Option<Settings> {
        let usb_is_unread = problems.is_unread(&format!("{path}.usb"));
        let mut wrong = |key: &str, message: String| problems.add(format!("{path}.{key}"), message);
        let place = match (&self.device, &self.usb) {
            (Some(device), None) if device.as_os_str().is_empty() => {
                wrong("device", "names no port".into());
                None
            }
            (Some(device), None) => Some(Place::Device(device.clone())),
            (None, Some(usb)) => {
                usb.validate(&mut wrong).map(|identity| Place::Usb { identity, sysfs: self.sysfs.clone() })
            }
            (Some(_), Some(_)) => {
                wrong("usb", "either `device` or `usb` says which port, not both".into());
                None
            }
            // A `usb` that cannot be read is told already.
            (None, None) if usb_is_unread => None,
            (None, None) => {
                wrong("device", "missing; such as \"/dev/ttyUSB0\", or `usb` with vendor and product".into());
                None
            }
        };
        if !(50..=12_000_000).contains(&self.baud) {
            wrong("baud", format!("is between 50 and 12000000, not {}", self.baud));
        }
        if !(5..=8).contains(&self.data_bits) {
            wrong("data-bits", format!("is between 5 and 8, not {}", self.data_bits));
        }
        if !(1..=2).contains(&self.stop_bits) {
            wrong("stop-bits", format!("is 1 or 2, not {}", self.stop_bits));
        }
        if self.rts.is_some() && self.flow_control == FlowControl::Hardware {
            wrong("rts", "belongs to the flow control with `flow-control = \"hardware\"`".into());
        }
        Some(Settings {
            place: place?,
            baud: self.baud,
            data_bits: self.data_bits,
            parity: self.parity,
            stop_bits: self.stop_bits,
            flow_control: self.flow_control,
            exclusive: self.exclusive,
            dtr: self.dtr,
            rts: self.rts,
        })
    }
}

impl UsbConfig {
    fn validate(&self, wrong: &mut impl FnMut(&str, String)) -> Option<UsbIdentity> {
        let mut id = |key: &str, given: Option<&str>| match given {
            None => {
                wrong(key, "missing; four hexadecimal digits, as `lsusb` shows them".into());
                None
            }
            Some(text) => {
                let id = Some(text)
                    .filter(|text| text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
                    .and_then(|text| u16::from_str_radix(text, 16).ok());
                if id.is_none() {
                    wrong(key, format!("is four hexadecimal digits, as `lsusb` shows them, not `{text}`"));
                }
                id
            }
        };
        let vendor = id("usb.vendor", self.vendor.as_deref());
        let product = id("usb.product", self.product.as_deref());
        Some(UsbIdentity {
            vendor: vendor?,
            product: product?,
            serial_number: self.serial_number.clone(),
            interface: self.interface,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reader;

    fn read(text: &str) -> Result<Settings, Vec<String>> {
        let mut problems = Problems::default();
        let config: Option<Config> = reader::read(text.parse().expect("TOML"), "s", &[], &mut problems);
        let settings = config.and_then(|config| config.validate("s", &mut problems));
        settings.filter(|_| problems.list().is_empty()).ok_or(problems.list().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_port_has_a_path_or_a_usb_device() {
        let port = read("device = '/dev/ttyS0'\nbaud = 19200\nparity = 'even'\ndata-bits = 7").expect("right");
        assert_eq!((port.name(), port.line()), ("/dev/ttyS0".into(), "19200 7E1".into()));
        let usb = "usb = { vendor = '0403', product = '6001', serial-number = 'A1', interface = 1 }";
        assert_eq!(read(usb).expect("right").name(), "usb:0403:6001:A1.1");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        let device = "device = '/dev/ttyS0'";
        for (text, told) in [
            ("", "s.device: missing"),
            ("device = ''", "s.device: names no port"),
            ("device = '/dev/x'\nusb = { vendor = '0403', product = '6001' }", "s.usb: either `device` or `usb`"),
            ("usb = { vendor = '403', product = '6001' }", "s.usb.vendor: is four hexadecimal digits"),
            ("usb = { vendor = '0403' }", "s.usb.product: missing"),
            (&format!("{device}\nbaud = 7"), "s.baud: is between"),
            (&format!("{device}\ndata-bits = 9"), "s.data-bits: is between 5 and 8"),
            (&format!("{device}\nstop-bits = 3"), "s.stop-bits: is 1 or 2"),
            (&format!("{device}\nparity = 'mark'"), "s.parity: must be one of `none`, `odd`, `even`"),
            (&format!("{device}\nflow-control = 'hardware'\nrts = true"), "s.rts: belongs to the flow control"),
        ] {
            let found = read(text).expect_err(text);
            assert!(found.len() == 1 && found[0].starts_with(told), "{text}: {found:#?}");
        }
    }
}
