//! Whether a link's limits hold at the moment: by the interface that the default route leaves by, or by what a file says.
//!
//! NetworkManager and ModemManager tell over D-Bus what is metered, which would be a large dependency for one bit. A
//! gateway knows its modem's interface by name; where that is not enough, whatever knows better writes a file (a dispatcher
//! script of NetworkManager is one line, see docs/links.md).

use std::{fs, path::PathBuf};

use super::Config;

/// Where the kernel tells its routes.
const ROUTES: &str = "/proc/net/route";
const ROUTES_V6: &str = "/proc/net/ipv6_route";

#[derive(Debug, Clone)]
pub(super) enum Meter {
    Interfaces(Vec<String>),
    File(PathBuf),
}

impl Meter {
    /// Nothing where the limits always hold.
    pub(super) fn of(config: &Config) -> Option<Self> {
        match &config.metered_file {
            Some(file) => Some(Self::File(file.clone())),
            None if config.metered_interfaces.is_empty() => None,
            None => Some(Self::Interfaces(config.metered_interfaces.clone())),
        }
    }

    /// Whether the limits hold. What cannot be known is taken for metered: that costs time, the other mistake money.
    pub(super) fn look(&self) -> bool {
        match self {
            Self::File(file) => fs::read_to_string(file).map_or(true, |text| text.trim() != "no"),
            Self::Interfaces(patterns) => {
                let routes = fs::read_to_string(ROUTES).unwrap_or_default();
                let routes_v6 = fs::read_to_string(ROUTES_V6).unwrap_or_default();
                let ways = [default_way(&routes), default_way_v6(&routes_v6)];
                let mut known = ways.into_iter().flatten().peekable();
                known.peek().is_none() || known.any(|way| patterns.iter().any(|pattern| matches(pattern, way)))
            }
        }
    }
}

fn matches(pattern: &str, interface: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => interface.starts_with(start),
        None => interface == pattern,
    }
}

/// The interface of the default route of `/proc/net/route` with the lowest metric.
fn default_way(table: &str) -> Option<&str> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [interface, "00000000", _, flags, _, _, metric, "00000000", ..] = columns[..] else { return None };
        let up = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & RTF_UP != 0);
        up.then_some((metric.parse::<u32>().ok()?, interface))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, interface)| interface)
}

/// The same of `/proc/net/ipv6_route`, where the loopback has an entry for what has no route.
fn default_way_v6(table: &str) -> Option<&str> {
    const ANYWHERE: &str = "00000000000000000000000000000000";
    let routes = table.lines().filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [ANYWHERE, "00", _, _, _, metric, _, _, flags, interface] = columns[..] else { return None };
        let up = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & RTF_UP != 0 && flags & RTF_REJECT == 0);
        (up && interface != "lo").then_some((u32::from_str_radix(metric, 16).ok()?, interface))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, interface)| interface)
}

/// Flags of a route, of `linux/route.h`.
const RTF_UP: u32 = 0x1;
const RTF_REJECT: u32 = 0x200;

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wwan0\t00000000\t0100000A\t0003\t0\t0\t700\t00000000\t0\t0\t0
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth1\t00000000\t0101A8C0\t0002\t0\t0\t1\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
";

    #[test]
    fn the_default_route_with_the_lowest_metric_counts() {
        assert_eq!(default_way(TABLE), Some("eth0"));
        let without: Vec<_> = TABLE.lines().filter(|line| !line.starts_with("eth0")).collect();
        assert_eq!(default_way(&without.join("\n")), Some("wwan0"));
        for broken in ["", "Iface\nwwan0", "Iface\nwwan0 00000000 x y", "\u{0}\n\n \n"] {
            assert_eq!(default_way(broken), None);
        }
    }

    #[test]
    fn of_ipv6_too() {
        let zeros = "0".repeat(32);
        let line = |metric: &str, flags: &str, interface: &str| {
            format!(
                "{zeros} 00 {zeros} 00 fe800000000000000000000000000001 {metric} 00000001 00000000 {flags} {interface}\n"
            )
        };
        let table = line("ffffffff", "00200200", "lo") + &line("00000400", "00450003", "wwan0");
        assert_eq!(default_way_v6(&table), Some("wwan0"));
        assert_eq!(default_way_v6(&(table + &line("00000064", "00450003", "eth0"))), Some("eth0"));
        assert_eq!(default_way_v6(&line("ffffffff", "00200200", "lo")), None);
    }

    #[test]
    fn patterns_and_files() {
        assert!(matches("wwan0", "wwan0") && matches("ppp*", "ppp12") && matches("*", "eth0"));
        assert!(!matches("wwan0", "wwan01") && !matches("ppp*", "pp"));
        let file = tempfile::NamedTempFile::new().expect("a file");
        let meter = Meter::File(file.path().into());
        for (text, metered) in [("no\n", false), ("yes", true), ("", true), ("unknown", true)] {
            fs::write(file.path(), text).expect("written");
            assert_eq!(meter.look(), metered, "{text}");
        }
        assert!(Meter::File("/nowhere/at/all".into()).look(), "what nobody tells is taken for metered");
    }
}
