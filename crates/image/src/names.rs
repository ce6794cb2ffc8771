//! Names as archives have them: as paths below a root, and in words.

use crate::tree;

/// A name of an archive as a path below the root: no leading `/`, no `.`, no empty component; `..` is an error.
pub fn normalize(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    if path.contains(&0) {
        return Err("its name holds a NUL");
    }
    let mut normal = Vec::with_capacity(path.len());
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err("its name leads out by '..'"),
            _ => {
                if !normal.is_empty() {
                    normal.push(b'/');
                }
                normal.extend_from_slice(component);
            }
        }
    }
    if normal.len() > tree::PATH_LIMIT { Err("its name is longer than 4095 bytes") } else { Ok(normal) }
}

/// A name for an error: its beginning, and not much of it where it has to be escaped to be said at all.
pub fn shown(path: &[u8]) -> String {
    const LIMIT: usize = 300;
    let mut length = 0;
    let mut fits = |character: &char| {
        length += character.escape_debug().count();
        length <= LIMIT
    };
    String::from_utf8_lossy(&path[..path.len().min(LIMIT)]).chars().take_while(|character| fits(character)).collect()
}
