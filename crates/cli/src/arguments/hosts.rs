//! `--add-host name:address`, `--add-host name=address`.

use std::net::IpAddr;

/// The word for the host as the container's network sees it.
const HOST_GATEWAY: &str = "host-gateway";

/// Parses one and gives it as the API takes it: `name:address`.
pub fn parse(text: &str) -> Result<String, String> {
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .filter(|(name, address)| !name.is_empty() && !address.is_empty())
        .ok_or_else(|| format!("bad format for add-host: \"{text}\""))?;
    if address == HOST_GATEWAY {
        return Ok(format!("{name}:{address}"));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    bare.parse::<IpAddr>().map_err(|_| format!("invalid IP address in add-host: \"{address}\""))?;
    Ok(format!("{name}:{bare}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_parse() {
        for (text, parsed) in [
            ("db:10.0.0.1", "db:10.0.0.1"),
            ("db=10.0.0.1", "db:10.0.0.1"),
            ("db:::1", "db:::1"),
            ("db=[::1]", "db:::1"),
            ("me:host-gateway", "me:host-gateway"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(parsed));
        }
        for bad in ["db", "db:", ":1.2.3.4", "db:1.2.3", "db:[::1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
