//! Messages to an SSH agent, as far as somebody in between has to know them: how long one is, and whether it only uses keys
//! (draft-ietf-sshm-ssh-agent, "Protocol Messages": a length of four bytes, the type, and what belongs to it).

/// No message is longer: OpenSSH's own limit.
pub const LIMIT_BYTES: usize = 256 << 10;

/// `SSH_AGENT_FAILURE`, with its length: the answer to what is not done.
pub const REFUSED: [u8; 5] = [0, 0, 0, 1, 5];

/// `SSH_AGENTC_REQUEST_IDENTITIES`: which keys there are.
const LIST: u8 = 11;
/// `SSH_AGENTC_SIGN_REQUEST`.
const SIGN: u8 = 13;

/// How long a message is that begins so, its length not counted; `None` if it may not be so long, or says nothing.
pub fn length(prefix: [u8; 4]) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(prefix)).ok().filter(|length| (1..=LIMIT_BYTES).contains(length))
}

/// Keys are listed and used. All else is refused: to add or remove some, to lock the agent, extensions.
pub fn only_uses_keys(message: &[u8]) -> bool {
    matches!(message.first(), Some(&(LIST | SIGN)))
}

/// A message with its length before it; one that is too long is none.
pub fn framed(message: &[u8]) -> Option<Vec<u8>> {
    let prefix = u32::try_from(message.len()).ok()?.to_be_bytes();
    length(prefix)?;
    Some([&prefix, message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_listed_and_used_and_nothing_else() {
        let passed: Vec<u8> = (0..=255).filter(|kind| only_uses_keys(&[*kind, 0])).collect();
        assert_eq!(passed, [11, 13]);
        assert!(!only_uses_keys(&[]));
    }

    #[test]
    fn lengths_have_a_limit() {
        for (bytes, expected) in [
            ([0, 0, 0, 0], None),
            ([0, 0, 0, 1], Some(1)),
            ([0, 4, 0, 0], Some(LIMIT_BYTES)),
            ([0, 4, 0, 1], None),
            ([255; 4], None),
        ] {
            assert_eq!(length(bytes), expected);
        }
        assert_eq!(framed(&[5]).unwrap(), REFUSED);
        assert!(framed(&[]).is_none() && framed(&vec![11; LIMIT_BYTES + 1]).is_none());
        assert_eq!(framed(&vec![11; LIMIT_BYTES]).unwrap().len(), LIMIT_BYTES + 4);
    }
}
