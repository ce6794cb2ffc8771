//! How much memory a JSON text would take, told before it is parsed.
//!
//! An object of eight bytes becomes a node of a tree of 640: four megabytes of them, which is what a document may have,
//! would be hundreds. So what a text would become is counted first, and the limits are on that.

/// A tree's node, which has room for eleven entries.
const OBJECT_BYTES: usize = 640;
/// A member, in a tree that has grown: its nodes are half full at the least.
const MEMBER_BYTES: usize = 128;
/// A list's first four elements.
const LIST_BYTES: usize = 160;
/// Another element; lists grow by doubling.
const ELEMENT_BYTES: usize = 64;
/// A string beside its bytes.
const STRING_BYTES: usize = 32;

/// Bytes that the values of a JSON text take at the most. Text that is no JSON has a number too; it says nothing.
pub fn memory_of(text: &[u8]) -> usize {
    let (mut total, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text {
        total += match (in_string, byte) {
            (true, _) if escaped => {
                escaped = false;
                1
            }
            (true, b'\\') => {
                escaped = true;
                0
            }
            (true, b'"') => {
                in_string = false;
                0
            }
            (true, _) => 1,
            (false, b'"') => {
                in_string = true;
                STRING_BYTES
            }
            (false, b'{') => OBJECT_BYTES,
            (false, b':') => MEMBER_BYTES,
            (false, b'[') => LIST_BYTES,
            (false, b',') => ELEMENT_BYTES,
            _ => 0,
        };
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_parsed_is_counted() {
        for (text, want) in [
            ("", 0),
            ("1", 0),
            (r#""ab""#, STRING_BYTES + 2),
            (r#""\"{[,:""#, STRING_BYTES + 5),
            ("[1,2,3]", LIST_BYTES + 2 * ELEMENT_BYTES),
            (r#"{"a":[]}"#, OBJECT_BYTES + STRING_BYTES + 1 + MEMBER_BYTES + LIST_BYTES),
        ] {
            assert_eq!(memory_of(text.as_bytes()), want, "{text}");
        }
    }
}
