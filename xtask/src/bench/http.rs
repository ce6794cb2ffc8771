//! The least of HTTP/1.1 (RFC 9112) that an engine's API needs: one connection, one request after the other. The same
//! client asks every engine, so that what is compared is the engines.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

/// A connection that is kept.
pub struct Client {
    stream: BufReader<UnixStream>,
}

/// An answer, read to its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Client {
    /// Connects to an engine's socket.
    pub fn connect(socket: &Path) -> Result<Self> {
        Ok(Self { stream: BufReader::new(UnixStream::connect(socket)?) })
    }

    /// Sends a request in one write and reads the answer.
    pub fn request(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Reply> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let length = body.len();
        let text = format!("{method} {path} HTTP/1.1\r\nHost: bench\r\n{kind}Content-Length: {length}\r\n\r\n{body}");
        self.stream.get_mut().write_all(text.as_bytes())?;
        read_reply(&mut self.stream)
    }

    /// As [`Self::request`]; anything but success is an error that shows what the engine said. Answers the body as
    /// JSON, null where there is none.
    pub fn expect_success(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let reply = self.request(method, path, body)?;
        if !(200..300).contains(&reply.status) {
            let said = String::from_utf8_lossy(&reply.body);
            return Err(Error::other(format!("{method} {path} answered {}: {}", reply.status, said.trim())));
        }
        Ok(serde_json::from_slice(&reply.body).unwrap_or(Value::Null))
    }
}

fn read_reply(reader: &mut impl BufRead) -> Result<Reply> {
    let malformed = |what: &str| Error::new(ErrorKind::InvalidData, format!("an answer with {what}"));
    let line = read_line(reader)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| malformed("no status"))?;
    let (mut length, mut chunked) = (0, false);
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed("a header without a colon"))?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(|_| malformed("a length that is no number"))?,
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if !chunked {
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        return Ok(Reply { status, body });
    }
    loop {
        let line = read_line(reader)?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(|_| malformed("a chunk of no size"))?;
        let begin = body.len();
        body.resize(begin + size, 0);
        reader.read_exact(&mut body[begin..])?;
        read_line(reader)?;
        if size == 0 {
            return Ok(Reply { status, body });
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    if reader.take(64 << 10).read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_end_and_no_further() {
        for (text, status, body, rest) in [
            ("HTTP/1.1 204 No Content\r\n\r\nnext", 204, "", "next"),
            ("HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}next", 201, "{}", "next"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\nnext",
                200,
                "abcd",
                "next",
            ),
        ] {
            let mut reader = text.as_bytes();
            let reply = read_reply(&mut reader).unwrap();
            assert_eq!((reply.status, reply.body.as_slice()), (status, body.as_bytes()));
            assert_eq!(reader, rest.as_bytes());
        }
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        for text in [
            "",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
            "HTTP/1.1 x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
        ] {
            assert!(read_reply(&mut text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
