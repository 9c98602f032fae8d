//! Finds the serial port of a USB device, as sysfs shows it.
//!
//! `/sys/class/tty/NAME/device` is a link to the port, which lies below the USB interface, which lies below the USB device
//! (Linux: Documentation/admin-guide/sysfs-rules.rst; the files are in Documentation/ABI/testing/sysfs-bus-usb and
//! sysfs-class-tty). So no library of udev is needed.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};

/// A USB device, and which of its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UsbIdentity {
    pub(super) vendor: u16,
    pub(super) product: u16,
    /// Any if left out.
    pub(super) serial_number: Option<String>,
    /// Any if left out.
    pub(super) interface: Option<u8>,
}

/// What sysfs says of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    device: PathBuf,
    identity: UsbIdentity,
}

impl UsbIdentity {
    /// The path of the one port below /dev that fits.
    ///
    /// # Errors
    /// None fits, or more than one, or sysfs cannot be read.
    pub(super) fn find(&self, sysfs: &Path) -> anyhow::Result<PathBuf> {
        let ports = ports(sysfs)?;
        let mut fitting = ports.iter().filter(|port| self.fits(&port.identity));
        let list = |ports: &mut dyn Iterator<Item = &Port>| -> String {
            ports.map(|port| format!("{} ({})", port.device.display(), port.identity)).collect::<Vec<_>>().join(", ")
        };
        match (fitting.next(), fitting.next()) {
            (Some(port), None) => Ok(port.device.clone()),
            (Some(one), Some(two)) => {
                let all = list(&mut [one, two].into_iter().chain(fitting));
                bail!("several ports are {self}: {all}; `serial-number` or `interface` tells them apart")
            }
            (None, _) if ports.is_empty() => bail!("no port is {self}; there is no serial port on USB"),
            (None, _) => bail!("no port is {self}; there are {}", list(&mut ports.iter())),
        }
    }

    fn fits(&self, found: &Self) -> bool {
        let same = |wanted: Option<&str>, found: Option<&str>| wanted.is_none() || wanted == found;
        (self.vendor, self.product) == (found.vendor, found.product)
            && same(self.serial_number.as_deref(), found.serial_number.as_deref())
            && (self.interface.is_none() || self.interface == found.interface)
    }
}

/// Every serial port that lies behind USB, by name.
fn ports(sysfs: &Path) -> anyhow::Result<Vec<Port>> {
    let class = sysfs.join("class/tty");
    let entries = fs::read_dir(&class).with_context(|| format!("list {}", class.display()))?;
    // What cannot be read was unplugged just now.
    let mut ports: Vec<Port> = entries.flatten().filter_map(|entry| port(&entry.path()).ok()).collect();
    ports.sort_by(|a, b| a.device.cmp(&b.device));
    Ok(ports)
}

fn port(tty: &Path) -> anyhow::Result<Port> {
    let read = |file: &Path| fs::read_to_string(file).map(|text| text.trim().to_owned());
    let hex = |text: String| u16::from_str_radix(&text, 16).context("a number");
    let uevent = read(&tty.join("uevent"))?;
    let device = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME=")).ok_or_else(|| anyhow!("no name"))?;
    let hardware = tty.join("device").canonicalize()?;
    let mut interface = None;
    for dir in hardware.ancestors() {
        if interface.is_none()
            && let Ok(number) = read(&dir.join("bInterfaceNumber"))
        {
            interface = u8::from_str_radix(&number, 16).ok();
        }
        if let Ok(vendor) = read(&dir.join("idVendor")) {
            let identity = UsbIdentity {
                vendor: hex(vendor)?,
                product: hex(read(&dir.join("idProduct"))?)?,
                serial_number: read(&dir.join("serial")).ok(),
                interface,
            };
            return Ok(Port { device: Path::new("/dev").join(device), identity });
        }
    }
    bail!("not on USB")
}

impl fmt::Display for UsbIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "usb:{:04x}:{:04x}", self.vendor, self.product)?;
        if let Some(serial_number) = &self.serial_number {
            write!(f, ":{serial_number}")?;
        }
        self.interface.map_or(Ok(()), |interface| write!(f, ".{interface}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Sysfs(tempfile::TempDir);

    impl Sysfs {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            fs::create_dir_all(dir.path().join("class/tty")).expect("made");
            Self(dir)
        }

        /// A port on an interface of a USB device, as the kernel shows it; without `usb`, one of the board.
        fn port(&self, name: &str, usb: Option<(&str, &str, Option<&str>, u8)>) {
            let root = self.0.path();
            let (hardware, class) = match usb {
                Some((vendor, product, serial, interface)) => {
                    let device = root.join(format!("devices/usb1/1-{}{product}", serial.unwrap_or_default()));
                    let port = device.join(format!("1-1:1.{interface}/{name}"));
                    fs::create_dir_all(port.join(format!("tty/{name}"))).expect("made");
                    fs::write(device.join("idVendor"), format!("{vendor}\n")).expect("written");
                    fs::write(device.join("idProduct"), format!("{product}\n")).expect("written");
                    if let Some(serial) = serial {
                        fs::write(device.join("serial"), format!("{serial}\n")).expect("written");
                    }
                    let number = port.parent().expect("an interface").join("bInterfaceNumber");
                    fs::write(number, format!("{interface:02x}\n")).expect("written");
                    (port.clone(), port.join(format!("tty/{name}")))
                }
                None => {
                    let port = root.join("devices/platform/serial8250");
                    fs::create_dir_all(port.join(format!("tty/{name}"))).expect("made");
                    (port.clone(), port.join(format!("tty/{name}")))
                }
            };
            fs::write(class.join("uevent"), format!("MAJOR=188\nMINOR=0\nDEVNAME={name}\n")).expect("written");
            symlink(hardware, class.join("device")).expect("linked");
            symlink(class, root.join("class/tty").join(name)).expect("linked");
        }
    }

    fn identity(vendor: u16, product: u16) -> UsbIdentity {
        UsbIdentity { vendor, product, serial_number: None, interface: None }
    }

    #[test]
    fn a_port_is_found_by_what_is_behind_it() {
        let sysfs = Sysfs::new();
        let ftdi = identity(0x0403, 0x6001);
        let find = |identity: &UsbIdentity| identity.find(sysfs.0.path()).map_err(|error| format!("{error:#}"));
        assert_eq!(find(&ftdi), Err("no port is usb:0403:6001; there is no serial port on USB".into()));
        sysfs.port("ttyS0", None);
        sysfs.port("ttyUSB0", Some(("1a86", "7523", None, 0)));
        let told = "no port is usb:0403:6001; there are /dev/ttyUSB0 (usb:1a86:7523.0)";
        assert_eq!(find(&ftdi), Err(told.into()));
        assert_eq!(find(&identity(0x1a86, 0x7523)), Ok("/dev/ttyUSB0".into()));
        sysfs.port("ttyUSB1", Some(("0403", "6001", Some("A1"), 0)));
        assert_eq!(find(&ftdi), Ok("/dev/ttyUSB1".into()));
        sysfs.port("ttyUSB2", Some(("0403", "6001", Some("A2"), 0)));
        let told = find(&ftdi).expect_err("two");
        assert!(told.contains("/dev/ttyUSB1 (usb:0403:6001:A1.0), /dev/ttyUSB2") && told.contains("`serial-number`"));
        assert_eq!(find(&UsbIdentity { serial_number: Some("A2".into()), ..ftdi }), Ok("/dev/ttyUSB2".into()));
        sysfs.port("ttyUSB3", Some(("0403", "6010", Some("B"), 0)));
        sysfs.port("ttyUSB4", Some(("0403", "6010", Some("B"), 1)));
        let dual = identity(0x0403, 0x6010);
        assert!(find(&dual).expect_err("two").contains("`interface`"));
        assert_eq!(find(&UsbIdentity { interface: Some(1), ..dual }), Ok("/dev/ttyUSB4".into()));
    }

    #[test]
    fn an_unreadable_sysfs_is_told() {
        let error = identity(1, 2).find(Path::new("/nowhere")).expect_err("nothing there");
        assert!(format!("{error:#}").contains("list /nowhere/class/tty"), "{error:#}");
    }
}
