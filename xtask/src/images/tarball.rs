//! The difference between two tars, entry by entry, without unpacking either: a layer on top of a base.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

const BLOCK: usize = 512;

/// One entry with everything that belongs to it: its extension headers, its header and its padded data.
struct Entry {
    /// Without `./` before and `/` after it.
    path: Vec<u8>,
    /// What a hard link points to.
    hard_link: Option<Vec<u8>>,
    is_directory: bool,
    bytes: Vec<u8>,
}

/// Copies to `layer` the entries of `whole` that `base` does not have in exactly that form, and whiteouts (image-spec
/// layer.md) for the paths that only `base` has. The directories above what is copied come along, unchanged: an engine
/// that unpacks the layer alone has to know their modes and owners.
pub fn difference(base: impl Read, whole: impl Read, mut layer: impl Write) -> io::Result<()> {
    let mut known: HashMap<Vec<u8>, [u8; 32]> = HashMap::new();
    each(base, |entry| {
        known.insert(entry.path, Sha256::digest(&entry.bytes).into());
        Ok(())
    })?;
    let (mut seen, mut written) = (BTreeSet::new(), BTreeSet::new());
    let mut directories: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    each(whole, |entry| {
        let same =
            known.get(&entry.path).is_some_and(|digest| *digest == <[u8; 32]>::from(Sha256::digest(&entry.bytes)));
        seen.insert(entry.path.clone());
        if entry.is_directory {
            directories.insert(entry.path.clone(), entry.bytes.clone());
        }
        if same {
            return Ok(());
        }
        for (end, _) in entry.path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            if let Some(bytes) = directories.get(&entry.path[..end])
                && written.insert(entry.path[..end].to_vec())
            {
                layer.write_all(bytes)?;
            }
        }
        // A link may only point into its own layer: no engine has to look for the other end in another one.
        if let Some(target) = entry.hard_link.as_ref().filter(|target| !written.contains(*target)) {
            let target = String::from_utf8_lossy(target);
            return Err(io::Error::other(format!("a new hard link to '{target}', which is the base's")));
        }
        written.insert(entry.path);
        layer.write_all(&entry.bytes)
    })?;
    let mut gone: Vec<&Vec<u8>> = known.keys().filter(|path| !seen.contains(*path)).collect();
    gone.sort();
    let mut builder = tar::Builder::new(layer);
    for path in gone {
        let parent = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        // What lies in a directory that is gone goes with it.
        if parent > 0 && !seen.contains(&path[..parent - 1]) {
            continue;
        }
        let name = [&path[..parent], b".wh.", &path[parent..]].concat();
        let name = String::from_utf8(name).map_err(io::Error::other)?;
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        header.set_mtime(super::recipe::SOURCE_DATE_EPOCH);
        builder.append_data(&mut header, name, io::empty())?;
    }
    builder.into_inner()?;
    Ok(())
}

fn each(mut archive: impl Read, mut visit: impl FnMut(Entry) -> io::Result<()>) -> io::Result<()> {
    let (mut long_path, mut long_link, mut bytes) = (None, None, Vec::new());
    loop {
        let mut header = [0; BLOCK];
        archive.read_exact(&mut header)?;
        if header == [0; BLOCK] {
            return Ok(());
        }
        let kind = header[156];
        let size = octal(&header[124..136])?;
        let start = bytes.len() + BLOCK;
        let padded = size.next_multiple_of(BLOCK);
        bytes.extend_from_slice(&header);
        bytes.resize(start + padded, 0);
        archive.read_exact(&mut bytes[start..])?;
        let data = &bytes[start..start + size];
        match kind {
            b'L' => long_path = Some(trimmed(data)),
            b'K' => long_link = Some(trimmed(data)),
            b'x' => {
                long_path = pax(data, b"path=").or(long_path);
                long_link = pax(data, b"linkpath=").or(long_link);
            }
            b'g' => {}
            _ => {
                let path = long_path.take().unwrap_or_else(|| {
                    let prefix = if &header[257..263] == b"ustar\0" { trimmed(&header[345..500]) } else { Vec::new() };
                    let name = trimmed(&header[..100]);
                    if prefix.is_empty() { name } else { [prefix.as_slice(), b"/", name.as_slice()].concat() }
                });
                let link = long_link.take().unwrap_or_else(|| trimmed(&header[157..257]));
                let hard_link = (kind == b'1').then(|| plain(&link));
                visit(Entry {
                    path: plain(&path),
                    hard_link,
                    is_directory: kind == b'5',
                    bytes: std::mem::take(&mut bytes),
                })?;
            }
        }
    }
}

/// Up to the first zero byte.
fn trimmed(field: &[u8]) -> Vec<u8> {
    field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn plain(path: &[u8]) -> Vec<u8> {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    path.strip_suffix(b"/").unwrap_or(path).to_vec()
}

/// A record of a pax extended header: `LENGTH NAME=VALUE\n` (POSIX pax, "pax Extended Header").
fn pax(mut data: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    while let Some(space) = data.iter().position(|byte| *byte == b' ') {
        let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
        let record = data.get(space + 1..length.checked_sub(1)?)?;
        if let Some(value) = record.strip_prefix(name) {
            return Some(value.to_vec());
        }
        data = &data[length..];
    }
    None
}

fn octal(field: &[u8]) -> io::Result<usize> {
    let text = String::from_utf8_lossy(field);
    let digits = text.trim_matches(['\0', ' ']);
    usize::from_str_radix(digits, 8).map_err(|_| io::Error::other(format!("'{digits}' is no size in a tar")))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tarball(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn names(archive: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(archive);
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn a_layer_has_what_is_new_changed_or_gone() {
        let long = "d/".repeat(80) + "long";
        let base = tarball(&[("same", "1"), ("changed", "1"), ("gone", "1"), (&long, "1")]);
        let whole = tarball(&[("same", "1"), ("changed", "2"), ("new", "1"), (&long, "2")]);
        let mut layer = Vec::new();
        difference(base.as_slice(), whole.as_slice(), &mut layer).unwrap();
        assert_eq!(names(&layer), ["changed", "new", &long, ".wh.gone"]);
    }

    #[test]
    fn pax_records_are_read_by_their_length() {
        assert_eq!(pax(b"14 atime=12345\n11 path=a/b\n", b"path="), None, "a wrong length is not believed");
        assert_eq!(pax(b"15 atime=12345\n12 path=a/b\n", b"path="), Some(b"a/b".to_vec()));
    }
}
