use super::*;

#[test]
fn smoke() {
    let file = parse("ARG a=b\nFROM x AS y\nRUN <<EOF\nabc\nEOF\nCMD [\"a\"]\n").unwrap();
    assert_eq!(file.stages.first.instructions.len(), 2);
}
