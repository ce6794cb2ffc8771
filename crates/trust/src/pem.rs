//! One block of PEM (RFC 7468): what it says it is, and its bytes.

use dozen_model::base64;
use zeroize::Zeroizing;

/// A block's label and content; what stands before and behind it has to be white space alone, since a second key in a file
/// would be one that nobody looks at.
pub(crate) fn read(text: &str) -> Result<(&str, Vec<u8>), &'static str> {
    let begun = text.trim().strip_prefix("-----BEGIN ").ok_or("it is no PEM: it does not begin with -----BEGIN")?;
    let (label, begun) = begun.split_once("-----").ok_or("its first line does not end")?;
    let (body, end) = begun.split_once("-----END ").ok_or("its PEM does not end")?;
    if end.strip_suffix("-----") != Some(label) {
        return Err("there has to be one block of PEM in it, and nothing else");
    }
    let letters: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    Ok((label, base64::decode(&letters).ok_or("its PEM is no base 64")?))
}

pub(crate) fn write(label: &str, bytes: &[u8]) -> String {
    let letters = base64::encode(bytes);
    let lines: Vec<&str> = letters.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
