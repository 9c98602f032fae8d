//! The examples do what they say.

#[path = "../examples/forward.rs"]
#[allow(dead_code, unreachable_pub, reason = "as an example it is a program")]
mod forward;

#[test]
fn forward_prints_each_line_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let run = |input: &str| {
        let mut output = Vec::new();
        forward::forward(dir.path().to_str().expect("UTF-8"), input.as_bytes(), &mut output).expect("it runs");
        String::from_utf8(output).expect("UTF-8")
    };
    assert_eq!(run("one\ntwo\n"), "1 one\n2 two\n");
    assert_eq!(run("three\n"), "3 three\n");
    assert_eq!(run(""), "");
}
