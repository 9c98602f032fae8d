//! SLIP (RFC 1055): END ends a frame, ESC stands before what must not be mistaken.

/// Ends a frame; also sent before one, to flush what noise has left on the line.
pub(super) const END: u8 = 0o300;
/// What follows stands for something else.
const ESC: u8 = 0o333;
/// After ESC: END itself.
const ESC_END: u8 = 0o334;
/// After ESC: ESC itself.
const ESC_ESC: u8 = 0o335;

/// Decodes what stood between two ENDs to its own beginning, and returns its length.
///
/// `None` if ESC is followed by something else than the two codes: RFC 1055 calls that a protocol violation. Its sample
/// code then takes the byte as it is, which would store what nobody sent.
pub(super) fn decode_in_place(frame: &mut [u8]) -> Option<usize> {
    let mut to = 0;
    let mut from = 0;
    while let Some(&byte) = frame.get(from) {
        from += 1;
        let decoded = match byte {
            ESC => {
                let code = *frame.get(from)?;
                from += 1;
                match code {
                    ESC_END => END,
                    ESC_ESC => ESC,
                    _ => return None,
                }
            }
            byte => byte,
        };
        // `to` is below `from`, always.
        frame[to] = decoded;
        to += 1;
    }
    Some(to)
}

/// For tests: as it goes over the line.
#[cfg(test)]
pub(super) fn encode(frame: &[u8]) -> Vec<u8> {
    let mut encoded = vec![END];
    for byte in frame {
        match *byte {
            END => encoded.extend([ESC, ESC_END]),
            ESC => encoded.extend([ESC, ESC_ESC]),
            byte => encoded.push(byte),
        }
    }
    encoded.push(END);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_those_of_the_rfc() {
        let mut frame = *b"a\xdb\xdcb\xdb\xdd";
        assert_eq!(decode_in_place(&mut frame), Some(4));
        assert_eq!(&frame[..4], b"a\xc0b\xdb");
        assert_eq!(decode_in_place(&mut b"a\xdb".to_vec()), None);
        assert_eq!(decode_in_place(&mut b"\xdbz".to_vec()), None);
    }
}
