//! A truck with a GPS receiver: what the receiver says, as NMEA 0183, with right checksums.

use std::time::{Duration, UNIX_EPOCH};

/// Where it starts, in degrees north and east.
pub(crate) const DEPOT: (f64, f64) = (52.52, 13.405);

/// It drives north, so fast in metres per second.
pub(crate) const SPEED: f64 = 20.0;

/// Degrees of latitude that are a metre.
const DEGREES_PER_METRE: f64 = 0.000_008_993_2;

/// How much of a sentence stands between `$` and `*`, with both and the checksum.
pub(crate) fn sentence(body: &str) -> String {
    format!("${body}*{:02X}\r\n", body.bytes().fold(0, |sum, byte| sum ^ byte))
}

/// Where it is after so many seconds.
pub(crate) fn latitude_after(seconds: f64) -> f64 {
    DEPOT.0 + seconds * SPEED * DEGREES_PER_METRE
}

/// All sentences of the epoch after so many seconds, which is at `unix_ms` by the receiver.
pub(crate) fn epoch(unix_ms: u64, seconds: f64) -> String {
    let (time, date) = shown(unix_ms);
    let (latitude, longitude) = (latitude_after(seconds), DEPOT.1);
    let degrees = |degrees: f64| (degrees.trunc(), degrees.fract() * 60.0);
    let ((lat, lat_minutes), (lon, lon_minutes)) = (degrees(latitude), degrees(longitude));
    let place = format!("{lat:02}{lat_minutes:08.5},N,{lon:03}{lon_minutes:08.5},E");
    let knots = SPEED * 3600.0 / 1852.0;
    [
        format!("GNRMC,{time},A,{place},{knots:.3},0.00,{date},,,A"),
        format!("GNVTG,0.00,T,,M,{knots:.3},N,{:.3},K,A", SPEED * 3.6),
        format!("GNGGA,{time},{place},1,08,0.9,34.5,M,45.0,M,,"),
        "GPGSA,A,3,01,02,03,04,05,06,07,08,,,,,1.5,0.9,1.2".to_owned(),
        "GPGSV,2,1,08,01,40,083,46,02,17,308,41,03,07,344,39,04,22,228,45".to_owned(),
        "GPGSV,2,2,08,05,40,183,46,06,17,208,41,07,07,044,39,08,22,128,45".to_owned(),
    ]
    .iter()
    .map(|body| sentence(body))
    .collect()
}

/// What it says without a fix.
pub(crate) fn epoch_without_fix(unix_ms: u64) -> String {
    let (time, date) = shown(unix_ms);
    sentence(&format!("GNRMC,{time},V,,,,,,,{date},,,N")) + &sentence(&format!("GNGGA,{time},,,,,0,02,,,M,,M,,"))
}

/// `hhmmss.ss` and `ddmmyy`.
fn shown(unix_ms: u64) -> (String, String) {
    let text = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string();
    let (date, time) = text.split_once('T').expect("both");
    let time = time[..11].replace(':', "");
    (time, format!("{}{}{}", &date[8..10], &date[5..7], &date[2..4]))
}
