//! Text of others for a terminal.

/// What a device or an endpoint says must not move the cursor or ring the bell of whoever looks at it.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}
