//! Checksums that a frame may end in.

use std::ops::Range;

use crc::{CRC_16_MODBUS, Crc, Table};
use serde::Deserialize;

const MODBUS: Crc<u16, Table<1>> = Crc::<u16, Table<1>>::new(&CRC_16_MODBUS);

/// Which checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// NMEA 0183: `$GPGLL,...*hh`, the exclusive or of what stands between `$` (or `!`) and `*`, in two hexadecimal digits.
    /// A tag block (`\...*hh\`) may stand before the sentence; its own checksum is not verified.
    Nmea,
    /// CRC-16/Modbus of everything before it, low byte first: the frames of Modbus RTU and of many that copied it
    /// ("MODBUS over Serial Line" V1.02, 2.5.1.2).
    #[serde(rename = "crc16-modbus")]
    Crc16Modbus,
}

/// A checksum, and what is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    /// Which.
    pub algorithm: Algorithm,
    /// Whether a frame with a wrong one is handed out all the same. It is counted either way.
    pub keep_bad: bool,
    /// Whether it is taken off frames in which it is right.
    pub strip: bool,
}

impl Checksum {
    /// What of a frame is handed out; `None` if its checksum is missing or wrong.
    pub(super) fn verify(&self, frame: &[u8]) -> Option<Range<usize>> {
        let end = match self.algorithm {
            Algorithm::Nmea => nmea(frame),
            Algorithm::Crc16Modbus => crc16_modbus(frame),
        }?;
        Some(0..if self.strip { end } else { frame.len() })
    }
}

/// Where the checksum begins, if it is right.
fn nmea(frame: &[u8]) -> Option<usize> {
    let star = frame.len().checked_sub(3)?;
    let [b'*', high, low] = frame[star..] else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let told = digit(high)? << 4 | digit(low)?;
    // Behind a tag block, if there is one.
    let sentence = match frame[0] {
        b'\\' => frame[1..star].iter().position(|byte| *byte == b'\\')? + 2,
        _ => 0,
    };
    let (b'$' | b'!', body) = frame[..star].get(sentence..)?.split_first()? else { return None };
    let sum = body.iter().fold(0, |sum, byte| sum ^ byte);
    (u32::from(sum) == told).then_some(star)
}

fn crc16_modbus(frame: &[u8]) -> Option<usize> {
    let (body, told) = frame.split_last_chunk::<2>()?;
    (MODBUS.checksum(body) == u16::from_le_bytes(*told)).then_some(body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nmea_sentences_are_verified() {
        // The last is gpsd's example of a tag block (https://gpsd.gitlab.io/gpsd/AIVDM.html).
        for (frame, end) in [
            (&b"$GPGLL,5300.97914,N,00259.98174,E,125926,A*28"[..], Some(42)),
            (b"$GPGLL,5300.97914,N,00259.98174,E,125926,A*29", None),
            (b"!AIVDM,1,1,,A,14eG;o@034o8sd<L9i:a;WF>062D,0*7D", Some(44)),
            (b"!AIVDM,1,1,,A,14eG;o@034o8sd<L9i:a;WF>062D,0*7d", Some(44)),
            (
                b"\\g:1-2-73874,n:157036,s:r003669945,c:1241544035*4A\\!AIVDM,1,1,,B,15N4cJ`005Jrek0H@9n`DW5608EP,0*13",
                Some(95),
            ),
            (b"$*00", Some(1)),
            (b"*00", None),
            (b"$", None),
            (b"", None),
            (b"\\*00", None),
            (b"\\a\\*00", None),
            (b"xGPGLL,5300.97914,N,00259.98174,E,125926,A*28", None),
            (b"$GPGLL,5300.97914,N,00259.98174,E,125926,A", None),
            (b"$GPGLL*+8", None),
        ] {
            assert_eq!(nmea(frame), end, "{}", frame.escape_ascii());
        }
    }

    #[test]
    fn modbus_frames_are_verified() {
        // Read holding registers 0x006B to 0x006D of unit 17: a sample that is in every text on Modbus.
        let frame = b"\x11\x03\x00\x6b\x00\x03\x76\x87";
        assert_eq!(crc16_modbus(frame), Some(6));
        assert_eq!(crc16_modbus(&frame[1..]), None);
        assert_eq!(crc16_modbus(b"\xff"), None);
        assert_eq!(crc16_modbus(b"\xff\xff"), Some(0), "the checksum of nothing");
    }
}
