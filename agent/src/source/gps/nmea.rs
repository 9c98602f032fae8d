//! One line of NMEA 0183: the sentence in it, checked, and what it says of the fix.
//!
//! The crate `nmea` reads the fields. What is looked at here is what it leaves open: noise before the sentence, sentences
//! without a checksum (refused), proprietary ones (passed over), and numbers that are none.

use chrono::{NaiveDate, NaiveTime};
use nmea::{
    ParseResult,
    sentences::{FaaMode, FixType, GsaData, RmcData, gsa::GsaMode2, rmc::RmcStatusOfFix},
};

use super::fix::{Mode, Position, Quality, finite};

/// Longest line: NMEA allows 82 characters, receivers write up to 102, and a tag block may stand before it.
pub(super) const LINE_BYTES_MAX: usize = 512;

const METRES_PER_SECOND_PER_KNOT: f64 = 1852.0 / 3600.0;

/// Which sentence a part is of; all but GSA come once in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gga,
    Gll,
    Gns,
    Gsa,
    Rmc,
    Vtg,
    Zda,
}

/// What one sentence says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) time: Option<NaiveTime>,
    pub(super) date: Option<NaiveDate>,
    /// Whether there is a fix, if it says so.
    pub(super) valid: Option<bool>,
    pub(super) position: Option<Position>,
    pub(super) altitude: Option<f64>,
    pub(super) speed: Option<f64>,
    pub(super) course: Option<f64>,
    pub(super) satellites: Option<u32>,
    pub(super) hdop: Option<f64>,
    pub(super) mode: Option<Mode>,
    pub(super) quality: Option<Quality>,
}

/// Why a line, or a piece of it, says nothing. The reason under which it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No sentence, or the rest of one: a cut cable, a wrong speed.
    Noise,
    /// It came otherwise than it was sent, or has no checksum.
    Checksum,
    /// The checksum is right, what is in it is not.
    Malformed,
}

impl Refusal {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Checksum => "checksum",
            Self::Malformed => "malformed",
        }
    }
}

/// What was in a line.
#[derive(Debug, PartialEq)]
pub(super) struct Heard {
    /// Something stood before the sentence that was none.
    pub(super) noise: bool,
    /// `Ok(None)`: a sound sentence that says nothing of the fix.
    pub(super) outcome: Result<Option<Part>, Refusal>,
}

/// Reads a line.
pub(super) fn read(line: &[u8]) -> Heard {
    let line = line.trim_ascii();
    // AIS and the like are whole sentences too.
    let begins = |byte: &u8| matches!(byte, b'$' | b'!');
    // A half sentence and a whole one without a line's end between them: the whole one is last.
    let Some(at) = line.iter().rposition(begins) else { return Heard { noise: false, outcome: Err(Refusal::Noise) } };
    let (before, sentence) = line.split_at(at);
    // A tag block (NMEA 4.10) stands between backslashes.
    let is_tag_block = before.len() > 1 && before.starts_with(b"\\") && before.ends_with(b"\\");
    Heard { noise: !before.is_empty() && !is_tag_block, outcome: sentence_in(sentence) }
}

fn sentence_in(sentence: &[u8]) -> Result<Option<Part>, Refusal> {
    let text = std::str::from_utf8(sentence).ok().filter(|text| text.is_ascii()).ok_or(Refusal::Noise)?;
    let (body, checksum) = text[1..].split_once('*').ok_or(Refusal::Checksum)?;
    let wanted = u8::from_str_radix(checksum, 16).map_err(|_| Refusal::Checksum)?;
    if checksum.len() != 2 || body.bytes().fold(0, |sum, byte| sum ^ byte) != wanted {
        return Err(Refusal::Checksum);
    }
    let address = body.split(',').next().unwrap_or_default();
    let is_ours = address.len() == 5 && !address.starts_with('P');
    match address.get(2..) {
        Some("GGA" | "GLL" | "GNS" | "GSA" | "RMC" | "VTG" | "ZDA") if is_ours && text.starts_with('$') => {}
        _ => return Ok(None),
    }
    part_of(nmea::parse_str(text).map_err(|_| Refusal::Malformed)?).ok_or(Refusal::Malformed)
}

/// What a sentence says; `None` if it cannot be.
fn part_of(parsed: ParseResult) -> Option<Option<Part>> {
    let part = match parsed {
        ParseResult::GGA(gga) => Part {
            time: gga.fix_time,
            valid: gga.fix_type.map(|kind| kind != FixType::Invalid),
            position: position(gga.latitude, gga.longitude)?,
            altitude: number(gga.altitude),
            satellites: gga.fix_satellites,
            hdop: number(gga.hdop),
            quality: gga.fix_type.and_then(quality),
            ..Part::of(Kind::Gga)
        },
        ParseResult::GNS(gns) => {
            let kind = FixType::from(gns.faa_modes);
            Part {
                time: gns.fix_time,
                valid: Some(kind != FixType::Invalid),
                position: position(gns.lat, gns.lon)?,
                altitude: number(gns.alt),
                satellites: Some(gns.nsattelites.into()),
                hdop: number(gns.hdop),
                quality: quality(kind),
                ..Part::of(Kind::Gns)
            }
        }
        ParseResult::GLL(gll) => Part {
            time: gll.fix_time,
            valid: Some(gll.valid && gll.faa_mode != Some(FaaMode::DataNotValid)),
            position: position(gll.latitude, gll.longitude)?,
            ..Part::of(Kind::Gll)
        },
        ParseResult::RMC(rmc) => rmc_part(&rmc)?,
        ParseResult::GSA(gsa) => gsa_part(&gsa),
        ParseResult::VTG(vtg) => {
            Part { speed: knots(vtg.speed_over_ground), course: course(vtg.true_course), ..Part::of(Kind::Vtg) }
        }
        ParseResult::ZDA(zda) => Part { time: zda.utc_time, date: zda.utc_date(), ..Part::of(Kind::Zda) },
        _ => return Some(None),
    };
    Some(Some(part))
}

fn rmc_part(rmc: &RmcData) -> Option<Part> {
    let valid = rmc.status_of_fix != RmcStatusOfFix::Invalid && rmc.faa_mode != Some(FaaMode::DataNotValid);
    Some(Part {
        time: rmc.fix_time,
        date: rmc.fix_date,
        valid: Some(valid),
        position: position(rmc.lat, rmc.lon)?,
        speed: knots(rmc.speed_over_ground),
        course: course(rmc.true_course),
        quality: rmc.faa_mode.and_then(|mode| quality(mode.into())),
        ..Part::of(Kind::Rmc)
    })
}

fn gsa_part(gsa: &GsaData) -> Part {
    let mode = match gsa.mode2 {
        GsaMode2::NoFix => None,
        GsaMode2::Fix2D => Some(Mode::Flat),
        GsaMode2::Fix3D => Some(Mode::Spatial),
    };
    let satellites = u32::try_from(gsa.fix_sats_prn.len()).ok();
    Part { mode, satellites, hdop: number(gsa.hdop), ..Part::of(Kind::Gsa) }
}

impl Part {
    fn of(kind: Kind) -> Self {
        Self {
            kind,
            time: None,
            date: None,
            valid: None,
            position: None,
            altitude: None,
            speed: None,
            course: None,
            satellites: None,
            hdop: None,
            mode: None,
            quality: None,
        }
    }
}

/// `None` if these are no coordinates, `Some(None)` if there are none.
fn position(latitude: Option<f64>, longitude: Option<f64>) -> Option<Option<Position>> {
    match latitude.zip(longitude) {
        None => Some(None),
        Some((latitude, longitude)) => Position::new(latitude, longitude).map(Some),
    }
}

fn number(number: Option<f32>) -> Option<f64> {
    number.and_then(|number| finite(number.into()))
}

fn knots(knots: Option<f32>) -> Option<f64> {
    number(knots).filter(|knots| *knots >= 0.0).map(|knots| knots * METRES_PER_SECOND_PER_KNOT)
}

fn course(degrees: Option<f32>) -> Option<f64> {
    number(degrees).filter(|degrees| (0.0..=360.0).contains(degrees))
}

fn quality(kind: FixType) -> Option<Quality> {
    match kind {
        FixType::Invalid => None,
        FixType::Gps => Some(Quality::Gps),
        FixType::DGps => Some(Quality::Dgps),
        FixType::Pps => Some(Quality::Pps),
        FixType::Rtk => Some(Quality::Rtk),
        FixType::FloatRtk => Some(Quality::FloatRtk),
        FixType::Estimated => Some(Quality::Estimated),
        FixType::Manual => Some(Quality::Manual),
        FixType::Simulation => Some(Quality::Simulated),
    }
}

/// A sentence with its checksum, for tests.
#[cfg(test)]
pub(super) fn sentence(body: &str) -> String {
    format!("${body}*{:02X}", body.bytes().fold(0, |sum, byte| sum ^ byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(body: &str) -> Part {
        let heard = read(sentence(body).as_bytes());
        assert!(!heard.noise);
        heard.outcome.expect(body).expect(body)
    }

    #[test]
    fn fields_are_in_the_units_of_a_fix() {
        let gga = part("GNGGA,033745.20,5650.82344,N,03548.9778,W,2,07,1.8,101.2,M,14.7,M,,");
        assert_eq!(gga.position, Position::new(56.0 + 50.823_44 / 60.0, -(35.0 + 48.977_8 / 60.0)));
        assert_eq!((gga.valid, gga.quality, gga.satellites), (Some(true), Some(Quality::Dgps), Some(7)));
        let rmc = part("GPRMC,225446.33,A,4916.45,N,12311.12,W,10.0,054.7,191126,020.3,E,A");
        assert!((rmc.speed.expect("a speed") - 5.144).abs() < 0.001);
        assert_eq!(rmc.date, NaiveDate::from_ymd_opt(2026, 11, 19));
        assert_eq!(part("GPGSA,A,3,10,07,05,02,29,04,08,13,,,,,1.72,1.03,1.38").mode, Some(Mode::Spatial));
        assert_eq!(part("GPGSA,A,1,,,,,,,,,,,,,,,").mode, None);
        assert_eq!(part("GPRMC,,V,,,,,,,,,,N").valid, Some(false));
        assert_eq!(part("GPGGA,,,,,,0,,,,,,,,").valid, Some(false));
    }

    #[test]
    fn what_is_no_sentence_is_told_apart() {
        let outcome = |line: &str| read(line.as_bytes()).outcome;
        assert_eq!(outcome("hello"), Err(Refusal::Noise));
        assert_eq!(outcome("$GPGGA,1,2,3"), Err(Refusal::Checksum));
        assert_eq!(outcome("$GPGGA,,,,,,0,,,,,,,,*67"), Err(Refusal::Checksum));
        assert_eq!(outcome(&sentence("GPGGA,what,ever")), Err(Refusal::Malformed));
        assert_eq!(
            outcome(&sentence("GPGGA,120000,9950.0,N,03548.9778,E,1,07,1.8,1.2,M,1,M,,")),
            Err(Refusal::Malformed)
        );
        assert_eq!(outcome(&sentence("GPGSV,1,1,00")), Ok(None));
        assert_eq!(outcome(&sentence("PUBX,00,081350.00,4717.1")), Ok(None));
        assert_eq!(outcome("!AIVDM,1,1,,B,177KQJ5000G?tO`K>RA1wUbN0TKH,0*5C"), Ok(None));
        let whole = sentence("GPRMC,,V,,,,,,,,,,N");
        let heard = read(format!("$GPGGA,0337{whole}").as_bytes());
        assert!(heard.noise && heard.outcome.is_ok_and(|part| part.is_some()));
        let heard = read(format!("\\s:rover,c:1790000000*12\\{whole}").as_bytes());
        assert!(!heard.noise && heard.outcome.is_ok());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&line);
        }

        /// With a right checksum it gets to the fields.
        #[test]
        fn garbage_in_the_fields_never_panics(kind in "(GGA|GLL|GNS|GSA|RMC|VTG|ZDA)", fields in "(,[0-9.NSEWAVM+eEinfa-]{0,8}){0,22}") {
            if let Ok(Some(part)) = read(sentence(&format!("GP{kind}{fields}")).as_bytes()).outcome {
                prop_assert!(part.altitude.is_none_or(f64::is_finite) && part.speed.is_none_or(f64::is_finite));
            }
        }
    }
}
