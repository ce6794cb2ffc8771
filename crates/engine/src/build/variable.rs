//! Secrets in variables: `RUN --mount=type=secret,env=NAME`. As a file a secret may be anything; in a variable it has to be
//! what execve(2) takes.

use super::Secret;
use super::failure::StepError;

/// No argument and no variable is longer, its null byte included (execve(2), "Limits on size of arguments and environment").
const LONGEST_BYTES: usize = 32 * 4096;

/// `NAME=VALUE`. The errors say nothing of the value but its length.
pub(super) fn of(id: &str, name: &str, secret: &Secret) -> Result<String, StepError> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(StepError::said(format!("secret {id}: {name:?} is no name of a variable")));
    }
    let refused = |why: &str| {
        let hint = "mount it as a file: --mount=type=secret,id=…";
        Err(StepError::with_hint(format!("secret {id} cannot be in the variable {name}: {why}"), hint))
    };
    let value = match std::str::from_utf8(&secret.0) {
        Ok(value) if value.contains('\0') => return refused("it has a null byte in it"),
        Ok(value) => value,
        Err(_) => return refused("it is not UTF-8"),
    };
    let variable = format!("{name}={value}");
    if variable.len() >= LONGEST_BYTES {
        return refused(&format!("a variable has {} bytes at the most", LONGEST_BYTES - 1));
    }
    Ok(variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_execve_takes_is_a_variable() {
        let said = |name: &str, value: &[u8]| match of("id", name, &Secret(value.to_vec())) {
            Ok(variable) => variable,
            Err(StepError::Said { message, .. }) => message,
            Err(error) => panic!("{error:?}"),
        };
        assert_eq!(said("A", b"b=c\n"), "A=b=c\n");
        assert_eq!(said("A", b""), "A=");
        assert_eq!(said("A=", b"b"), "secret id: \"A=\" is no name of a variable");
        let refused = |why: &str| format!("secret id cannot be in the variable A: {why}");
        assert_eq!(said("A", b"hunter\0"), refused("it has a null byte in it"));
        assert_eq!(said("A", b"hunter\xff"), refused("it is not UTF-8"));
        assert_eq!(said("A", &[b'x'; LONGEST_BYTES - 3]).len(), LONGEST_BYTES - 1);
        assert_eq!(said("A", &[b'x'; LONGEST_BYTES - 2]), refused("a variable has 131071 bytes at the most"));
    }
}
