//! What holds for every framing: pieces of any size give the same frames, nothing troubles it, nothing is lost that was
//! whole, and it finds its way back.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};

use super::*;

const MODBUS: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_MODBUS);

/// What comes out, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Out {
    Frame(Vec<u8>),
    Bad(BadFrame),
}

fn frame(bytes: impl Into<Vec<u8>>) -> Out {
    Out::Frame(bytes.into())
}

fn drain(framer: &mut Framer, out: &mut Vec<Out>) {
    loop {
        let mut bad = Vec::new();
        let next = framer.next(|frame| bad.push(frame)).map(<[u8]>::to_vec);
        out.extend(bad.into_iter().map(Out::Bad));
        match next {
            Some(frame) => out.push(Out::Frame(frame)),
            None => return,
        }
    }
}

/// Cuts the stream given in pieces; memory is looked at after each.
fn cut_pieces<'a>(framing: &Framing, pieces: impl IntoIterator<Item = &'a [u8]>, end: fn(&mut Framer)) -> Vec<Out> {
    let mut framer = framing.framer();
    let mut out = Vec::new();
    for piece in pieces {
        framer.push(piece);
        drain(&mut framer, &mut out);
        let most = framing.max_frame() + 4096;
        assert!(framer.buffered() <= most, "{} bytes are kept", framer.buffered());
    }
    end(&mut framer);
    drain(&mut framer, &mut out);
    assert_eq!((framer.buffered(), framer.gap()), (0, None), "a stream leaves nothing to the next one");
    out
}

fn cut(framing: &Framing, stream: &[u8]) -> Vec<Out> {
    cut_pieces(framing, [stream], Framer::on_end)
}

fn framing(shape: Shape) -> Framing {
    Framing { shape, checksum: None, max_frame: 32 }
}

fn with_checksum(shape: Shape, keep_bad: bool, strip: bool) -> Framing {
    let checksum = Checksum { algorithm: Algorithm::Crc16Modbus, keep_bad, strip };
    Framing { checksum: Some(checksum), ..framing(shape) }
}

fn prefix(bytes: usize) -> LengthPrefix {
    LengthPrefix {
        offset: 0,
        bytes,
        little_endian: false,
        includes_prefix: false,
        trailer: 0,
        keep_prefix: false,
        gap: None,
    }
}

fn any_shape() -> impl Strategy<Value = Shape> {
    let gap = Some(Duration::from_millis(20));
    let any_prefix = (0..4usize, 0..4u32, any::<(bool, bool, bool)>(), 0..3usize).prop_map(
        move |(offset, power, (little_endian, includes_prefix, keep_prefix), trailer)| LengthPrefix {
            offset,
            bytes: 1 << power,
            little_endian,
            includes_prefix,
            trailer,
            keep_prefix,
            gap,
        },
    );
    prop_oneof![
        Just(Shape::Line),
        vec(0..3u8, 1..4).prop_map(|delimiter| Shape::Delimiter(delimiter.into())),
        (1..20usize).prop_map(move |length| Shape::Fixed { length, gap }),
        any_prefix.prop_map(Shape::LengthPrefix),
        Just(Shape::Cobs),
        Just(Shape::Slip),
        Just(Shape::Gap(Duration::from_millis(20))),
        Just(Shape::Syslog),
    ]
}

fn any_framing() -> impl Strategy<Value = Framing> {
    let checksum = prop_oneof![
        Just(None),
        (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(nmea, keep_bad, strip)| {
            let algorithm = if nmea { Algorithm::Nmea } else { Algorithm::Crc16Modbus };
            Some(Checksum { algorithm, keep_bad, strip })
        }),
    ];
    (any_shape(), checksum, 1..40usize).prop_map(|(mut shape, checksum, max_frame)| {
        if let Shape::Fixed { length, .. } = &mut shape {
            *length = (*length).min(max_frame);
        }
        Framing { shape, checksum, max_frame }
    })
}

/// Bytes in which boundaries are frequent.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => 0..6u8,
        2 => proptest::sample::select(b"\r\n\n$*0\xc0\xdb\xdc\xdd1 <".to_vec()),
        1 => any::<u8>(),
    ];
    vec(byte, 0..300)
}

/// What `framing` makes a frame of, and of nothing else.
fn encode(shape: &Shape, content: &[u8]) -> Vec<u8> {
    match shape {
        Shape::Line => [content, b"\r\n"].concat(),
        Shape::Delimiter(delimiter) => [content, delimiter].concat(),
        Shape::Fixed { .. } | Shape::Gap(_) => content.to_vec(),
        Shape::LengthPrefix(prefix) => {
            let header = prefix.offset + prefix.bytes;
            let length = content.len() - prefix.trailer + if prefix.includes_prefix { header } else { 0 };
            let number: Vec<u8> = (0..prefix.bytes).map(|byte| (length >> (8 * byte).min(63)) as u8).collect();
            let number = if prefix.little_endian { number } else { number.into_iter().rev().collect() };
            [&vec![0xaa; prefix.offset], &*number, content].concat()
        }
        Shape::Cobs => [&*cobs::encode_vec(content), &[0]].concat(),
        Shape::Slip => slip::encode(content),
        Shape::Syslog => [format!("{} ", content.len()).as_bytes(), content].concat(),
    }
}

proptest! {
    #[test]
    fn pieces_of_any_size_give_the_same_frames(
        framing in any_framing(),
        stream in any_stream(),
        mut cuts in vec(0..300usize, 0..12),
        broken in any::<bool>(),
    ) {
        let end = if broken { Framer::on_break } else { Framer::on_end };
        let whole = cut_pieces(&framing, [&*stream], end);
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        cuts.iter_mut().for_each(|at| *at = (*at).min(stream.len()));
        let pieces = cuts.windows(2).map(|between| &stream[between[0]..between[1]]);
        prop_assert_eq!(&cut_pieces(&framing, pieces, end), &whole);
        prop_assert_eq!(cut_pieces(&framing, stream.chunks(1), end), whole);
    }

    #[test]
    fn what_was_framed_comes_out(
        shape in any_shape(),
        contents in vec(vec(any::<u8>(), 4..=15usize), 1..6),
    ) {
        let contents: Vec<Vec<u8>> = contents.into_iter().map(|mut content| {
            match &shape {
                // What would be a delimiter is not part of such frames.
                Shape::Line => content.iter_mut().for_each(|byte| *byte = b'0' + *byte % 10),
                Shape::Delimiter(_) => content.iter_mut().for_each(|byte| *byte |= 0x80),
                Shape::Fixed { length, .. } => content.resize(*length, 7),
                Shape::Syslog => content[0] = b'<',
                _ => {}
            }
            content
        }).collect();
        let framing = framing(shape.clone());
        let mut framer = framing.framer();
        let mut out = Vec::new();
        for content in &contents {
            framer.push(&encode(&shape, content));
            drain(&mut framer, &mut out);
            if matches!(shape, Shape::Gap(_)) {
                framer.on_silence();
                drain(&mut framer, &mut out);
            }
        }
        let expected: Vec<Out> = contents.iter().map(|content| match &shape {
            Shape::LengthPrefix(LengthPrefix { keep_prefix: true, .. }) => frame(encode(&shape, content)),
            _ => frame(content.clone()),
        }).collect();
        prop_assert_eq!(out, expected);
    }

    /// Frames that prove themselves are found again behind any garbage. (The first of them may be taken for the rest of
    /// what the garbage began.)
    #[test]
    fn it_finds_its_way_back(
        shape in any_shape().prop_filter("ends by itself", |shape| !matches!(shape, Shape::Gap(_) | Shape::Syslog)),
        garbage in vec(any::<u8>(), 0..200),
        content in vec(b'0'..=b'9', 4..=10usize),
    ) {
        let framing = with_checksum(shape.clone(), false, false);
        let mut content = content;
        match &shape {
            Shape::Fixed { length, .. } if *length < 4 => return Ok(()),
            Shape::Fixed { length, .. } => content.resize(length - 2, b'7'),
            _ => {}
        }
        let crc = |content: &[u8]| MODBUS.checksum(content).to_le_bytes();
        // A checksum over what is handed out, and free of bytes that would end the frame.
        let mut sealed;
        loop {
            sealed = content.clone();
            if let Shape::LengthPrefix(LengthPrefix { keep_prefix: true, .. }) = &shape {
                let whole = encode(&shape, &[&*sealed, &[0, 0]].concat());
                sealed.extend(crc(&whole[..whole.len() - 2]));
            } else {
                sealed.extend(crc(&sealed));
            }
            let tail = &sealed[sealed.len() - 2..];
            let harmless = match &shape {
                Shape::Line => !tail.contains(&b'\n') && tail[1] != b'\r',
                Shape::Delimiter(_) => tail.iter().all(|byte| *byte > 2),
                _ => true,
            };
            if harmless { break }
            let at = content.len() - 1;
            content[at] = if content[at] == b'9' { b'A' } else { content[at] + 1 };
        }
        let good = encode(&shape, &sealed);
        let mut stream = garbage.clone();
        if matches!(shape, Shape::Delimiter(_)) {
            stream.iter_mut().for_each(|byte| *byte |= 0x80);
        }
        // Whatever length garbage promises, this is more.
        (0..20).for_each(|_| stream.extend_from_slice(&good));
        let out = cut(&framing, &stream);
        let expected = if matches!(&shape, Shape::LengthPrefix(LengthPrefix { keep_prefix: true, .. })) { good } else { sealed };
        let found = out.iter().filter(|out| **out == frame(expected.clone())).count();
        prop_assert!(found >= 10, "{} of 20 in {:?}", found, out);
    }
}

#[test]
fn lines_end_in_lf_or_crlf() {
    let lines = framing(Shape::Line);
    let stream = b"one\r\n\r\n\ntwo\nth\rree\r\r\nlast\r";
    let expected = [frame("one"), frame("two"), frame("th\rree\r"), frame("last")];
    assert_eq!(cut(&lines, stream), expected);
    let broken = cut_pieces(&lines, [&stream[..]], Framer::on_break);
    assert_eq!((&broken[..3], &broken[3..]), (&expected[..3], &[Out::Bad(BadFrame::Half)][..]));
}

#[test]
fn syslog_is_counted_or_ends_in_a_trailer() {
    let syslog = framing(Shape::Syslog);
    let stream = b"8 <13>1 ab<14>two\n9 <15>a\nbcd\n<16>three\0\r\n7 days\n64 <17>which is over the limit of 32";
    let expected = [frame("<13>1 ab"), frame("<14>two"), frame("<15>a\nbcd"), frame("<16>three"), frame("7 days")];
    assert_eq!(cut(&syslog, stream), [&expected[..], &[Out::Bad(BadFrame::Oversize)]].concat());
    assert_eq!(cut(&syslog, b"<13>last\r"), [frame("<13>last")]);
    assert_eq!(cut(&syslog, b"12 <13>half"), [Out::Bad(BadFrame::Half)]);
    let long = [&b"<13>"[..], &[b'x'; 100], b"\n3 <1>"].concat();
    assert_eq!(cut(&syslog, &long), [Out::Bad(BadFrame::Oversize), frame("<1>")]);
}

#[test]
fn what_is_too_long_is_counted_once_and_dropped_to_its_end() {
    let lines = framing(Shape::Line);
    let (most, more) = ("x".repeat(32), "x".repeat(33));
    for end in ["\n", "\r\n"] {
        let stream = format!("{most}{end}{more}{end}a{end}{}{end}b{end}", "y".repeat(10_000));
        let expected =
            [frame(&*most), Out::Bad(BadFrame::Oversize), frame("a"), Out::Bad(BadFrame::Oversize), frame("b")];
        assert_eq!(cut(&lines, stream.as_bytes()), expected);
        assert_eq!(cut_pieces(&lines, stream.as_bytes().chunks(7), Framer::on_end), expected);
    }
    // 10 MB without a delimiter are one frame, and kept nowhere.
    let flood = vec![b'z'; 4096];
    let pieces = (0..2560).map(|_| &*flood).chain([&b"\nc\n"[..]]);
    assert_eq!(cut_pieces(&lines, pieces, Framer::on_end), [Out::Bad(BadFrame::Oversize), frame("c")]);
    let prefixed = framing(Shape::LengthPrefix(prefix(4)));
    let stream = [&b"\x00\x98\x96\x80"[..], &vec![0; 10_000_000], b"\0\0\0\x01c"].concat();
    let expected = [Out::Bad(BadFrame::Oversize), frame("c")];
    assert_eq!(cut_pieces(&prefixed, stream.chunks(4096), Framer::on_end), expected);
    let cobs = framing(Shape::Cobs);
    let stream = [&*flood, &[0], &*encode(&Shape::Cobs, b"c")].concat();
    assert_eq!(cut_pieces(&cobs, stream.chunks(100), Framer::on_end), expected);
}

#[test]
fn a_silence_ends_a_frame() {
    let gap = Duration::from_millis(20);
    let mut framer = framing(Shape::Gap(gap)).framer();
    let mut out = Vec::new();
    assert_eq!(framer.gap(), None, "nothing came yet");
    for piece in [&b"ab"[..], b"cd"] {
        framer.push(piece);
        drain(&mut framer, &mut out);
        assert_eq!(framer.gap(), Some(gap));
    }
    framer.on_silence();
    drain(&mut framer, &mut out);
    assert_eq!(framer.gap(), None);
    // Too much, and still going on.
    for _ in 0..3 {
        framer.push(&[b'x'; 20]);
        drain(&mut framer, &mut out);
    }
    assert_eq!((framer.gap(), framer.buffered()), (Some(gap), 0));
    framer.on_silence();
    drain(&mut framer, &mut out);
    framer.push(b"ef");
    framer.on_end();
    drain(&mut framer, &mut out);
    assert_eq!(out, [frame("abcd"), Out::Bad(BadFrame::Oversize), frame("ef")]);
}

#[test]
fn a_silence_mends_the_count() {
    let gap = Some(Duration::from_millis(20));
    for shape in [Shape::Fixed { length: 3, gap }, Shape::LengthPrefix(LengthPrefix { gap, ..prefix(1) })] {
        let mut framer = framing(shape.clone()).framer();
        let mut out = Vec::new();
        for piece in [&b"\x02abc"[..], b"\xff"] {
            framer.push(piece);
            drain(&mut framer, &mut out);
        }
        assert_eq!(framer.gap(), gap);
        framer.on_silence();
        drain(&mut framer, &mut out);
        out.clear();
        framer.push(b"\x02ef");
        drain(&mut framer, &mut out);
        let expected = if matches!(shape, Shape::Fixed { .. }) { "\x02ef" } else { "ef" };
        assert_eq!(out, [frame(expected)], "{shape:?}");
    }
}

#[test]
fn a_bad_checksum_is_counted_and_the_frame_dropped_or_kept() {
    let good = [&b"abc"[..], &MODBUS.checksum(b"abc").to_le_bytes()].concat();
    assert!(!good.contains(&b'\n'));
    let stream = [&good[..], b"\nabcde\n", &good, b"\n"].concat();
    let bad = Out::Bad(BadFrame::Checksum);
    let (whole, stripped) = (frame(good.clone()), frame("abc"));
    let drop = with_checksum(Shape::Line, false, true);
    assert_eq!(cut(&drop, &stream), [stripped, bad.clone(), frame("abc")]);
    let keep = with_checksum(Shape::Line, true, false);
    assert_eq!(cut(&keep, &stream), [whole.clone(), bad.clone(), frame("abcde"), whole.clone()]);
    // One byte too many before frames of five: told once, and the next whole frame is found.
    let fixed = with_checksum(Shape::Fixed { length: 5, gap: None }, false, false);
    assert_eq!(cut(&fixed, &[b"!!", &*good, &good].concat()), [bad, whole.clone(), whole]);
}

#[test]
fn an_impossible_length_or_escape_is_malformed() {
    let malformed = Out::Bad(BadFrame::Malformed);
    let whole = framing(Shape::LengthPrefix(LengthPrefix { includes_prefix: true, ..prefix(2) }));
    assert_eq!(cut(&whole, b"\0\x01\0\x03a\0\x02\0\x03b"), [malformed.clone(), frame("a"), frame("b")]);
    assert_eq!(cut(&framing(Shape::Slip), b"\xc0\xdb\x01\xc0\xc0a\xc0"), [malformed.clone(), frame("a")]);
    assert_eq!(cut(&framing(Shape::Cobs), b"\x05a\0\x02b\0\x02"), [malformed, frame("b"), Out::Bad(BadFrame::Half)]);
}

#[test]
fn the_largest_length_overflows_nothing() {
    let all = LengthPrefix { trailer: 2, gap: Some(Duration::from_millis(1)), ..prefix(8) };
    let mut framer = framing(Shape::LengthPrefix(all)).framer();
    let mut out = Vec::new();
    framer.push(&[0xff; 100]);
    drain(&mut framer, &mut out);
    framer.on_silence();
    drain(&mut framer, &mut out);
    framer.push(b"\0\0\0\0\0\0\0\x01abc");
    drain(&mut framer, &mut out);
    assert_eq!(out, [Out::Bad(BadFrame::Oversize), frame("abc")]);
}
