//! What a serial port hears of a device that speaks at another speed than the port is read at. Pseudo-terminals have no speed, so
//! that noise has to be made; this is how a real port comes by it.

/// The bytes that a port at `heard_at` bits per second reads of `said`, which is sent without pauses at `said_at`, 8N1.
///
/// The line rests at one; a character is a zero, eight bits from the lowest on, and a one. The reader waits for the line to fall and looks at it in
/// the middle of its own bits. Where it then finds no one at the end, Linux hands out a zero byte (termios(3), without PARMRK).
pub(crate) fn heard(said: &[u8], said_at: u32, heard_at: u32) -> Vec<u8> {
    let mut line = vec![true];
    for byte in said {
        line.push(false);
        line.extend((0..8).map(|bit| byte >> bit & 1 == 1));
        line.push(true);
    }
    // Times are in bits of the device.
    let bit = f64::from(said_at) / f64::from(heard_at);
    let level = |time: f64| line.get(time as usize).copied().unwrap_or(true);
    let (mut time, mut bytes) = (0.0, Vec::new());
    while time < line.len() as f64 {
        if level(time) {
            time += bit / 16.0;
            continue;
        }
        let in_the_middle_of = |nth: f64| level(time + (nth + 0.5) * bit);
        let byte = (0..8).fold(0, |byte, nth| byte | u8::from(in_the_middle_of(f64::from(nth) + 1.0)) << nth);
        bytes.push(if in_the_middle_of(9.0) { byte } else { 0 });
        time += 9.5 * bit;
        // A line that is held at zero is one character, up to its end.
        while !level(time) && time < line.len() as f64 {
            time += bit / 16.0;
        }
    }
    bytes
}

#[test]
fn at_the_right_speed_everything_is_heard() {
    let said: Vec<u8> = (0..=255).collect();
    assert_eq!(heard(&said, 9600, 9600), said);
    assert_ne!(heard(&said, 10_500, 9600), said);
    assert!(heard(b"UUUU", 4800, 9600).len() > 4);
}
